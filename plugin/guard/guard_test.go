package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// world is what a guard under test meets; each function may be replaced.
type world struct {
	verify  func(string) (principal.Principal, error)
	known   error
	lag     time.Duration
	active  func() (bool, error)
	spent   func([]limit.Key) []limit.State
	taken   [][]limit.Key
	ids     []string
	revoked bool
	take    func([]limit.Key) (limit.Result, error)
	spend   error
	decide  func(authzen.Request) (authzen.Response, error)
	asked   []authzen.Request
	batches int
	mu      sync.Mutex
	log     bytes.Buffer
}

func (w *world) Verify(_ context.Context, t string) (principal.Principal, error) { return w.verify(t) }
func (w *world) Known() error                                                    { return w.known }
func (w *world) Revoked(principal.Principal) bool                                { return w.revoked }
func (w *world) Lag() time.Duration                                              { return w.lag }
func (w *world) Take(_ context.Context, id string, k []limit.Key) (limit.Result, error) {
	w.mu.Lock()
	w.taken, w.ids = append(w.taken, k), append(w.ids, id)
	w.mu.Unlock()
	return w.take(k)
}
func (w *world) Spent(k []limit.Key) []limit.State {
	if w.spent == nil {
		return nil
	}
	return w.spent(k)
}
func (w *world) Active(context.Context, string, principal.Principal) (bool, error) { return w.active() }
func (w *world) Issue(context.Context, challenge.Bind, int) (any, error)           { return "solve this", nil }
func (w *world) Spend(context.Context, string, challenge.Bind, string) error       { return w.spend }
func (w *world) Decide(_ context.Context, r authzen.Request) (authzen.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, r)
	return w.decide(r)
}

// DecideAll decides as the decision point does: one after the other, up to the first denial.
func (w *world) DecideAll(ctx context.Context, about authzen.Request, on []authzen.Resource) (all []authzen.Response, err error) {
	w.mu.Lock()
	w.batches++
	w.mu.Unlock()
	for _, about.Resource = range on {
		one, err := w.Decide(ctx, about)
		if err != nil {
			return nil, err
		}
		if all = append(all, one); !one.Decision {
			break
		}
	}
	return all, nil
}

func calm() *world {
	return &world{
		verify: func(string) (principal.Principal, error) {
			return principal.Principal{Subject: "u1", Issuer: "i", Roles: []string{"customer", "clerk"}, Scope: []string{"a", "b"}, Tenant: "t1", ExpiresAt: now.Add(time.Minute)}, nil
		},
		take: func(keys []limit.Key) (limit.Result, error) {
			return limit.Result{Allowed: true, States: []limit.State{{Name: keys[0].Name, Rate: keys[0].Rate, Remaining: 3, Reset: 1500 * time.Millisecond}}}, nil
		},
		decide: func(authzen.Request) (authzen.Response, error) {
			return authzen.Response{Decision: true, Context: &authzen.ResponseContext{DecisionID: "d-pdp"}}, nil
		},
	}
}

func config() guard.Config {
	return guard.Config{
		Mode: guard.Enforce, Identify: guard.Required, Issuers: []guard.Issuer{{Issuer: "i"}}, Authorize: true,
		Limits: []guard.Limit{
			{Name: "per-address", Key: guard.ByAddress, Rate: limit.Rate{Limit: 10, Period: time.Minute}},
			{Name: "per-subject", Key: guard.BySubject, Rate: limit.Rate{Limit: 5, Period: time.Minute}},
		},
		Resources: []guard.Resource{{Pattern: "/orders/{id}", Type: "order"}, {Pattern: "/orders", Type: "order"}, {Pattern: "/orders/mine", Type: "mine"}},
		PDP:       guard.PDP{URL: "http://pdp", Timeout: time.Second}, RedisURL: telemetry.Secret("redis://r"),
	}
}

