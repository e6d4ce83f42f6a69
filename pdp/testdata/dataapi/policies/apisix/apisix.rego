# As APISIX's plugin asks: for a whole package.
package apisix

default allow := false

allow if {
	input.type == "http"
	input.request.method == "GET"
	startswith(input.request.path, "/get")
}

reason := "only GET of /get" if not allow

status_code := 403 if not allow
