package guard_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

// BenchmarkGuard is the guard's own cost of an allowed request: a remembered RS256 token, two limits that are counted in
// memory without Redis, and a decision that is remembered or answered at once.
func BenchmarkGuard(b *testing.B) {
	for _, c := range []struct {
		name string
		vary []string
	}{
		{"decision asked for", nil},
		{"decision remembered by role", []string{"/subject/properties/roles", "/action/name", "/resource/type"}},
		{"decision remembered by owner", []string{"/subject/id", "/subject/properties/roles", "/action/name", "/resource/type", "/resource/id", "/context/ip"}},
		{"decision remembered by all that policies/ looks at", []string{
			"/action/name", "/context/ip", "/resource/id", "/resource/properties", "/resource/properties/department", "/resource/properties/missing", "/resource/properties/owner", "/resource/properties/tenant",
			"/resource/type", "/subject/id", "/subject/properties/attributes/department", "/subject/properties/roles", "/subject/properties/tenant", "/subject/type",
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := allowed(b, edgeKey(), remember.New(0), c.vary)
			r := request(func(r *guard.Request) {
				r.Header["authorization"] = []string{"Bearer " + token(b, "https://a.test")}
				r.Header["traceparent"] = []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
			})
			if v := g.Check(b.Context(), r); !v.Forward {
				b.Fatalf("denied: %s", v.Body)
			}
			b.ReportAllocs()
			for b.Loop() {
				g.Check(b.Context(), r)
			}
		})
	}
}

func allowed(b *testing.B, key jose.SigningKey, cache *remember.Cache, vary []string) *guard.Guard {
	b.Helper()
	w, clock := calm(), func() time.Time { return now }
	cfg := config()
	parts := guard.Parts{
		Verifier:    guard.NewIssuers(clock, cache, trusted("https://a.test", publishOf(b, key), clock)),
		Revocations: ended{}, Limiter: counting{}, Decider: allowing{vary}, Now: clock, NewID: func() string { return "d-edge" },
		Log: telemetry.Logger(&w.log, slog.LevelInfo),
	}
	if vary != nil {
		parts.Decisions = decide.NewCache(100, time.Second, clock)
	}
	g, err := guard.New(cfg, parts)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// BenchmarkColdToken is an allowed request by a token that was not seen before, beside what cannot be done without: its SHA-256 and one
// RS256 verification with a key of 3072 bits by the standard library. They take turns, so that both meet the same machine.
func BenchmarkColdToken(b *testing.B) {
	signing, err := jose.GenerateRSA(3072)
	if err != nil {
		b.Fatal(err)
	}
	g := allowed(b, signing, remember.New(1), []string{"/subject/properties/roles", "/action/name", "/resource/type"}) // no room for any token
	raw := tokenOf(b, signing, "https://a.test")
	r := request(func(r *guard.Request) { r.Header["authorization"] = []string{"Bearer " + raw} })
	if v := g.Check(b.Context(), r); !v.Forward {
		b.Fatalf("denied: %s", v.Body)
	}
	input, encoded := raw[:strings.LastIndexByte(raw, '.')], raw[strings.LastIndexByte(raw, '.')+1:]
	signature, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		b.Fatal(err)
	}
	public, ok := signing.Private.Public().(*rsa.PublicKey)
	if !ok {
		b.Fatal("no RSA key")
	}
	var bare, guarded []time.Duration
	for b.Loop() {
		began := time.Now()
		sum := sha256.Sum256([]byte(input))
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		g.Check(b.Context(), r)
		bare, guarded = append(bare, between.Sub(began)), append(guarded, time.Since(between))
	}
	slices.Sort(bare)
	slices.Sort(guarded)
	b.ReportMetric(0, "ns/op") // of both: says nothing
	b.ReportMetric(float64(bare[len(bare)/2].Nanoseconds())/1e3, "bare-p50-µs")
	b.ReportMetric(float64(guarded[len(guarded)/2].Nanoseconds())/1e3, "guard-p50-µs")
	b.ReportMetric(float64(guarded[len(guarded)/2])/float64(bare[len(bare)/2]), "guard÷bare")
}

type allowing struct{ vary []string }

func (a allowing) Decide(context.Context, authzen.Request) (authzen.Response, error) {
	about := &authzen.ResponseContext{DecisionID: "d-pdp", Revision: "p1"}
	if a.vary != nil {
		about.Cache = &authzen.Cache{TTL: 1000, Vary: a.vary}
	}
	return authzen.Response{Decision: true, Context: about}, nil
}

func (a allowing) DecideAll(ctx context.Context, about authzen.Request, on []authzen.Resource) ([]authzen.Response, error) {
	one, err := a.Decide(ctx, about)
	return slices.Repeat([]authzen.Response{one}, len(on)), err
}

// ended knows many sessions that have ended, and not this one.
type ended struct{}

func (ended) Known() error                       { return nil }
func (ended) Lag() time.Duration                 { return 0 }
func (ended) Revoked(p principal.Principal) bool { return p.Subject == "nobody" }

// counting answers as a limiter with room does.
type counting struct{}

func (counting) Take(_ context.Context, _ string, keys []limit.Key) (limit.Result, error) {
	res := limit.Result{Allowed: true, States: make([]limit.State, 0, len(keys))}
	for _, k := range keys {
		res.States = append(res.States, limit.State{Name: k.Name, Rate: k.Rate, Remaining: 3, Reset: time.Second})
	}
	return res, nil
}

func (counting) Spent([]limit.Key) []limit.State { return nil }
