# As Kong's plugin asks: a boolean, or an object that says more.
package kong

default allow := false

allow if {
	input.request.http.method == "GET"
	input.request.http.headers["x-department"] == "sales"
}

detailed := {"allow": true, "headers": {"x-decided-by": "opa"}} if allow

detailed := {"allow": false, "status": 418, "message": "not for you"} if not allow
