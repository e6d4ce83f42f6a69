package app_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/app"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

const secret = telemetry.Secret("0123456789abcdef0123456789abcdef")

func challenged(change func(*guard.Challenge)) guard.Config {
	c := guard.Config{Identify: guard.None, RedisURL: "redis://127.0.0.1:1", Challenge: guard.Challenge{
		When: guard.Always, Action: "login", Secret: secret, MaxNumber: 1000, TTL: time.Minute, Clearance: guard.Clearance{TTL: time.Minute},
		Risk: guard.Risk{MaxNumber: 5000},
	}}
	if change != nil {
		change(&c.Challenge)
	}
	return c
}

func hosted(change func(*guard.Provider)) func(*guard.Challenge) {
	return func(c *guard.Challenge) {
		c.Provider = guard.Provider{Name: challenge.RecaptchaV3, SiteKey: "k", Secret: "provider-canary", Hostnames: []string{"h"}, MinScore: 0.5, Timeout: time.Second}
		if change != nil {
			change(&c.Provider)
		}
	}
}

// S14, S64: what a challenge cannot work with is refused at start, by path, and without the value.
func TestAChallengesPartsAreCheckedAtStart(t *testing.T) {
	t.Parallel()
	a := app.New(app.Options{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(a.Close)
	for path, change := range map[string]func(*guard.Challenge){
		"config.challenge.secret: at least 32 bytes":        func(c *guard.Challenge) { c.Secret = "canary" },
		"config.challenge.secret: at least 32":              func(c *guard.Challenge) { hosted(nil)(c); c.Secret = "canary" }, // for clearances
		"config.challenge.risk.max_number: at least":        func(c *guard.Challenge) { c.Risk.MaxNumber = 999 },
		"config.challenge.ttl_seconds: at least":            func(c *guard.Challenge) { c.TTL = 0 },
		"config.challenge.provider.hostnames: at least one": hosted(func(p *guard.Provider) { p.Hostnames = nil }),
		"config.challenge.provider.min_score_percent":       hosted(func(p *guard.Provider) { p.MinScore = 0 }),
		"config.challenge.provider.url: plain http":         hosted(func(p *guard.Provider) { p.URL = "http://verify.canary/" }),
		"config.challenge.provider.url: not":                hosted(func(p *guard.Provider) { p.URL = "https://user:canary@verify.test/" }),
	} {
		if _, err := a.Guard(challenged(change)); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "canary") {
			t.Errorf("error %v, want %s", err, path)
		}
	}
	for name, change := range map[string]func(*guard.Challenge){
		"a proof of work": nil, "hosted": hosted(nil),
		"hosted without clearances needs no secret of ours": func(c *guard.Challenge) { hosted(nil)(c); c.Secret, c.Clearance.TTL = "", 0 },
		"on the private network":                            hosted(func(p *guard.Provider) { p.URL, p.AllowPrivate = "http://verify.internal/", true }),
	} {
		if _, err := a.Guard(challenged(change)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
