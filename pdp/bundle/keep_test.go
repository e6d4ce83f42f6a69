package bundle_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// kept starts a source that keeps one bundle and stops it, so that there is something to restart from.
func kept(t *testing.T) (dir string, d *depot, c *clock) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "bundles")
	d, c = newDepot(t, serve(signed(t, "1"))), newClock()
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Dir: dir, Now: c.Now})
	r.asked()
	r.stop()
	r.want("put authz 1 release")
	return dir, d, c
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
		names = append(names, f.Name())
	}
	return names
}

func restart(t *testing.T, dir string, d *depot, c *clock, change func(*bundle.Options)) *running {
	t.Helper()
	o := bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Dir: dir, Now: c.Now}
	if change != nil {
		change(&o)
	}
	r := run(t, o)
	r.asked()
	return r
}

func TestTheLastGoodBundleDecidesAfterARestartWithoutItsSource(t *testing.T) {
	t.Parallel()
	dir, d, c := kept(t)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
	if names := files(t, dir); len(names) != 2 {
		t.Errorf("kept %q", names)
	}
	was := c.Now()
	c.advance(time.Hour)
	d.set(status(http.StatusServiceUnavailable))
	r := restart(t, dir, d, c, nil)
	r.want("put authz 1 release; away authz")
	if !r.at.Equal(was) {
		t.Errorf("put as if confirmed at %v", r.at)
	}
	// Back again, it is asked only whether there is something new; and what it says is noted for the next start.
	d.set(serve(signed(t, "1")))
	d.set(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("If-None-Match") == "" {
			t.Error("asked without the ETag that was kept")
		}
		w.WriteHeader(http.StatusNotModified)
	})
	r.again()
	r.want("confirm authz")
	r.stop()
	c.advance(24*time.Hour - time.Second)
	d.set(status(http.StatusServiceUnavailable))
	r = restart(t, dir, d, c, nil)
	r.want("put authz 1 release; away authz")
	// The next takes its place.
	d.set(serve(signed(t, "2")))
	r.again()
	r.want("put authz 2 release")
	r.stop()
	if names := files(t, dir); len(names) != 2 {
		t.Errorf("kept %q", names)
	}
	d.set(status(http.StatusServiceUnavailable))
	restart(t, dir, d, c, nil).want("put authz 2 release")
}

func TestWhatDoesNotDecideIsNotKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDepot(t, serve(signed(t, "1")))
	waiting := &sink{wait: true}
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Dir: dir, Sink: waiting})
	r.asked()
	if names := files(t, dir); len(names) != 0 {
		t.Errorf("kept %q", names)
	}
	waiting.later[0]() // as the engine does when another source has sent its part
	r.stop()
	if names := files(t, dir); len(names) != 2 {
		t.Errorf("kept %q", names)
	}
}

// S62: what lies on disk is believed no more than what comes by the network.
func TestAKeptBundleIsCheckedAsIfItHadJustCome(t *testing.T) {
	t.Parallel()
	edit := func(pattern string, by func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			names, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(names) != 1 {
				t.Fatal(names, err)
			}
			b, err := os.ReadFile(names[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(names[0], by(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		damage func(*testing.T, string)
		change func(*bundle.Options)
		later  time.Duration
		want   string
	}{
		"too old":       {later: 24*time.Hour + time.Second, want: "longer than max_age"},
		"in the future": {later: -time.Hour, want: "in the future"},
		"another key": {change: func(o *bundle.Options) {
			v, err := bundle.NewVerifier("", bundle.Key{ID: "release", Algorithm: "ES256", PEM: p256(t).public})
			if err != nil {
				t.Fatal(err)
			}
			o.Verifier = v
		}, want: "by key release"},
		"other roots":     {change: func(o *bundle.Options) { o.Roots = []string{"else"} }, want: "outside the roots"},
		"smaller limits":  {change: func(o *bundle.Options) { o.Limits.Compressed = 100 }, want: "larger than 100 bytes"},
		"another URL":     {change: func(o *bundle.Options) { o.URL += "/other" }, want: "another URL"},
		"changed archive": {damage: edit("*.tar.gz", func(b []byte) []byte { b[20] ^= 1; return b }), want: "its archive is damaged"},
		"half an archive": {damage: edit("*.tar.gz", func(b []byte) []byte { return b[:len(b)/2] }), want: "its archive is damaged"},
		"half a note":     {damage: edit("*.json", func(b []byte) []byte { return b[:len(b)/2] }), want: "note is damaged"},
		"a path as digest": {damage: edit("*.json", func([]byte) []byte {
			return []byte(`{"digest":"` + strings.Repeat("../", 21) + `x"}`)
		}), want: "note is damaged"},
		"no archive": {damage: func(t *testing.T, dir string) {
			names, _ := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
			if err := os.Remove(names[0]); err != nil {
				t.Fatal(err)
			}
		}, want: "no such file"},
		"others may write": {damage: func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, "authz.json"), 0o666); err != nil { //nolint:gosec // that is the point
				t.Fatal(err)
			}
		}, want: "others may write it"},
	} {
		dir, d, clock := kept(t)
		if c.damage != nil {
			c.damage(t, dir)
		}
		clock.advance(c.later)
		d.set(status(http.StatusServiceUnavailable))
		r := restart(t, dir, d, clock, c.change)
		r.stop()
		if told := r.take(); !strings.HasPrefix(told, "away") || !strings.Contains(r.logs.String(), c.want) {
			t.Errorf("%s: told %q, logged %s", name, told, r.logs.String())
		}
	}
}

// A disk that takes nothing keeps no policy from deciding.
func TestAFullDiskStopsNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDepot(t, serve(signed(t, "1")))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Dir: filepath.Join(file, "dir")})
	r.asked()
	r.want("put authz 1 release")
	r.again()
	r.want("confirm authz")
	r.stop()
	if !strings.Contains(r.logs.String(), "bundle not kept") {
		t.Errorf("logged %s", r.logs.String())
	}
}

func TestHalvesThatACrashLeftAreSweptAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{".authz.json.123", ".authz-0123456789abcdef.tar.gz.77", "authz-0123456789abcdef.tar.gz", "authz-b.json", "authz-b-0123456789abcdef.tar.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := newDepot(t, serve(signed(t, "1")))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Dir: dir})
	r.asked()
	r.stop()
	if names := files(t, dir); len(names) != 4 || names[0] == ".authz.json.123" {
		t.Errorf("left %q; want what is kept, and the other source's two", names)
	}
}
