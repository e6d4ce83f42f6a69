package kong

import (
	"fmt"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

func limitFields() []object {
	return []object{
		field("limits", array(record(
			field("name", object{"type": "string", "required": true, "match": "^[%w_-]+$"}, "shown in RateLimit"),
			field("key", object{"type": "string", "required": true, "one_of": []string{"ip", "subject"}}, "what is counted by"),
			field("rate", object{"type": "string", "required": true, "match": "^%d+%-[SMHD]$"}, "requests per second, minute, hour or day, such as 60-M"),
		)), "every one counts every request"),
	}
}

func readLimits(v value, c *guard.Config) error {
	for i, l := range v.at("limits").list() {
		rate, err := limit.ParseRate(l.at("rate").text())
		if err != nil {
			return fmt.Errorf("config.limits[%d].rate: %w", i+1, err)
		}
		c.Limits = append(c.Limits, guard.Limit{Name: l.at("name").text(), Key: guard.LimitKey(l.at("key").text()), Rate: rate})
	}
	return nil
}