// build makes a guard of config and of the world; more changes its parts.
func build(t testing.TB, w *world, change func(*guard.Config), more ...func(*guard.Parts)) *guard.Guard {
	t.Helper()
	cfg := config()
	if change != nil {
		change(&cfg)
	}
	parts := guard.Parts{
		Verifier: w, Revocations: w, Introspector: w, Limiter: w, Challenger: w, Decider: w,
		Now: func() time.Time { return now }, NewID: func() string { return "d-edge" }, Log: telemetry.Logger(&w.log, slog.LevelInfo),
	}
	for _, m := range more {
		m(&parts)
	}
	g, err := guard.New(cfg, parts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func request(change func(*guard.Request)) guard.Request {
	r := guard.Request{
		Method: "GET", Path: "/orders/o1", Route: "orders", Addr: netip.MustParseAddr("192.0.2.1"),
		Header: map[string][]string{"authorization": {"Bearer token-canary"}, "user-agent": {"test"}},
	}
	if change != nil {
		change(&r)
	}
	return r
}

func problem(t *testing.T, v guard.Verdict) web.ProblemDocument {
	t.Helper()
	var p web.ProblemDocument
	if err := json.Unmarshal(v.Body, &p); err != nil {
		t.Fatalf("body %q: %v", v.Body, err)
	}
	return p
}

// S54: an upstream can believe the identity headers, because each is overwritten on every request.
func TestAnAllowedRequestGoesOnWithItsIdentity(t *testing.T) {
	t.Parallel()
	v := build(t, calm(), nil).Check(t.Context(), request(func(r *guard.Request) {
		r.Header["x-gatehouse-subject"] = []string{"admin"}
		r.Header["x-gatehouse-roles"] = []string{"admin", "root"}
	}))
	if !v.Forward {
		t.Fatalf("denied: %s", v.Body)
	}
	for name, want := range map[string]string{
		"X-Gatehouse-Subject": "u1", "X-Gatehouse-Roles": "customer,clerk", "X-Gatehouse-Scope": "a b", "X-Gatehouse-Tenant": "t1", "X-Gatehouse-Decision": "d-pdp",
	} {
		if got := v.SetHeaders[name]; got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	open := build(t, calm(), func(c *guard.Config) { c.Identify, c.Authorize, c.Limits = guard.None, false, nil })
	v = open.Check(t.Context(), request(func(r *guard.Request) { r.Header["x-gatehouse-subject"] = []string{"admin"} }))
	for _, name := range principal.IdentityHeaders() {
		if got, set := v.SetHeaders[name]; !set || (got != "" && name != principal.HeaderDecision) {
			t.Errorf("on an open route %s = %q, set %v", name, got, set)
		}
	}
}

// S56: every failure on the way is a denial with a code of its own.
func TestWhateverFailsIsADenialOfItsOwn(t *testing.T) {
	t.Parallel()
	fails := func(f *fault.Error) func(*world) {
		return func(w *world) {
			w.verify = func(string) (principal.Principal, error) { return principal.Principal{}, f }
		}
	}
	decides := func(res authzen.Response, err error) func(*world) {
		return func(w *world) { w.decide = func(authzen.Request) (authzen.Response, error) { return res, err } }
	}
	for name, c := range map[string]struct {
		world   func(*world)
		request func(*guard.Request)
		config  func(*guard.Config)
		status  int
		code    string
	}{
		"no token":          {request: func(r *guard.Request) { delete(r.Header, "authorization") }, status: 401, code: "token_missing"},
		"basic credentials": {request: func(r *guard.Request) { r.Header["authorization"] = []string{"Basic eDp5"} }, status: 401, code: "token_missing"},
		"bad token":         {world: fails(fault.New(fault.Unauthenticated, "x").Named("token_invalid")), status: 401, code: "token_invalid"},
		"no key set":        {world: fails(fault.New(fault.Unavailable, "x").Named("keys_unavailable")), status: 503, code: "keys_unavailable"},
		"nobody's token": {world: func(w *world) {
			w.verify = func(string) (principal.Principal, error) { return principal.Principal{}, nil }
		}, status: 500, code: "guard_failed"},
		"revocations unknown": {world: func(w *world) { w.known = fault.New(fault.Unavailable, "x").Named("revocations_unknown") }, status: 503, code: "revocations_unknown"},
		"ended session":       {world: func(w *world) { w.revoked = true }, status: 401, code: "session_revoked"},
		"limit fails": {world: func(w *world) {
			w.take = func([]limit.Key) (limit.Result, error) { return limit.Result{}, errors.New("x") }
		}, status: 500, code: "guard_failed"},
		"limit panics":        {world: func(w *world) { w.take = func([]limit.Key) (limit.Result, error) { panic("x") } }, status: 500, code: "guard_failed"},
		"no challenge":        {config: func(c *guard.Config) { c.Challenge = guard.Challenge{When: guard.Always, Action: "a"} }, status: 403, code: "challenge_required"},
		"policy away":         {world: decides(authzen.Response{Decision: true}, fault.New(fault.Unavailable, "x").Named("policy_unavailable")), status: 503, code: "policy_unavailable"},
		"policy fails oddly":  {world: decides(authzen.Response{Decision: true}, errors.New("x")), status: 500, code: "guard_failed"},
		"denied":              {world: decides(authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{"not_owner"}}}, nil), status: 403, code: "forbidden"},
		"denied, no context":  {world: decides(authzen.Response{}, nil), status: 403, code: "forbidden"},
		"step-up":             {world: decides(authzen.Response{Context: &authzen.ResponseContext{Need: &authzen.Need{ACR: "aal2", MaxAge: 60}}}, nil), status: 401, code: "insufficient_user_authentication"},
		"path without a rule": {request: func(r *guard.Request) { r.Path = "/orders/o1/items" }, status: 403, code: "resource_unknown"}, // S53
		"unreadable":          {request: func(r *guard.Request) { r.Malformed = "x" }, status: 400, code: "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := calm()
			if c.world != nil {
				c.world(w)
			}
			v := build(t, w, c.config).Check(t.Context(), request(c.request))
			if v.Forward || v.Status != c.status {
				t.Fatalf("forward %v, status %d, want %d: %s", v.Forward, v.Status, c.status, v.Body)
			}
			p := problem(t, v)
			if p.Code != c.code || p.DecisionID == "" || v.Header["X-Gatehouse-Decision"] != p.DecisionID || len(p.TraceID) != 32 {
				t.Errorf("problem %+v, header %v", p, v.Header)
			}
			if (v.Status == 401) != (v.Header["WWW-Authenticate"] != "") {
				t.Errorf("WWW-Authenticate %q with %d", v.Header["WWW-Authenticate"], v.Status)
			}
			if line := w.log.String(); !strings.Contains(line, c.code) || strings.Contains(line, "token-canary") { // S67
				t.Errorf("log: %s", line)
			}
		})
	}
}

