package kong

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func challengeFields() []object {
	return []object{
		field("challenge", record(
			field("when", oneOf("never", "never", "always"), "whether a proof of work is asked for"),
			field("action", object{"type": "string"}, "what the proof is good for"),
			field("secret", object{"type": "string", "referenceable": true, "encrypted": true}, "signs challenges; at least 32 bytes, the same everywhere"),
			field("max_number", integer(50000, 1000, 5000000), "the work: half as many hashes on average"),
			field("ttl_seconds", integer(300, 10, 3600), "how long a challenge is good"),
		), "What a client must have done before it may go on"),
	}
}

func readChallenge(v value, c *guard.Config) error {
	ch := v.at("challenge")
	c.Challenge = guard.Challenge{
		Always: ch.at("when").text() == "always", Action: ch.at("action").text(), Secret: telemetry.Secret(ch.at("secret").text()),
		MaxNumber: ch.at("max_number").number(), TTL: time.Duration(ch.at("ttl_seconds").number()) * time.Second,
	}
	return nil
}
