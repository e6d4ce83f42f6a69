# As policies for opa-envoy-plugin are written. A request's context_extensions say which result the document has, or that it
# shows its input.
package envoy.authz

asked := input.attributes.contextExtensions.case

allow := data.results[asked]

allow := {"allowed": false, "http_status": 429, "body": json.marshal(input)} if asked == "echo"

allow := x if {
	asked == "conflict"
	some x in [true, false]
}

# That of the plug-in's own documentation, in other words.
allow if {
	asked == "documented"
	input.attributes.request.http.method == "GET"
	input.parsed_path == ["api", "v1", "products"]
	is_user
}

is_user if {
	[_, encoded] := split(input.attributes.request.http.headers.authorization, " ")
	[name, _] := split(base64.decode(encoded), ":")
	name == "bob"
}
