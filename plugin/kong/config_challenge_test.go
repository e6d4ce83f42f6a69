package kong_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

func withChallenge(text string) []byte {
	return []byte(`{"redis_url":"redis://r","identify":"none","authorize":false,"challenge":` + text + `}`)
}

func TestAChallengeComesWithAllThatItMaySay(t *testing.T) {
	t.Parallel()
	samePrefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	weights := guard.Weights{Failures: 60, Rate: 40, Network: 60, Client: 25}
	for text, want := range map[string]guard.Challenge{
		`{"when":"always","action":"a","secret":"s"}`: {
			When: guard.Always, Action: "a", Secret: "s", MaxNumber: 50000, TTL: 5 * time.Minute, Page: true,
			Clearance: guard.Clearance{TTL: 5 * time.Minute, By: guard.InCookie},
			Provider:  guard.Provider{Name: challenge.ALTCHA, Timeout: 2 * time.Second, WhenAway: guard.AwayDeny},
			Risk:      guard.Risk{Threshold: 50, MaxNumber: 250000, Failures: 5, Logins: 10, Weights: weights},
		},
		`{"when":"risk","action":"a","max_number":5000000,"ttl_seconds":60,"page":false,"clearance":{"ttl_seconds":0,"by":"both"},
		  "provider":{"name":"siteverify","site_key":"k","secret":"p","url":"https://v/","hostnames":["h"],"min_score_percent":70,"timeout_ms":500,"send_address":true,"allow_private":true,"when_away":"allow"},
		  "risk":{"threshold":30,"failures":7,"logins":8,"networks":["192.0.2.9/24","2001:db8::1"],"browser":true,"weights":{"failures":1,"logins":9,"rate":2,"network":50,"client":4}}}`: {
			When: guard.Risky, Action: "a", MaxNumber: 5000000, TTL: time.Minute, Clearance: guard.Clearance{By: guard.InBoth},
			Provider: guard.Provider{
				Name: challenge.Generic, URL: "https://v/", SiteKey: "k", Secret: "p", Hostnames: []string{"h"}, MinScore: 0.7, SendAddress: true,
				AllowPrivate: true, Timeout: 500 * time.Millisecond, WhenAway: guard.AwayAllow,
			},
			Risk: guard.Risk{
				Threshold: 30, MaxNumber: 5000000, Failures: 7, Logins: 8, Browser: true, Weights: guard.Weights{Failures: 1, Logins: 9, Rate: 2, Network: 50, Client: 4},
				Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")},
			},
		},
	} {
		c, err := kong.ParseConfig(withChallenge(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if diff := cmp.Diff(want, c.Challenge, samePrefix); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAWrongChallengeIsRefusedWithThePath(t *testing.T) {
	t.Parallel()
	for text, path := range map[string]string{
		`{"when":"sometimes"}`:                                          "config.challenge.when: expected one of: never, risk, always",
		`{"when":"always"}`:                                             "config.challenge.action: is needed",
		`{"clearance":{"ttl_seconds":-1}}`:                              "config.challenge.clearance.ttl_seconds: value should be between 0",
		`{"clearance":{"by":"mail"}}`:                                   "config.challenge.clearance.by: expected one of",
		`{"provider":{"name":"captcha"}}`:                               "config.challenge.provider.name: expected one of: altcha",
		`{"provider":{"url":"ftp://x"}}`:                                "config.challenge.provider.url: invalid value",
		`{"provider":{"min_score_percent":101}}`:                        "config.challenge.provider.min_score_percent: value should be",
		`{"provider":{"timeout_ms":60000}}`:                             "config.challenge.provider.timeout_ms: value should be",
		`{"provider":{"when_away":"hope"}}`:                             "config.challenge.provider.when_away: expected one of: deny, allow",
		`{"when":"always","action":"a","provider":{"name":"hcaptcha"}}`: "config.challenge.provider.secret: is needed",
		`{"risk":{"threshold":0}}`:                                      "config.challenge.risk.threshold: value should be",
		`{"risk":{"networks":["10.0.0.0/33"]}}`:                         "config.challenge.risk.networks[1]: expected an address or a network",
		`{"risk":{"weights":{"rate":101}}}`:                             "config.challenge.risk.weights.rate: value should be",
		`{"page":"yes"}`:                                                "config.challenge.page: expected a boolean",
	} {
		if _, err := kong.ParseConfig(withChallenge(text)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want %q", err, path)
		}
	}
}

// S67: a configuration that is printed whole tells no secret.
func TestAChallengesSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	c, err := kong.ParseConfig(withChallenge(`{"when":"always","action":"a","secret":"canary-1","provider":{"name":"hcaptcha","site_key":"k","secret":"canary-2"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, "canary") {
		t.Errorf("printed: %s", text)
	}
}
