package kong

import "github.com/gatehouse-auth/gatehouse/plugin/guard"

func forwardFields() []object {
	return []object{
		field("assertion", record(
			field("audience", object{"type": "string"}, "the upstream's name; with it the request bears X-Gatehouse-Assertion, a signed statement of who asks, good for this request and 60 seconds"),
		), "for an upstream that does not trust the network; see the Go package assertion"),
	}
}

func readForward(v value, c *guard.Config) error {
	c.Assertion = guard.Assertion{Audience: v.at("assertion").at("audience").text()}
	return nil
}
