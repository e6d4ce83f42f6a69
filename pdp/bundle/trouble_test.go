package bundle_test

import (
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// S62: what is not signed, or reaches beyond its roots, is refused, and asked for again only when it has changed.
func TestASourceRefusesWhatIsNoGoodBundle(t *testing.T) {
	t.Parallel()
	good := signed(t, "1")
	wide, err := bundle.Sign(archive(t, entry{name: "x.rego", body: rego}, entry{name: ".manifest", body: `{"roots":["gatehouse","system"]}`}), bundle.Limits{}, signing(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	d := newDepot(t, serve(good))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Roots: []string{"gatehouse"}, Limits: bundle.Limits{Compressed: 8 << 10}})
	r.asked()
	r.want("put authz 1")
	for want, b := range map[string][]byte{
		"not signed": archive(t, entry{name: "x.rego", body: rego}),
		`root "system" is outside the roots ["gatehouse"]`: wide,
		"not a .tar.gz archive":                            []byte("<html>log in here</html>"),
		"larger than 8192 bytes":                           append(slices.Clone(good), make([]byte, 8<<10)...),
		"something follows the archive":                    append(slices.Clone(good), 0),
	} {
		d.set(serve(b))
		r.again()
		if told := r.take(); !strings.HasPrefix(told, "refuse authz: ") || !strings.Contains(told, want) {
			t.Errorf("%s: told %q", want, told)
		}
		if !strings.HasPrefix(want, "larger") {
			r.again()
			r.want("confirm authz")
		}
		d.set(serve(good)) // taken back
		r.again()
		r.want("put authz 1")
	}
}

// S64: redirects, endless waits and cut-off answers are failures. S67: none of them shows a URL's secret.
func TestAServerInTroubleIsAwayAndAskedLessOften(t *testing.T) {
	t.Parallel()
	whole := signed(t, "1")
	d := newDepot(t, status(http.StatusInternalServerError))
	const secret = "canary-7f3a"
	r := run(t, bundle.Options{URL: d.URL + "/b.tar.gz?sig=" + secret, Verifier: verifier(t, ""), Timeout: 4 * time.Second})
	least := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second}
	wait := r.asked()
	for i, d := range least {
		if wait < d || wait > 2*d {
			t.Errorf("failure %d: waits %v", i+1, wait)
		}
		r.want("away authz: answered 500")
		wait = r.again()
	}
	r.take()
	gone := httptest.NewServer(nil)
	gone.Close()
	for want, do := range map[string]http.HandlerFunc{
		"answered 404":            status(http.StatusNotFound),
		"answered 401":            status(http.StatusUnauthorized),
		"answered 206":            status(http.StatusPartialContent),
		"answered 204":            status(http.StatusNoContent),
		"answered 304; redirects": status(http.StatusNotModified),
		"answered 302; redirects are not followed": func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, d.URL+"/else", http.StatusFound) },
		"no answer in time":                        func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() },
		"answer in time": func(w http.ResponseWriter, q *http.Request) { // a byte now and then
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-q.Context().Done():
					tick.Stop()
					return
				case <-tick.C:
					_, _ = w.Write(whole[:1])
					_ = http.NewResponseController(w).Flush()
				}
			}
		},
		"the answer was cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			_, _ = w.Write(whole[:100])
		},
		"in an encoding that was not asked for": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write(whole)
		},
		"something that is not gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "x")
		},
		"EOF": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		d.set(do)
		r.again()
		if told := r.take(); !strings.HasPrefix(told, "away authz: ") || !strings.Contains(told, want) || strings.Contains(told, secret) {
			t.Errorf("%s: told %q", want, told)
		}
	}
	d.set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "59")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if wait := r.again(); wait < 59*time.Second {
		t.Errorf("asked for 59 s, waits %v", wait)
	}
	d.set(serve(whole))
	r.take()
	if wait := r.again(); wait < 27*time.Second || wait > 33*time.Second {
		t.Errorf("back again, it waits %v", wait)
	}
	r.want("put authz 1")
	d.set(status(http.StatusBadGateway))
	if wait := r.again(); wait > time.Second {
		t.Errorf("the first failure after success waits %v", wait)
	}
	r.stop()
	if strings.Contains(r.logs.String(), secret) {
		t.Error("the URL's secret is in the log")
	}
}

func TestAHostThatIsNotThereIsAway(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	r := run(t, bundle.Options{URL: gone.URL + "?sig=canary-7f3a"})
	r.asked()
	if told := r.take(); !strings.HasPrefix(told, "away authz: ") || !strings.Contains(told, "refused") || strings.Contains(told, "canary") {
		t.Errorf("told %q", told)
	}
}

// S64, S67
func TestTheTokenIsReadAnewAndStaysBetweenThem(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	elsewhere := newDepot(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirect is followed") })
	d := newDepot(t, serve(signed(t, "1")))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), TokenFile: file})
	r.asked()
	if got := d.last().Get("Authorization"); got != "Bearer one" {
		t.Errorf("sent %q", got)
	}
	write("two")
	r.again()
	if got := d.last().Get("Authorization"); got != "Bearer two" {
		t.Errorf("sent %q", got)
	}
	d.set(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	r.again()
	r.take()
	for _, text := range []string{"", "canary 7f3a", "canary\r\nX: y", strings.Repeat("x", 20<<10)} {
		write(text)
		r.again()
		if told := r.take(); !strings.HasPrefix(told, "away authz: token_file: ") || strings.Contains(told, "canary") {
			t.Errorf("told %q", told)
		}
	}
}

// S64
func TestOnlyTheNamedCertificatesAreBelieved(t *testing.T) {
	t.Parallel()
	b := signed(t, "1")
	s := httptest.NewTLSServer(serve(b))
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	r := run(t, bundle.Options{URL: s.URL, Verifier: verifier(t, "")})
	r.asked()
	if told := r.take(); !strings.HasPrefix(told, "away authz: ") || !strings.Contains(told, "certificate") {
		t.Errorf("told %q", told)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	r = run(t, bundle.Options{URL: s.URL, Verifier: verifier(t, ""), CAFile: ca})
	r.asked()
	r.want("put authz 1 release")
}

func TestABundleThatDidNotLoadIsTriedAgainNowAndThen(t *testing.T) {
	t.Parallel()
	d := newDepot(t, serve(signed(t, "1")))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Sink: &sink{refuse: errors.New("tests: took too long")}})
	r.asked()
	r.want("put authz 1")
	r.again()
	r.want("confirm authz")
	r.clock.advance(5 * time.Minute)
	r.again()
	r.want("put authz 1 release; confirm authz")
}
