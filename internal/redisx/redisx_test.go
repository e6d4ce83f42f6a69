package redisx_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

var now = time.UnixMilli(1_772_000_000_123)

func TestARevocationComesBackFromTheStreamAsItWasPublished(t *testing.T) {
	t.Parallel()
	c, err := redisx.Open(testenv.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	want := []redisx.Revocation{
		{Kind: redisx.KindSession, Value: "s1", ExpiresAt: now.Add(time.Hour)},
		{Kind: redisx.KindSubject, Value: "u1", NotBefore: now, ExpiresAt: now.Add(time.Hour)},
	}
	for _, r := range want {
		if err := redisx.PublishRevocation(t.Context(), c, r, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := c.XRange(t.Context(), redisx.RevocationStream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var got []redisx.Revocation
	for _, e := range entries {
		r, err := redisx.ParseRevocation(e.Values)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAMalformedEntryIsRefused(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]map[string]any{
		"empty":               {},
		"unknown kind":        {"kind": "x", "value": "v", "exp": "1"},
		"no value":            {"kind": "sid", "exp": "1"},
		"endless value":       {"kind": "sid", "value": strings.Repeat("x", 513), "exp": "1"},
		"no expiry":           {"kind": "sid", "value": "v"},
		"expiry in words":     {"kind": "sid", "value": "v", "exp": "soon"},
		"subject without nbf": {"kind": "sub", "value": "v", "exp": "1"},
	} {
		if r, err := redisx.ParseRevocation(v); err == nil {
			t.Errorf("%s is taken as %+v", name, r)
		}
	}
}

func TestAnAddressThatIsNoneIsRefusedWithoutBeingShown(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "localhost:6379", "http://u:canary@h", "redis://u:canary@h:port"} {
		if _, err := redisx.Open(address); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: error %v", address, err)
		}
	}
}

func TestABreakerLetsOneTryAtATimeUntilItWorks(t *testing.T) {
	t.Parallel()
	at := now
	b := redisx.Breaker{Pause: time.Second, Now: func() time.Time { return at }}
	broken := errors.New("broken")
	calls := 0
	try := func(err error) error { return b.Do(func() error { calls++; return err }) }

	if err := try(broken); !errors.Is(err, broken) || !b.Open() {
		t.Fatalf("error %v, open %v", err, b.Open())
	}
	if err := try(nil); !errors.Is(err, redisx.ErrOpen) || calls != 1 {
		t.Errorf("while open: error %v after %d calls", err, calls)
	}
	at = at.Add(time.Second)
	inner := error(nil)
	if err := b.Do(func() error { inner = try(nil); return nil }); err != nil || !errors.Is(inner, redisx.ErrOpen) {
		t.Errorf("the one try: %v, a second beside it: %v", err, inner)
	}
	if err := try(nil); err != nil || b.Open() {
		t.Errorf("after a try that worked: error %v, open %v", err, b.Open())
	}
}

func FuzzParseRevocation(f *testing.F) {
	f.Add("sid", "v", "1", "")
	f.Fuzz(func(t *testing.T, kind, value, exp, nbf string) {
		r, err := redisx.ParseRevocation(map[string]any{"kind": kind, "value": value, "exp": exp, "nbf": nbf})
		if err == nil && (r.Value == "" || r.ExpiresAt.IsZero()) {
			t.Errorf("taken as %+v", r)
		}
	})
}
