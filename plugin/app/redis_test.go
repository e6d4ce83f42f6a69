package app

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// A plugin that has just been started refuses no token for want of a first look at Redis; one that is away is waited for once.
func TestTheFirstRouteWaitsForWhatRedisKnows(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	a := edge(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = a.Run(ctx) }() // never fails
	t.Cleanup(func() { cancel(); <-ended })
	for running := false; !running; {
		a.mu.Lock()
		running = a.start != nil
		a.mu.Unlock()
	}
	issuer := guard.Issuer{
		Issuer: "https://issuer.test", JWKSURL: "https://issuer.test/keys", Audiences: []string{"api"}, Algorithms: []string{"RS256"},
		Types: []string{"at+jwt"}, KeysMaxAge: time.Hour, Claims: jose.StandardClaims(),
	}
	cfg := guard.Config{Issuers: []guard.Issuer{issuer}, RedisURL: telemetry.Secret(testenv.Redis(t))}
	if _, err := a.Guard(cfg); err != nil {
		t.Fatal(err)
	}
	if err := a.redis[cfg.RedisURL.Reveal()].revocations.Known(); err != nil {
		t.Errorf("the route is ready before it is known who has logged out: %v", err)
	}
	cfg.RedisURL = telemetry.Secret("redis://" + silent.Addr().String())
	if _, err := a.Guard(cfg); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.redis[cfg.RedisURL.Reveal()].patience:
	default:
		t.Error("the route did not wait")
	}
	begun := time.Now()
	if _, err := a.Guard(cfg); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took >= firstRead {
		t.Errorf("the next route waited too, for %v", took)
	}
}