// Reasons and the ids of rules are for staff: they stand in the edge's log, and in no answer to a client.
func TestAClientIsNotToldByWhichRules(t *testing.T) {
	t.Parallel()
	for _, need := range []*authzen.Need{nil, {ACR: "aal2"}} {
		w := calm()
		w.decide = func(authzen.Request) (authzen.Response, error) {
			return authzen.Response{Context: &authzen.ResponseContext{Outcome: authzen.Deny, Reasons: []string{"reason-canary"}, Rules: []string{`rule["canary"]`}, Need: need}}, nil
		}
		v := build(t, w, nil).Check(t.Context(), request(nil))
		said := fmt.Sprint(v.Status, v.Header, string(v.Body), v.SetHeaders)
		if v.Forward || strings.Contains(said, "canary") || strings.Contains(said, "rule") {
			t.Errorf("the client is told %s", said)
		}
		if line := w.log.String(); !strings.Contains(line, "reason-canary") || !strings.Contains(line, `rule[`) {
			t.Errorf("log: %s", line)
		}
	}
}

// S55: a path that two parsers could read differently never reaches a policy.
func TestAnAmbiguousPathIsRefused(t *testing.T) {
	t.Parallel()
	g := build(t, calm(), nil)
	for _, path := range []string{
		"", "orders", "//orders", "/orders//o1", "/orders/../admin", "/orders/.", "/orders/%2e%2e/admin", "/orders/%2E./x", "/orders%2fo1", "/orders/%5co1",
		`/orders\o1`, "/orders/%00", "/orders/o1;x=1", "/orders/%3bx", "/orders/%252f", "/orders/%", "/orders/%2", "/orders/%zz", "/orders/\x00", "/orders/\xff",
		"/orders/%ff", "/orders/%0d%0a", "/orders/..%2f", "/orders/o1#x", "http://host/orders",
	} {
		for where, set := range map[string]func(*guard.Request){
			"client": func(r *guard.Request) { r.Path = path }, "upstream": func(r *guard.Request) { r.UpstreamPath = path },
		} {
			if path == "" && where == "upstream" {
				continue // the gateway did not change it
			}
			if v := g.Check(t.Context(), request(set)); v.Forward || v.Status != 400 {
				t.Errorf("%s path %q: forward %v, status %d", where, path, v.Forward, v.Status)
			}
		}
	}
	for _, path := range []string{"/orders/o1", "/orders/caf%C3%A9", "/orders/a%20b", "/orders/a.b", "/orders/..."} {
		if v := g.Check(t.Context(), request(func(r *guard.Request) { r.Path = path })); !v.Forward {
			t.Errorf("%q is refused: %s", path, v.Body)
		}
	}
}

