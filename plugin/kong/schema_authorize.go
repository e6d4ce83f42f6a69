package kong

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func authorizeFields() []object {
	return []object{
		field("authorize", object{"type": "boolean", "default": true}, "whether the policy is asked"),
		field("resources", array(record(
			field("pattern", object{"type": "string", "required": true, "match": "^/"}, "a path; {id} is one segment"),
			field("type", object{"type": "string", "required": true}, "the resource type that the policy sees"),
		)), "what paths stand for; a path that none covers is denied"),
		field("pdp", record(
			field("url", object{"type": "string", "referenceable": true}, "http://host:port or unix:///path"),
			field("timeout_ms", integer(50, 1, 1000), "deadline of a decision"),
		), "the decision point"),
	}
}

func readAuthorize(v value, c *guard.Config) error {
	c.Authorize = v.at("authorize").flag()
	c.PDP = guard.PDP{URL: v.at("pdp").at("url").text(), Timeout: time.Duration(v.at("pdp").at("timeout_ms").number()) * time.Millisecond}
	for _, r := range v.at("resources").list() {
		c.Resources = append(c.Resources, guard.Resource{Pattern: r.at("pattern").text(), Type: r.at("type").text()})
	}
	return nil
}
