// Package assertion lets an upstream believe Gatehouse without believing the network. The edge signs who a request comes from
// in the header X-Gatehouse-Assertion; this package checks it. In a Go upstream that takes three lines:
//
//	check, err := assertion.New(ctx, assertion.Config{Audience: "orders", KeySets: []string{"http://127.0.0.1:8100/.well-known/jwks.json"}})
//	// … err
//	err = http.ListenAndServe(":9000", check.Handler(mux))
//
// and in a handler
//
//	who, _ := assertion.From(r.Context())
//
// # The header
//
// It is a JWT (RFC 7519), signed by ES256, whose type is gatehouse-assertion+jwt, and which lives for 60 seconds:
//
//	iss        "gatehouse"
//	aud        the upstream's name, as the route's configuration says (assertion.audience)
//	sub        who asks; "anonymous", with anonymous: true, for a request without a token
//	htm, path  the method, and the path without the query and decoded, that the upstream gets
//	iat, exp   seconds
//	decision   the decision's id
//	tid, roles, scope, client_id, sid, acr, sub_iss   what is known of the caller; sub_iss is the issuer of its token
//
// Bound to method, path and audience, it is of no use for any other request. The same request may be sent again with it as
// long as it lives; the query and the body are not bound.
package assertion