// S39, S54: what a header could mean twice is refused.
func TestAnAmbiguousHeaderIsRefused(t *testing.T) {
	t.Parallel()
	g := build(t, calm(), nil)
	for name, c := range map[string]struct {
		header map[string][]string
		code   string
	}{
		"two tokens":          {map[string][]string{"authorization": {"Bearer a", "Bearer b"}}, "two_tokens"},
		"one token twice":     {map[string][]string{"authorization": {"Bearer a", "Bearer a"}}, "two_tokens"},
		"tokens in one value": {map[string][]string{"authorization": {"Bearer a, Bearer b"}}, "two_tokens"},
		"underscored subject": {map[string][]string{"x_gatehouse_subject": {"admin"}}, "bad_header"},
		"not UTF-8":           {map[string][]string{"x-any": {"\xff"}}, "bad_header"},
		"a line break":        {map[string][]string{"x-any": {"a\nb"}}, "bad_header"},
	} {
		v := g.Check(t.Context(), request(func(r *guard.Request) { r.Header = c.header }))
		if v.Status != 400 || problem(t, v).Code != c.code {
			t.Errorf("%s: %d %s, want 400 %s", name, v.Status, v.Body, c.code)
		}
	}
	if v := g.Check(t.Context(), request(func(r *guard.Request) { r.HeadersTruncated = true })); v.Status != 400 {
		t.Errorf("more headers than can be seen: %d", v.Status)
	}
}

func TestThePolicyIsAskedAboutWhatTheUpstreamGets(t *testing.T) {
	t.Parallel()
	w := calm()
	g := build(t, w, nil)
	for _, c := range []struct{ method, path, action, kind, id string }{
		{"HEAD", "/orders/o%201", "GET", "order", "o 1"},
		{"POST", "/orders", "POST", "order", "/orders"},
		{"GET", "/orders/mine", "GET", "mine", "/orders/mine"},
	} {
		w.asked = nil
		g.Check(t.Context(), request(func(r *guard.Request) { r.Method, r.Path, r.UpstreamPath = c.method, "/shop"+c.path, c.path }))
		if len(w.asked) != 1 {
			t.Fatalf("%s %s: asked %d times", c.method, c.path, len(w.asked))
		}
		got := w.asked[0]
		if got.Action.Name != c.action || got.Resource.Type != c.kind || got.Resource.ID != c.id || got.Subject.ID != "u1" || got.Context["ip"] != "192.0.2.1" {
			t.Errorf("%s %s: asked %+v", c.method, c.path, got)
		}
	}
}

func TestASpentLimitTellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	w := calm()
	w.take = func(keys []limit.Key) (limit.Result, error) {
		var states []limit.State
		for _, k := range keys {
			states = append(states, limit.State{Name: k.Name, Rate: k.Rate, Reset: 1500 * time.Millisecond, Exceeded: k.Name == "per-subject"})
		}
		return limit.Result{States: states}, nil
	}
	v := build(t, w, nil).Check(t.Context(), request(nil))
	for name, want := range map[string]string{
		"Retry-After": "2", "RateLimit": `"per-address";r=0;t=2, "per-subject";r=0;t=2`, "RateLimit-Policy": `"per-address";q=10;w=60, "per-subject";q=5;w=60`,
	} {
		if v.Header[name] != want {
			t.Errorf("%s = %q, want %q", name, v.Header[name], want)
		}
	}
	if v.Status != 429 || len(w.asked) != 0 {
		t.Errorf("status %d, policy asked %d times", v.Status, len(w.asked))
	}
}

