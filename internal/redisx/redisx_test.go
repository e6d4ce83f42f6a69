package redisx_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.UnixMilli(1_772_000_000_123)

func TestARevocationComesBackFromTheStreamAsItWasPublished(t *testing.T) {
	t.Parallel()
	c, err := redisx.OpenFor(testenv.Redis(t), 10*time.Second)
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
	for _, address := range []string{
		"", "localhost:6379", "http://u:canary@h", "redis://u:canary@h:port", "redis://u:canary@h,i", "redis://u:canary@h?x=%zz",
		"redis://u:canary@h?patience=1h", "redis://u:canary@h?patience=soon", "redis://u:canary@h?unknown=1", "redis://u:canary@h?master=m",
		"redis+sentinel://u:canary@h", "redis+sentinel://?master=m:canary", "http+sentinel://u:canary@h?master=m", "redis+x://u:canary@h",
		"redis+cluster://u:canary@h/3", "redis+cluster://u:canary@h?master=m", "unix+cluster://canary",
	} {
		if c, err := redisx.Open(address); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: error %v, client %v", address, err, c)
		}
	}
}

func TestAnAddressSaysWhatIsOpened(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"redis://h":                                "h:6379 db 0 as  wait 250ms tls false",
		"redis://u:p%40@h:1/4?patience=2s":         "h:1 db 4 as u wait 2s tls false",
		"rediss://h:1":                             "h:1 db 0 as  wait 250ms tls true",
		"unix:///run/redis.sock?db=2":              "/run/redis.sock db 2 as  wait 250ms tls false",
		"redis+cluster://u:p@a,b:2,[::1],[::1]:3/": "[a:6379 b:2 [::1]:6379 [::1]:3] as u wait 250ms tls false",
		"rediss+cluster://a?patience=1s":           "[a:6379] as  wait 1s tls true",
		"redis+sentinel://u:p@a,b:2/3?master=m":    "FailoverClient db 3 as u wait 250ms tls false",
		"rediss+sentinel://a?master=m&patience=1s": "FailoverClient db 0 as  wait 1s tls true",
	} {
		c, err := redisx.Open(address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		var got string
		notified := (*maintnotifications.Config)(nil)
		switch c := c.(type) {
		case *redis.Client:
			o := c.Options()
			notified = o.MaintNotificationsConfig
			got = fmt.Sprintf("%s db %d as %s wait %v tls %v", o.Addr, o.DB, o.Username, o.ReadTimeout, o.TLSConfig != nil)
		case *redis.ClusterClient:
			o := c.Options()
			notified = o.MaintNotificationsConfig
			got = fmt.Sprintf("%v as %s wait %v tls %v", o.Addrs, o.Username, o.DialTimeout, o.TLSConfig != nil)
			if o.TLSConfig != nil && o.TLSConfig.ServerName != "" {
				t.Errorf("%s: every node is taken for %s", address, o.TLSConfig.ServerName)
			}
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", address, got, want)
		}
		if notified != nil && notified.Mode != maintnotifications.ModeDisabled { // it would look the host up before anything is asked
			t.Errorf("%s: mode of notifications: %s", address, notified.Mode)
		}
		c.Close()
	}
}

func TestAnAddressIsShownWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"redis://u:canary@h:1/2?password=canary":                          "redis://h:1/2",
		"redis+sentinel://u:c@nary@a,b:2/3?master=m&sentinel_password=ca": "redis+sentinel://a,b:2/3",
		"unix://canary@/run/redis.sock":                                   "unix:///run/redis.sock",
		"canary":                                                          "unreadable",
		"redis://canary?%zz":                                              "unreadable",
	} {
		if got := redisx.Shown(address); got != want {
			t.Errorf("%s is shown as %s, want %s", address, got, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("redis+sentinel://u:p@a,b:2/3?master=m")
	f.Add("redis+cluster://a,b")
	f.Fuzz(func(t *testing.T, address string) {
		if c, err := redisx.Open(address); err == nil {
			c.Close()
		}
	})
}

func TestProcessesAreCountedByTheirLastWord(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient) {
		present := func(id string, want int64) {
			t.Helper()
			if n, err := redisx.Present(t.Context(), c, id); err != nil || n != want {
				t.Errorf("%s: %d processes, error %v; want %d", id, n, err, want)
			}
		}
		present("a", 1)
		present("b", 2)
		present("a", 2)
		if err := redisx.Leave(t.Context(), c, "b"); err != nil {
			t.Fatal(err)
		}
		present("a", 1)
		// One that fell silent.
		gone := float64(time.Now().Add(-redisx.Silence - time.Second).UnixMilli())
		if err := c.ZAdd(t.Context(), redisx.Processes, redis.Z{Score: gone, Member: "c"}).Err(); err != nil {
			t.Fatal(err)
		}
		present("a", 1)
	})
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

func TestWorkThatNobodyWaitsForHasPatienceUnlessTheAddressSays(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]time.Duration{"redis://h": 700 * time.Millisecond, "redis://h?patience=1s": time.Second} {
		c, err := redisx.OpenFor(address, 700*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(*redis.Client).Options().ReadTimeout; got != want {
			t.Errorf("%s: %v", address, got)
		}
		c.Close()
	}
}
