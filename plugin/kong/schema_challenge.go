package kong

import (
	"fmt"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func challengeFields() []object {
	return []object{
		field("challenge", record(
			field("when", oneOf("never", "never", "risk", "always"), "whether clients must show that they are no robots: never, from a risk on, or always"),
			field("action", object{"type": "string"}, "what a solution is good for"),
			field("secret", object{"type": "string", "referenceable": true, "encrypted": true}, "signs proofs of work and clearances; at least 32 bytes, the same everywhere"),
			field("max_number", integer(50000, 1000, 5000000), "the work at no risk: half as many hashes on average"),
			field("ttl_seconds", integer(300, 10, 3600), "how long a challenge is good"),
			field("page", boolean(true), "answer a browser's navigation by a page that solves the challenge and loads what was asked for; needs a clearance by cookie, and a guarded route that takes /.well-known/gatehouse/"),
			field("clearance", record(
				field("ttl_seconds", integer(300, 0, 86400), "how long it is good; 0 for none, so that each request solves its own"),
				field("by", oneOf("cookie", "cookie", "header", "both"), "where it is: the cookie __Host-gatehouse-clearance, or X-Gatehouse-Clearance in the answer and in later requests"),
			), "what a solved challenge gives: later requests of the same action, route, network and user agent pass without one"),
			field("provider", providerFields(), "who sets and checks challenges"),
			field("risk", riskFields(), "how risky a request is, 0 to 100: the sum of its signals"),
		), "whether clients must show that they are no robots"),
	}
}

func providerFields() object {
	return record(
		field("name", oneOf("altcha", "altcha", "turnstile", "hcaptcha", "recaptcha_v2", "recaptcha_v3", "siteverify"), "ALTCHA is a proof of work of our own, with no third party; siteverify is anybody who answers as the others do"),
		field("site_key", object{"type": "string", "referenceable": true}, "public key of the provider's widget"),
		field("secret", object{"type": "string", "referenceable": true, "encrypted": true}, "shared with the provider"),
		field("url", object{"type": "string", "referenceable": true, "match": "^https?://"}, "where it checks, if not at its usual place"),
		field("hostnames", array(object{"type": "string"}), "hosts of the pages on which challenges may be solved; needed but for altcha and siteverify"),
		field("min_score_percent", integer(0, 0, 100), "refuse lower scores; needed for recaptcha_v3, where 50 is usual"),
		field("timeout_ms", integer(2000, 100, 4000), "deadline of a check"),
		field("send_address", boolean(false), "tell the provider the client's address"),
		field("allow_private", boolean(false), "let url be on the private network, by plain http too"),
		field("when_away", oneOf("deny", "deny", "allow"), "what becomes of a request with a solution while nobody can say whether it is good; allow lets robots in as well"),
	)
}

func riskFields() object {
	weight := func(def int) object { return integer(def, 0, 100) }
	return record(
		field("threshold", integer(50, 1, 100), "from which on a challenge is asked for"),
		field("max_number", integer(0, 0, 5000000), "the work at a risk of 100, between which and challenge.max_number it grows; 0 for five times as much, but no more than a million"),
		field("failures", integer(5, 1, 10000), "as many refusals of the client's network in ten minutes count in full"),
		field("logins", integer(10, 1, 10000), "as many failed log-ins of the client's network in ten minutes count in full; the plugin gatehouse-outcome counts them"),
		field("networks", array(object{"type": "string", "match": "^[%w.:/]+$"}), "addresses or networks (CIDR) of bad repute"),
		field("browser", boolean(false), "the route is for browsers: a client without Accept-Language is odd"),
		field("weights", record(
			field("failures", weight(60), "requests refused lately by any route: bad tokens, bad solutions, spent limits"),
			field("logins", weight(0), "log-ins that failed lately at any route that has gatehouse-outcome, counted in redis_url by all edges; with 0 they are not asked for"),
			field("rate", weight(40), "how far the route's fullest limit is used, from its half on"),
			field("network", weight(60), "the address is of bad repute"),
			field("client", weight(25), "for each of User-Agent, Accept and (for browsers) Accept-Language that is missing or odd"),
		), "what each signal adds in full"),
	)
}

func boolean(def bool) object { return object{"type": "boolean", "default": def} }

func readChallenge(v value, c *guard.Config) error {
	ch := v.at("challenge")
	clearance, p := ch.at("clearance"), ch.at("provider")
	c.Challenge = guard.Challenge{
		When: guard.When(ch.at("when").text()), Action: ch.at("action").text(), Secret: telemetry.Secret(ch.at("secret").text()),
		MaxNumber: ch.at("max_number").number(), TTL: seconds(ch.at("ttl_seconds")), Page: ch.at("page").flag(),
		Clearance: guard.Clearance{TTL: seconds(clearance.at("ttl_seconds")), By: guard.Carrier(clearance.at("by").text())},
		Provider: guard.Provider{
			Name: challenge.Provider(p.at("name").text()), URL: p.at("url").text(), SiteKey: p.at("site_key").text(), Secret: telemetry.Secret(p.at("secret").text()),
			Hostnames: p.at("hostnames").texts(), MinScore: float64(p.at("min_score_percent").number()) / 100, SendAddress: p.at("send_address").flag(),
			AllowPrivate: p.at("allow_private").flag(), Timeout: milliseconds(p.at("timeout_ms")), WhenAway: guard.Away(p.at("when_away").text()),
		},
	}
	return readRisk(ch.at("risk"), &c.Challenge.Risk, c.Challenge.MaxNumber)
}

// The work at full risk where the configuration does not say: so many times that at none, and no more than a browser does in
// some ten seconds.
const (
	riskyWork = 5
	mostWork  = 1000000
)

func readRisk(v value, r *guard.Risk, work int64) error {
	w := v.at("weights")
	*r = guard.Risk{
		Threshold: int(v.at("threshold").number()), MaxNumber: v.at("max_number").number(), Failures: int(v.at("failures").number()), Logins: int(v.at("logins").number()), Browser: v.at("browser").flag(),
		Weights: guard.Weights{
			Failures: int(w.at("failures").number()), Logins: int(w.at("logins").number()), Rate: int(w.at("rate").number()), Network: int(w.at("network").number()), Client: int(w.at("client").number()),
		},
	}
	if r.MaxNumber == 0 {
		r.MaxNumber = max(work, min(riskyWork*work, mostWork))
	}
	for i, text := range v.at("networks").texts() {
		p, err := network(text)
		if err != nil {
			return fmt.Errorf("config.challenge.risk.networks[%d]: expected an address or a network such as 10.0.0.0/8", i+1)
		}
		r.Networks = append(r.Networks, p)
	}
	return nil
}

func seconds(v value) time.Duration { return time.Duration(v.number()) * time.Second }
