package kong

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func aliveFields() []object {
	return []object{
		field("revocation", record(
			field("max_lag_seconds", integer(5, 1, 3600), "how far behind the ended sessions may be; a second is usual"),
			field("when_behind", oneOf("deny", "deny", "introspect", "continue"), "what becomes of requests with a token then: deny, ask the token's issuer (RFC 7662), or go by what is known"),
		), "which tokens count as ended"),
	}
}

func readAlive(v value, c *guard.Config) error {
	r := v.at("revocation")
	c.Alive = guard.Alive{MaxLag: time.Duration(r.at("max_lag_seconds").number()) * time.Second, Behind: guard.Behind(r.at("when_behind").text())}
	return nil
}
