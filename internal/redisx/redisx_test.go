package redisx_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func TestABreakerOpensAfterFailuresInARowAndClosesByItsProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		var probes, changes int
		probed := broken
		b := redisx.Breaker{
			Pause: time.Second, Tolerate: 1, Now: time.Now,
			Probe:   func() error { probes++; time.Sleep(100 * time.Millisecond); return probed },
			Changed: func(bool, error) { changes++ },
		}
		calls := 0
		try := func(err error) error { return b.Do(func() error { calls++; return err }) }

		for _, err := range []error{broken, nil, broken} {
			if got := try(err); !errors.Is(got, err) || b.Open() {
				t.Fatalf("error %v, open %v: failures that are not in a row opened it", got, b.Open())
			}
		}
		if err := try(broken); !errors.Is(err, broken) || !b.Open() {
			t.Fatalf("error %v, open %v after two failures in a row", err, b.Open())
		}
		was := calls
		for range 10 {
			if err := try(nil); !errors.Is(err, redisx.ErrOpen) {
				t.Errorf("while open: %v", err)
			}
		}
		if calls != was || probes != 0 {
			t.Errorf("%d calls and %d probes during the pause", calls-was, probes)
		}
		for range 2 { // the first probe fails, the second works
			time.Sleep(time.Second)
			began := time.Now()
			for range 10 {
				if err := try(nil); !errors.Is(err, redisx.ErrOpen) {
					t.Errorf("beside the probe: %v", err)
				}
			}
			if waited := time.Since(began); waited != 0 {
				t.Errorf("callers waited %v for the probe", waited)
			}
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			probed = nil
		}
		if probes != 2 || changes != 2 || b.Open() {
			t.Errorf("%d probes, %d changes, open %v", probes, changes, b.Open())
		}
		if err := try(nil); err != nil {
			t.Errorf("after a probe that worked: %v", err)
		}
	})
}

func TestWhatEndsAfterABreakerOpenedSaysNothingNew(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, late := range map[string]error{"late success": nil, "late failure": broken} {
		changes := 0
		b := redisx.Breaker{
			Pause: time.Hour, Now: time.Now, Probe: func() error { return nil }, Changed: func(bool, error) { changes++ },
		}
		err := b.Do(func() error {
			_ = b.Do(func() error { return broken })
			return late
		})
		if !errors.Is(err, late) || !b.Open() || changes != 1 {
			t.Errorf("%s: error %v, open %v, %d changes", name, err, b.Open(), changes)
		}
	}
}

func TestAPanicIsAFailure(t *testing.T) {
	t.Parallel()
	b := redisx.Breaker{Pause: time.Hour, Now: time.Now, Probe: func() error { return nil }}
	func() {
		defer func() { _ = recover() }()
		_ = b.Do(func() error { panic("x") })
	}()
	if !b.Open() {
		t.Error("closed")
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
