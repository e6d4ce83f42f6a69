package app_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
	"github.com/gatehouse-auth/gatehouse/plugin/revocation"
)

// BenchmarkMemory is what a plugin process holds under everything that could make it grow, at once: a million revocations read
// from Redis, a million keys of limits (counted here, for Redis is away for them), and one distinct bad token per operation, some of them
// of a known form and some not. Of the heap it tells what all of it takes, and what it grew by in the second half:
//
//	go run ./internal/testenv/run -- go test -run '^$' -bench Memory -benchtime 10000000x ./plugin/app
func BenchmarkMemory(b *testing.B) {
	const million = 1_000_000
	quiet := slog.New(slog.DiscardHandler)
	empty := heapMiB()

	c, err := redisx.Open(testenv.Redis(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	cursor, err := redisx.RevocationCursor(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	ends := time.Now().Add(time.Hour)
	if err := redisx.WriteRevocationSnapshot(b.Context(), c, cursor, func(yield func(redisx.Revocation) bool) {
		for i := 0; i < million && yield(redisx.Revocation{Kind: "sid", Value: "session-" + strconv.Itoa(i), ExpiresAt: ends}); i++ {
		}
	}); err != nil {
		b.Fatal(err)
	}
	ended := revocation.New(time.Now, time.Hour)
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- revocation.Follow(c, ended, quiet).Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	for ended.Known() != nil || ended.Len() < million {
		if len(done) > 0 {
			b.Fatal("revocations are not followed")
		}
		runtime.Gosched()
	}
	sets := heapMiB()

	m := miniredis.RunT(b)
	away, err := redisx.Open("redis://" + m.Addr())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = away.Close() })
	m.Close()
	limiter := limit.New(limit.Options{Redis: away, ID: "p1", Now: time.Now, Log: quiet})
	rate := limit.Rate{Limit: 10, Period: time.Hour}
	for i := range million {
		if _, err := limiter.Take(b.Context(), strconv.Itoa(i), []limit.Key{{Name: "n", Value: "key-" + strconv.Itoa(i), Rate: rate}}); err != nil {
			b.Fatal(err)
		}
	}
	limits := heapMiB()

	key, err := jose.GenerateRSA(2048)
	if err != nil {
		b.Fatal(err)
	}
	set, err := jose.PublicSet(key)
	if err != nil {
		b.Fatal(err)
	}
	keys, err := jose.StaticKeys(set)
	if err != nil {
		b.Fatal(err)
	}
	v := guard.NewIssuers(time.Now, remember.New(0), guard.TrustedIssuer{Keys: static{keys}, Policy: jose.Policy{
		Issuer: "https://a.test", Audiences: []string{"api"}, Algorithms: []string{jose.RS256}, Types: []string{"at+jwt"}, Claims: jose.StandardClaims(), Now: time.Now,
	}})
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"at+jwt","kid":"nobody's"}`))
	bad := func(n int) {
		payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iss":"https://a.test","sub":"u%d"}`, n))
		if n%2 == 1 {
			payload = strconv.Itoa(n)
		}
		if _, err := v.Verify(b.Context(), head+"."+payload+".AAAA"); err == nil {
			b.Fatal("taken")
		}
	}
	n := 0
	b.Run("bad tokens", func(b *testing.B) {
		for range b.N / 2 {
			bad(n)
			n++
		}
		half := heapMiB()
		b.ResetTimer()
		for range b.N - b.N/2 {
			bad(n)
			n++
		}
		b.StopTimer()
		whole := heapMiB()
		b.ReportMetric(sets-empty, "revocations-MiB")
		b.ReportMetric(limits-sets, "limits-MiB")
		b.ReportMetric(whole-empty, "all-MiB")
		b.ReportMetric(whole-half, "grown-MiB")
	})
	runtime.KeepAlive(limiter)
	runtime.KeepAlive(ended)
}

// static is a key set that never changes.
type static struct{ jose.KeySource }

func (static) Holds(*jose.PublicKey) bool { return true }

func heapMiB() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}
