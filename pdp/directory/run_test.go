package directory_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feedtest"
)

// running is a directory that runs, whose waits take no time.
type running struct {
	*directory.Directory
	steps  chan error
	delays chan time.Duration
	stop   func()
}

func run(t *testing.T, o directory.Options) *running {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d, err := directory.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return runs(t, d)
}

func runs(t *testing.T, d *directory.Directory) *running {
	t.Helper()
	r := &running{Directory: d, steps: make(chan error), delays: make(chan time.Duration, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	d.Tell(func(err error) {
		select {
		case r.steps <- err:
		case <-ctx.Done():
		}
	})
	d.After(func(delay time.Duration) <-chan time.Time {
		select {
		case r.delays <- delay:
		default:
		}
		return time.After(min(delay, time.Millisecond))
	})
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// until waits for a step after which ok holds.
func (r *running) until(t *testing.T, what string, ok func(err error) bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case err := <-r.steps:
			if ok(err) {
				return
			}
		case <-late:
			t.Fatalf("never: %s; %v", what, r.Ready())
		}
	}
}

func (r *running) roles(subject string) []string {
	v := r.View()
	if v == nil {
		return nil
	}
	e, ok := v.Find(subject)
	if !ok {
		return nil
	}
	return e.Facts("", noon()).Roles
}

func (r *running) holds(t *testing.T, subject string, roles ...string) {
	t.Helper()
	if slices.Equal(r.roles(subject), roles) {
		return
	}
	r.until(t, subject+" holds "+strings.Join(roles, ", "), func(error) bool { return slices.Equal(r.roles(subject), roles) })
}

func TestAChangeArrives(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.PutRole(t, feed.Role{Name: "clerk"})
	f.Bind(t, "alice", feed.Binding{Role: "clerk"})
	r := run(t, directory.Options{URL: f.URL()})
	r.holds(t, "alice", "clerk")
	before := r.View()
	for _, role := range []string{"a", "b", "c"} {
		f.Bind(t, "bob", feed.Binding{Role: role})
	}
	r.holds(t, "bob", "a", "b", "c")
	f.Change("alice", func(s *feed.Subject) { s.Gone = true })
	r.until(t, "alice is gone", func(error) bool { _, known := r.View().Find("alice"); return !known })
	if _, known := before.Find("alice"); !known || r.View().Word() == before.Word() {
		t.Error("a view has changed, or its revision has not")
	}
	if _, snapshots := f.Asked(); snapshots != 1 {
		t.Errorf("asked for %d snapshots", snapshots)
	}
	if s := r.Stats(); s.Subjects != 1 || s.Roles != 1 || s.Away || s.Bytes == 0 || s.Loads["snapshot"] != 1 || s.Loads["changes"] == 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhoCannotGoOnBeginsAnew(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.Bind(t, "alice", feed.Binding{Role: "clerk"})
	r := run(t, directory.Options{URL: f.URL()})
	r.holds(t, "alice", "clerk")
	before := r.View().Word()
	f.NewEpoch()
	f.Change("alice", func(s *feed.Subject) { s.Bindings = []feed.Binding{{Role: "chief"}} })
	r.holds(t, "alice", "chief")
	if r.View().Word() == before { // both are at revision 1
		t.Error("two epochs have one revision")
	}
	f.Bind(t, "alice", feed.Binding{Role: "x"})
	f.Forget()
	r.holds(t, "alice", "chief", "x")
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsCutOffIsNotUsed(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.Bind(t, "alice", feed.Binding{Role: "clerk"})
	f.Bind(t, "bob", feed.Binding{Role: "clerk"})
	f.Cut(2)
	r := run(t, directory.Options{URL: f.URL()})
	r.until(t, "a failure", func(err error) bool { return err != nil })
	if r.View() != nil {
		t.Error("half a snapshot is used")
	}
	if err := r.Ready(); !errors.Is(err, fault.New(fault.Unavailable, "").Named("not_loaded")) {
		t.Error(err)
	}
	f.Cut(0)
	r.holds(t, "alice", "clerk")
	f.Cut(2)
	f.Bind(t, "alice", feed.Binding{Role: "chief"})
	f.Bind(t, "bob", feed.Binding{Role: "chief"})
	r.until(t, "a failure", func(err error) bool { return err != nil })
	if got := r.roles("alice"); !slices.Equal(got, []string{"clerk"}) {
		t.Errorf("half of the changes are used: %q", got)
	}
	if err := r.Ready(); !errors.Is(err, fault.New(fault.Unavailable, "").Named("degraded")) {
		t.Error(err)
	}
	f.Cut(0)
	r.holds(t, "alice", "chief", "clerk")
	if _, snapshots := f.Asked(); snapshots < 2 {
		t.Errorf("asked for %d snapshots", snapshots)
	}
}

func TestASenderThatIsAwayIsAskedLessAndLess(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.Fail(http.StatusInternalServerError)
	r := run(t, directory.Options{URL: f.URL()})
	for range 6 {
		r.until(t, "a failure", func(err error) bool { return err != nil })
	}
	if s := r.Stats(); !s.Away || s.Failures["away"] < 6 {
		t.Errorf("%+v", s)
	}
	for want := 250 * time.Millisecond; want <= 4*time.Second; want *= 2 {
		if got := <-r.delays; got < want/2 || got > want {
			t.Errorf("waits %v, want half of %v or more", got, want)
		}
	}
	f.Fail(0)
	r.until(t, "recovery", func(err error) bool { return err == nil })
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
}

// S56: an old directory is told, and denies by choice.
func TestAnOldDirectoryIsTold(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.Bind(t, "alice", feed.Binding{Role: "clerk"})
	var now atomic.Pointer[time.Time]
	clock := func(at time.Time) { now.Store(&at) }
	clock(noon())
	r := run(t, directory.Options{URL: f.URL(), MaxStaleness: 2 * time.Minute, DenyWhenStale: true, Now: func() time.Time { return *now.Load() }})
	r.holds(t, "alice", "clerk")
	f.Fail(http.StatusServiceUnavailable)
	r.until(t, "a failure", func(err error) bool { return err != nil })
	clock(noon().Add(2 * time.Minute))
	if stale, _ := r.Stale(*now.Load()); stale {
		t.Error("stale at its limit")
	}
	for _, later := range []time.Duration{2*time.Minute + 1, -2*time.Minute - 1} { // also when the clock was set back
		clock(noon().Add(later))
		if stale, deny := r.Stale(*now.Load()); !stale || !deny {
			t.Errorf("after %v: stale %v, deny %v", later, stale, deny)
		}
		if err := r.Ready(); !errors.Is(err, fault.New(fault.Unavailable, "").Named("stale")) || !strings.Contains(err.Error(), "answered 503") {
			t.Error(err)
		}
	}
	f.Fail(0)
	r.until(t, "recovery", func(err error) bool { return err == nil })
	if stale, _ := r.Stale(*now.Load()); stale {
		t.Error("stale, though its source has just been heard")
	}
}

func TestWhatWasKnownIsKnownAfterARestart(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.PutRole(t, feed.Role{Name: "clerk", Inherits: []string{"reader"}})
	f.Bind(t, "alice", feed.Binding{Role: "clerk", Until: at(time.Hour)})
	o := directory.Options{URL: f.URL(), Dir: t.TempDir(), Now: noon}
	r := run(t, o)
	r.holds(t, "alice", "clerk")
	word := r.View().Word()
	r.stop()
	f.Fail(http.StatusBadGateway)

	r = run(t, o)
	r.until(t, "a failure", func(err error) bool { return err != nil })
	if role, _ := r.View().Roles().Find("clerk"); r.View().Word() != word || !slices.Equal(r.roles("alice"), []string{"clerk"}) || !slices.Equal(role.Inherits, []string{"reader"}) {
		t.Errorf("revision %s, want %s; alice holds %q", r.View().Word(), word, r.roles("alice"))
	}
	f.Fail(0)
	f.Bind(t, "alice", feed.Binding{Role: "chief"})
	r.holds(t, "alice", "chief", "clerk")
	if _, snapshots := f.Asked(); r.Stats().Loads["kept"] != 1 || r.Stats().Loads["snapshot"] > 0 {
		t.Errorf("%+v, %d snapshots", r.Stats(), snapshots)
	}
	r.stop()
	f.Fail(http.StatusBadGateway)

	lines, _ := filepath.Glob(filepath.Join(o.Dir, "*.ndjson"))
	if len(lines) != 1 {
		t.Fatalf("kept %q", lines)
	}
	for name, spoil := range map[string]func(o *directory.Options){
		"too old":         func(o *directory.Options) { o.Now = func() time.Time { return noon().Add(25 * time.Hour) } },
		"from the future": func(o *directory.Options) { o.Now = func() time.Time { return noon().Add(-2 * time.Minute) } },
		"from elsewhere":  func(o *directory.Options) { o.URL += "/other" },
		"damaged":         func(o *directory.Options) { o.Dir = spoilt(t, lines[0], func(b []byte) []byte { return b[:len(b)-5] }) },
		"empty":           func(o *directory.Options) { o.Dir = spoilt(t, lines[0], func([]byte) []byte { return nil }) },
		"of another time": func(o *directory.Options) {
			o.Dir = spoilt(t, lines[0], func(b []byte) []byte { return []byte(strings.Replace(string(b), `"revision":3`, `"revision":9`, 1)) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			spoil(&o)
			r := run(t, o)
			r.until(t, "a failure", func(err error) bool { return err != nil })
			if r.View() != nil {
				t.Error("is used")
			}
		})
	}
}

// spoilt is a folder with what was kept, changed.
func spoilt(t *testing.T, lines string, change func([]byte) []byte) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{lines, lines + ".json"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == lines {
			b = change(b)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheSenderIsKnownByTokenAndCertificateOrSocket(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.Require("s3cret")
	f.Bind(t, "alice", feed.Binding{Role: "clerk"})
	dir := t.TempDir()
	token, ca, socket := filepath.Join(dir, "token"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "s")
	server := httptest.NewTLSServer(f)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &httptest.Server{Listener: l, Config: &http.Server{Handler: f, ReadHeaderTimeout: time.Minute}}
	local.Start()
	t.Cleanup(local.Close)
	t.Cleanup(local.CloseClientConnections)
	for name, b := range map[string][]byte{token: []byte("s3cret\n"), ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []directory.Options{{URL: server.URL + "/", CAFile: ca, TokenFile: token}, {URL: "unix://" + socket, TokenFile: token}} {
		run(t, o).holds(t, "alice", "clerk")
	}
	mutual := httptest.NewUnstartedServer(f)
	mutual.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	mutual.StartTLS()
	t.Cleanup(mutual.Close)
	t.Cleanup(mutual.CloseClientConnections)
	pair := filepath.Join(dir, "pair.pem")
	key, err := x509.MarshalPKCS8PrivateKey(mutual.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mutual.Certificate().Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(pair, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, directory.Options{URL: mutual.URL, CAFile: ca, CertFile: pair, KeyFile: pair, TokenFile: token}).holds(t, "alice", "clerk")
	for want, o := range map[string]directory.Options{
		"answered 401": {URL: f.URL()},
		"certificate":  {URL: server.URL, TokenFile: token},
		"token file":   {URL: f.URL(), TokenFile: filepath.Join(dir, "none")},
	} {
		r := run(t, o)
		r.until(t, "a failure", func(err error) bool { return err != nil })
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%v, want %q and no secret", err, want)
		}
	}
}

func TestOnlyAFeedIsBelieved(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.Bind(t, "alice", feed.Binding{Role: "clerk"})
	for want, handler := range map[string]http.HandlerFunc{
		"answered 302": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, f.URL()+r.URL.Path, http.StatusFound)
		},
		"not called": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, begins+ends(0))
		},
		"answered 410": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) },
		"no answer in time": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", feed.MediaType)
			_, _ = io.WriteString(w, begins)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		t.Cleanup(s.CloseClientConnections)
		r := run(t, directory.Options{URL: s.URL, Timeout: 200 * time.Millisecond})
		r.until(t, "a failure", func(err error) bool { return err != nil })
		if err := r.Ready(); r.View() != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		r.stop()
	}
}

func TestAFileIsReadAgain(t *testing.T) {
	t.Parallel()
	for name, texts := range map[string][3]string{
		"data.json":   {`{"subjects":{"alice":{"roles":["clerk"]}}}`, `{"subjects":{"alice":{"roles":["chief"]}}} `, `{"subjects"`},
		"some.ndjson": {begins + alice + ends(1), strings.Replace(begins, "1,", "2,", 1) + strings.Replace(alice, "clerk", "chief", 1) + ends(1), begins},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), name)
			write := func(text string) {
				if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(path+".new", path); err != nil {
					t.Fatal(err)
				}
			}
			write(texts[0])
			r := run(t, directory.Options{URL: "file://" + path})
			r.holds(t, "alice", "clerk")
			first := r.View().Word()
			write(texts[1])
			r.holds(t, "alice", "chief")
			second := r.View().Word()
			write(texts[2])
			r.until(t, "a failure", func(err error) bool { return err != nil })
			if err := r.Ready(); !errors.Is(err, fault.New(fault.Unavailable, "").Named("degraded")) || !strings.Contains(err.Error(), "cut off") {
				t.Error(err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			r.until(t, "a failure of another kind", func(error) bool { return r.Stats().Away })
			if !slices.Equal(r.roles("alice"), []string{"chief"}) || first == second || r.View().Word() != second {
				t.Errorf("%q of %s, %s and %s", r.roles("alice"), first, second, r.View().Word())
			}
			write(texts[0])
			r.holds(t, "alice", "clerk")
			if err := r.Ready(); err != nil || r.View().Word() != first {
				t.Errorf("%v, revision %s", err, r.View().Word())
			}
		})
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]directory.Options{
		"must be http://":          {URL: "ftp://x"},
		"https:// to another":      {URL: "http://authsvc:8080"},
		"neither a password":       {URL: "https://a:b@authsvc"},
		"no host":                  {URL: "https:///x"},
		"unix:///path":             {URL: "unix://x"},
		"file:///path":             {URL: "file://x"},
		"without token":            {URL: "file:///x", TokenFile: "y"},
		"longer than 1m0s":         {URL: "https://x", MaxStaleness: time.Minute},
		"deny needs max staleness": {URL: "https://x", DenyWhenStale: true},
		"whole seconds":            {URL: "https://x", Wait: time.Minute},
		"CA file":                  {URL: "https://x", CAFile: "/nowhere"},
		"belong together":          {URL: "https://x", CertFile: "y"},
		"certificate file":         {URL: "https://x", CertFile: "/nowhere", KeyFile: "/nowhere"},
		"must be more than 0":      {URL: "https://x", Timeout: -1},
	} {
		if _, err := directory.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}
