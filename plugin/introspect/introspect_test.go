package introspect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/plugin/introspect"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

const secret = "s:ecret-canary+"

// issuer answers introspection requests.
type issuer struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
}

func (i *issuer) says(h http.HandlerFunc) { i.answer.Store(&h) }

func (i *issuer) tells(claims map[string]any) {
	all := map[string]any{"active": true, "sub": "u1", "aud": "api", "scope": "a b", "roles": []string{"clerk"}}
	for name, v := range claims {
		all[name] = v
	}
	i.says(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(all) })
}

func serve(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		(*i.answer.Load())(w, r)
	}))
	t.Cleanup(i.Close)
	i.tells(nil)
	return i
}

// clock is a time that a test moves.
type clock struct{ passed atomic.Int64 }

func (c *clock) now() time.Time        { return now.Add(time.Duration(c.passed.Load())) }
func (c *clock) after(d time.Duration) { c.passed.Store(int64(d)) }

func client(t *testing.T, i *issuer, change func(*introspect.Options)) (*introspect.Client, *clock) {
	t.Helper()
	k := &clock{}
	o := introspect.Options{
		URL: i.URL + "/introspect", ClientID: "edge/1", ClientSecret: secret, Timeout: 5 * time.Second, Remember: 10 * time.Second,
		Good: remember.New(1 << 20), Bad: remember.New(256 << 10), Now: k.now,
		Policy: jose.Policy{Issuer: "https://i.test", Audiences: []string{"api"}, Algorithms: []string{jose.RS256}, Types: []string{"at+jwt"}, Claims: jose.StandardClaims(), Now: k.now},
	}
	if change != nil {
		change(&o)
	}
	c, err := introspect.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, k
}

func wantReason(t *testing.T, what string, err error, reason string) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Reason != reason {
		t.Errorf("%s: %v, want %s", what, err, reason)
	}
	if err != nil && strings.Contains(err.Error(), "canary") {
		t.Errorf("%s: the error tells a secret: %v", what, err)
	}
}

// S47: the issuer is asked as RFC 7662 section 2.1 says, by a client that authenticates.
func TestTheIssuerIsAskedByAnAuthenticatedClient(t *testing.T) {
	t.Parallel()
	i := serve(t)
	got := make(chan *http.Request, 1)
	i.says(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got <- r
		fmt.Fprint(w, `{"active":true,"sub":"u1","aud":["api"],"client_id":"app","sid":"s1"}`)
	})
	c, _ := client(t, i, nil)
	who, err := c.Ask(t.Context(), "opaque-1")
	if err != nil || who.Subject != "u1" || who.Issuer != "https://i.test" || who.ClientID != "app" || who.SessionID != "s1" {
		t.Fatalf("%+v, %v", who, err)
	}
	r := <-got
	id, password, ok := r.BasicAuth()
	if !ok || id != "edge%2F1" || password != "s%3Aecret-canary%2B" || r.Method != "POST" || r.PostForm.Get("token") != "opaque-1" || r.URL.RawQuery != "" {
		t.Errorf("asked by %s %q, as %q %q", r.Method, r.URL, id, password)
	}
}

// S34, S36: an answer is believed as far as it names us and lives; whatever else it is, is a refusal.
func TestWhatTheIssuerDoesNotVouchForIsRefused(t *testing.T) {
	t.Parallel()
	i := serve(t)
	c, _ := client(t, i, nil)
	for what, claims := range map[string]map[string]any{
		"inactive": {"active": false}, "another audience": {"aud": "other"}, "no subject": {"sub": ""}, "another issuer": {"iss": "https://j.test"},
		"bound to a certificate": {"cnf": map[string]string{"x5t#S256": "x"}},
	} {
		i.tells(claims)
		_, err := c.Ask(t.Context(), strings.ReplaceAll(what, " ", "-"))
		wantReason(t, what, err, "token_invalid")
	}
	i.tells(map[string]any{"exp": now.Add(-time.Minute).Unix()})
	_, err := c.Ask(t.Context(), "expired")
	wantReason(t, "expired", err, "token_expired")
	before := i.asked.Load()
	for _, token := range []string{"", "=", "a b", "a\nb", "a&token=b", "ä", strings.Repeat("a", 8193)} {
		_, err := c.Ask(t.Context(), token)
		wantReason(t, "malformed", err, "token_invalid")
	}
	if i.asked.Load() != before {
		t.Error("the issuer was asked about what is no token")
	}
}

