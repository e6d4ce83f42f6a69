package kong

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func dpopFields() []object {
	return []object{
		field("dpop", record(
			field("mode", oneOf("off", "off", "optional", "required"), "whether tokens bound to a client's key are taken (RFC 9449): off takes bearer tokens alone, required bound ones alone. A bound token is never taken as a bearer token"),
			field("origins", array(object{"type": "string"}), "origins of the URLs that clients call, such as https://api.example.com: a proof names the whole URL. Needed unless mode is off"),
			field("algorithms", object{"type": "array", "default": []string{"ES256", "EdDSA", "PS256", "RS256"}, "len_min": 1, "elements": object{"type": "string", "one_of": []string{"ES256", "EdDSA", "PS256", "RS256"}}}, "accepted signature algorithms of proofs"),
			field("window_seconds", integer(60, 1, 300), "how far a proof's time may be from ours, either way; each proof is taken once"),
			field("nonce_seconds", integer(0, 0, 3600), "ask for a nonce of ours in each proof, which no client can know long before; another is given out so often, and each is taken twice as long. 0 for none"),
			field("nonce_secret", object{"type": "string", "referenceable": true, "encrypted": true}, "makes nonces; at least 32 bytes, the same everywhere"),
		), "proofs of possession"),
	}
}

func readDPoP(v value, c *guard.Config) error {
	d := v.at("dpop")
	c.DPoP = guard.DPoP{
		Mode: guard.DPoPMode(d.at("mode").text()), Origins: d.at("origins").texts(), Algorithms: d.at("algorithms").texts(),
		Window: time.Duration(d.at("window_seconds").number()) * time.Second,
		Nonce:  guard.DPoPNonce{Every: time.Duration(d.at("nonce_seconds").number()) * time.Second, Secret: telemetry.Secret(d.at("nonce_secret").text())},
	}
	return nil
}
