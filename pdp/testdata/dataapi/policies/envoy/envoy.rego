# As Envoy's ext_authz asks.
package envoy

default allow := false

allow if {
	input.attributes.request.http.method == "GET"
	input.parsed_path == ["orders", "17"]
}