// S56: an issuer that is away, slow or answers nonsense refuses the request by a code of its own, and is asked again.
func TestWhoCannotBeAskedRefuses(t *testing.T) {
	t.Parallel()
	for what, h := range map[string]http.HandlerFunc{
		"a failure":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"not our secret": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"nonsense": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"active twice": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"active":true,"sub":"u","aud":"api","Active":false}`)
		},
		"no active":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"sub":"u","aud":"api"}`) },
		"active as text": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"active":"true","sub":"u","aud":"api"}`) },
		"a large answer": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"active":true,"x":"`+strings.Repeat("a", 1<<17)+`"}`)
		},
		"a broken answer": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		i := serve(t)
		c, _ := client(t, i, nil)
		i.says(h)
		_, err := c.Ask(t.Context(), "t-canary")
		wantReason(t, what, err, "introspection_unavailable")
		i.tells(nil)
		if who, err := c.Ask(t.Context(), "t-canary"); err != nil || who.Subject != "u1" {
			t.Errorf("%s, then well again: %v", what, err)
		}
	}
	i := serve(t)
	c, _ := client(t, i, func(o *introspect.Options) { o.Timeout = 50 * time.Millisecond })
	ended := make(chan struct{})
	i.says(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // or the server would not see that the client has gone
		<-r.Context().Done()
		close(ended)
	})
	_, err := c.Ask(t.Context(), "t")
	wantReason(t, "slow", err, "introspection_unavailable")
	<-ended
	i.Close()
	_, err = c.Ask(t.Context(), "t")
	wantReason(t, "away", err, "introspection_unavailable")
}

// An answer is good for a few seconds, and never beyond the token's expiry (S36).
func TestAnAnswerIsRememberedBriefly(t *testing.T) {
	t.Parallel()
	i := serve(t)
	c, k := client(t, i, nil)
	asks := func(want int64, subject string) {
		t.Helper()
		before := i.asked.Load()
		who, err := c.Ask(t.Context(), "t")
		if got := i.asked.Load() - before; got != want || who.Subject != subject {
			t.Errorf("asked %d times, want %d; %q, %v", got, want, who.Subject, err)
		}
	}
	asks(1, "u1")
	i.tells(map[string]any{"active": false})
	asks(0, "u1")
	k.after(10*time.Second - 1)
	asks(0, "u1")
	k.after(10 * time.Second)
	asks(1, "")
	i.tells(map[string]any{"exp": now.Add(23 * time.Second).Unix()})
	asks(0, "")
	k.after(20 * time.Second)
	asks(1, "u1")
	i.tells(map[string]any{"active": false})
	k.after(23*time.Second - 1)
	asks(0, "u1")
	k.after(23 * time.Second)
	asks(1, "")
	if hits, misses := c.Counts(); hits != 4 || misses != 4 {
		t.Errorf("%d hits, %d misses", hits, misses)
	}
	unremembered, _ := client(t, i, func(o *introspect.Options) { o.Remember = 0 })
	before := i.asked.Load()
	for range 2 {
		_, _ = unremembered.Ask(t.Context(), "t")
	}
	if i.asked.Load()-before != 2 {
		t.Error("remembered although it must not be")
	}
}

// However many requests bear a token, one asks; who goes away cuts nobody else off.
func TestOneOfManyAsks(t *testing.T) {
	t.Parallel()
	i := serve(t)
	c, _ := client(t, i, nil)
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	i.says(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		fmt.Fprint(w, `{"active":true,"sub":"u1","aud":"api"}`)
	})
	leaving, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := c.Ask(leaving, "t")
		left <- err
	}()
	<-arrived
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if who, err := c.Ask(t.Context(), "t"); err != nil || who.Subject != "u1" {
				t.Errorf("%+v, %v", who, err)
			}
		})
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	close(release)
	wg.Wait()
	if n := i.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A flood of bad tokens pushes out no good one.
func TestAFloodOfBadTokensLeavesTheGoodOnes(t *testing.T) {
	t.Parallel()
	i := serve(t)
	bad := remember.New(256 << 10)
	c, _ := client(t, i, func(o *introspect.Options) { o.Good, o.Bad = remember.New(512<<10), bad })
	if _, err := c.Ask(t.Context(), "good"); err != nil {
		t.Fatal(err)
	}
	i.tells(map[string]any{"active": false})
	for n := range 2000 {
		_, err := c.Ask(t.Context(), fmt.Sprint("bad-", n))
		wantReason(t, "bad", err, "token_invalid")
	}
	if bytes, _ := bad.Used(); bytes > 256<<10 {
		t.Errorf("%d bytes of bad tokens", bytes)
	}
	if who, err := c.Ask(t.Context(), "good"); err != nil || who.Subject != "u1" {
		t.Errorf("the good one: %v", err)
	}
}

// S64: the endpoint is reached as the operator allows, and nowhere else.
func TestTheEndpointIsWhereTheOperatorAllows(t *testing.T) {
	t.Parallel()
	for url, network := range map[string]egress.Options{
		"http://i.test/introspect": {}, "file:///etc/passwd": {AllowPrivate: true, AllowHTTP: true}, "": {}, "https://u:p@i.test/": {},
	} {
		o := introspect.Options{URL: url, ClientID: "a", ClientSecret: "b", Timeout: time.Second, Egress: network, Good: remember.New(0), Bad: remember.New(0), Now: time.Now}
		if _, err := introspect.New(o); err == nil || strings.Contains(err.Error(), "passwd") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