func TestAWrongSolutionGetsAFreshChallenge(t *testing.T) {
	t.Parallel()
	w := calm()
	w.spend = challenge.ErrInvalid
	g := build(t, w, func(c *guard.Config) { c.Challenge = guard.Challenge{When: guard.Always, Action: "a"} })
	solved := request(func(r *guard.Request) { r.Header["x-gatehouse-challenge"] = []string{"payload"} })
	if p := problem(t, g.Check(t.Context(), solved)); p.Code != "challenge_invalid" || p.Challenge != "solve this" {
		t.Errorf("problem %+v", p)
	}
	w.spend = challenge.ErrUnavailable
	if v := g.Check(t.Context(), solved); v.Status != 503 {
		t.Errorf("status %d when nobody can say whether it is spent", v.Status)
	}
	w.spend = nil
	if v := g.Check(t.Context(), solved); !v.Forward {
		t.Errorf("solved, and denied: %s", v.Body)
	}
}

func TestObserveStopsNothingButWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := calm()
	w.revoked = true
	g := build(t, w, func(c *guard.Config) { c.Mode = guard.Observe })
	v := g.Check(t.Context(), request(nil))
	if !v.Forward || !v.Decision.Observed || v.Decision.Code != "session_revoked" || !strings.Contains(w.log.String(), `"observed":true`) {
		t.Errorf("verdict %+v, log %s", v, w.log.String())
	}
	if v := g.Check(t.Context(), request(func(r *guard.Request) { r.Path = "/a/../b" })); v.Forward {
		t.Error("an ambiguous path goes on")
	}
}

func TestOptionalMeansNoTokenOrAGoodOne(t *testing.T) {
	t.Parallel()
	w := calm()
	g := build(t, w, func(c *guard.Config) { c.Identify = guard.Optional })
	if v := g.Check(t.Context(), request(func(r *guard.Request) { delete(r.Header, "authorization") })); !v.Forward || w.asked[0].Subject.Type != "anonymous" {
		t.Errorf("without a token: %s", v.Body)
	}
	w.verify = func(string) (principal.Principal, error) {
		return principal.Principal{}, fault.New(fault.Unauthenticated, "x").Named("token_invalid")
	}
	if v := g.Check(t.Context(), request(nil)); v.Forward || v.Status != 401 {
		t.Errorf("with a bad token: status %d", v.Status)
	}
}

func TestTheTraceOfTheRequestIsKept(t *testing.T) {
	t.Parallel()
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	g := build(t, calm(), nil)
	v := g.Check(t.Context(), request(func(r *guard.Request) { r.Header["traceparent"] = []string{parent} }))
	if _, changed := v.SetHeaders["Traceparent"]; changed || v.Decision.TraceID != parent[3:35] {
		t.Errorf("headers %v, trace %s", v.SetHeaders, v.Decision.TraceID)
	}
	v = g.Check(t.Context(), request(func(r *guard.Request) { r.Header["traceparent"] = []string{"nonsense"} }))
	if _, ok := web.ParseTraceparent(v.SetHeaders["Traceparent"]); !ok {
		t.Errorf("Traceparent = %q", v.SetHeaders["Traceparent"])
	}
}

func TestAConfigurationIsRefusedWithThePathOfEachFault(t *testing.T) {
	t.Parallel()
	bad := guard.Config{
		Identify: guard.Required, Authorize: true, Challenge: guard.Challenge{When: guard.Always},
		Limits:    []guard.Limit{{Name: "a b", Key: guard.ByAddress}, {Name: "a b", Key: guard.ByAddress}},
		Resources: []guard.Resource{{Pattern: "orders"}},
	}
	err := bad.Validate()
	for _, path := range []string{"config.issuers:", "config.redis_url:", "config.limits[1].name:", "config.limits[2].name: is given twice", "config.challenge.action:", "config.pdp.url:", "config.resources[1]:"} {
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("no %q in: %v", path, err)
		}
	}
	if _, err := guard.New(config(), guard.Parts{}); err == nil {
		t.Error("a guard without its parts is made")
	}
}

func FuzzPath(f *testing.F) {
	f.Add("/orders/%2e%2e/x")
	g := build(f, calm(), func(c *guard.Config) { c.Limits = nil })
	f.Fuzz(func(t *testing.T, path string) {
		v := g.Check(t.Context(), request(func(r *guard.Request) { r.Path = path }))
		if v.Forward && (strings.Contains(path, "..%") || strings.Contains(path, "/../") || strings.Contains(path, "//")) {
			t.Errorf("%q goes on", path)
		}
		if v.Status == 500 {
			t.Errorf("%q: %s", path, v.Body)
		}
	})
}
