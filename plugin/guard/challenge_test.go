package guard_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// door is a guard with a challenge at a login page, and what it tells.
type door struct {
	*guard.Guard
	world *world
	meter *meter
	at    time.Time
	fails *challenge.Failures
}

func challenged(t testing.TB, change func(*guard.Config)) *door {
	t.Helper()
	d := &door{world: calm(), meter: &meter{}, at: now}
	clock := func() time.Time { return d.at }
	cfg := guard.Config{
		Identify: guard.None, RedisURL: "redis://r",
		Challenge: guard.Challenge{
			When: guard.Always, Action: "login", Page: true, Clearance: guard.Clearance{TTL: 5 * time.Minute},
			Risk: guard.Risk{Threshold: 50, Failures: 5, Weights: guard.Weights{Failures: 60, Rate: 40, Network: 60, Client: 25}},
		},
	}
	if change != nil {
		change(&cfg)
	}
	clearances, err := challenge.NewClearances("0123456789abcdef0123456789abcdef", 5*time.Minute, clock)
	if err != nil {
		t.Fatal(err)
	}
	d.fails = challenge.NewFailures(clock)
	if d.Guard, err = guard.New(cfg, guard.Parts{
		Verifier: d.world, Revocations: d.world, Limiter: d.world, Challenger: d.world, Clearances: clearances, Failures: d.fails, Meter: d.meter,
		Now: clock, NewID: func() string { return "d-edge" }, Log: telemetry.Logger(&d.world.log, slog.LevelInfo),
	}); err != nil {
		t.Fatal(err)
	}
	return d
}

// visit is a request to the login page by a program; further are name, value pairs of headers.
func visit(further ...string) guard.Request {
	r := guard.Request{
		Method: "POST", Path: "/login", Route: "login", Addr: netip.MustParseAddr("192.0.2.1"),
		Header: map[string][]string{"user-agent": {"program/1"}, "accept": {"application/json"}},
	}
	for i := 0; i < len(further); i += 2 {
		if r.Header[further[i]] = []string{further[i+1]}; further[i+1] == "" {
			delete(r.Header, further[i])
		}
	}
	return r
}

func cookieOf(v guard.Verdict) string {
	pair, _, _ := strings.Cut(v.Respond["Set-Cookie"]+v.Header["Set-Cookie"], ";")
	return pair
}

// S14, S28: who has solved a challenge is cleared for a while, by a cookie that scripts and plain http never see.
func TestASolvedChallengeClears(t *testing.T) {
	t.Parallel()
	d := challenged(t, nil)
	if v := d.Check(t.Context(), visit()); v.Status != 403 || problem(t, v).Code != "challenge_required" {
		t.Fatalf("status %d: %s", v.Status, v.Body)
	}
	v := d.Check(t.Context(), visit("x-gatehouse-challenge", "solved"))
	cookie := v.Respond["Set-Cookie"]
	if !v.Forward || !strings.HasPrefix(cookie, "__Host-gatehouse-clearance=") || !strings.HasSuffix(cookie, "; Path=/; Max-Age=300; Secure; HttpOnly; SameSite=Lax") {
		t.Fatalf("forward %v, cookie %q", v.Forward, cookie)
	}
	if v.Respond["X-Gatehouse-Clearance"] != "" {
		t.Error("scripts can see the clearance")
	}
	mine := "theme=dark; " + cookieOf(v)
	if v := d.Check(t.Context(), visit("cookie", mine)); !v.Forward || cookieOf(v) != "" {
		t.Errorf("cleared: forward %v, status %d, a further cookie %q", v.Forward, v.Status, cookieOf(v))
	}
	elsewhere := visit("cookie", mine)
	elsewhere.Addr = netip.MustParseAddr("198.51.100.1")
	route := visit("cookie", mine)
	route.Route = "register"
	for name, r := range map[string]guard.Request{
		"another network": elsewhere, "another route": route, "another user agent": visit("cookie", mine, "user-agent", "robot/1"),
		"in a header":  visit("x-gatehouse-clearance", strings.TrimPrefix(cookieOf(v), "__Host-gatehouse-clearance=")),
		"forged":       visit("cookie", "__Host-gatehouse-clearance="+strings.Repeat("A", 55)),
		"another name": visit("cookie", strings.TrimPrefix(cookieOf(v), "__Host-")),
	} {
		if v := d.Check(t.Context(), r); v.Status != 403 {
			t.Errorf("%s: forward %v, status %d", name, v.Forward, v.Status)
		}
	}
	d.at = now.Add(5 * time.Minute)
	if v := d.Check(t.Context(), visit("cookie", mine)); v.Status != 403 {
		t.Errorf("expired: forward %v", v.Forward)
	}
	if want := []string{"login set", "login solved", "login cleared"}; !slices.Equal(d.meter.challenged[:3], want) {
		t.Errorf("told %q", d.meter.challenged)
	}
}

func TestAClearanceMayBeAHeader(t *testing.T) {
	t.Parallel()
	d := challenged(t, func(c *guard.Config) { c.Challenge.Clearance.By = guard.InHeader })
	v := d.Check(t.Context(), visit("x-gatehouse-challenge", "solved"))
	token := v.Respond["X-Gatehouse-Clearance"]
	if !v.Forward || token == "" || cookieOf(v) != "" {
		t.Fatalf("forward %v, headers %v", v.Forward, v.Respond)
	}
	if v := d.Check(t.Context(), visit("x-gatehouse-clearance", token)); !v.Forward {
		t.Errorf("status %d", v.Status)
	}
	if v := d.Check(t.Context(), visit("cookie", "__Host-gatehouse-clearance="+token)); v.Forward {
		t.Error("a cookie clears where none is given")
	}
}

func TestWithoutClearancesEachRequestSolvesItsOwn(t *testing.T) {
	t.Parallel()
	d := challenged(t, func(c *guard.Config) { c.Challenge.Clearance.TTL = 0 })
	v := d.Check(t.Context(), visit("x-gatehouse-challenge", "solved"))
	if !v.Forward || len(v.Respond) > 0 {
		t.Errorf("forward %v, headers %v", v.Forward, v.Respond)
	}
}

// One cookie serves several routes: solving for one does not end the clearance for another.
func TestClearancesForSeveralRoutesLiveInOneCookie(t *testing.T) {
	t.Parallel()
	d := challenged(t, nil)
	cookie := "__Host-gatehouse-clearance=junk.<b>"
	for _, route := range []string{"a", "b", "c", "d", "e"} {
		r := visit("x-gatehouse-challenge", "solved", "cookie", cookie)
		r.Route = route
		cookie = cookieOf(d.Check(t.Context(), r))
		if strings.Contains(cookie, "junk") || strings.Contains(cookie, "<") {
			t.Errorf("cookie %q", cookie)
		}
	}
	if strings.Count(cookie, ".") != 3 {
		t.Fatalf("cookie %q", cookie)
	}
	for route, cleared := range map[string]bool{"a": false, "b": true, "e": true} {
		r := visit("cookie", cookie)
		r.Route = route
		if v := d.Check(t.Context(), r); v.Forward != cleared {
			t.Errorf("route %s: forward %v, want %v", route, v.Forward, cleared)
		}
	}
}

// S56: while nobody can say whether a solution is good, it is not, unless the route says otherwise; a client that offers none
// does not pass then either.
func TestWhenAProviderIsAwayTheRouteDecides(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		away   guard.Away
		fails  error
		status int // 0: forwarded
	}{
		"deny by default":   {"", challenge.ErrAway, 503},
		"deny":              {guard.AwayDeny, challenge.ErrAway, 503},
		"allow":             {guard.AwayAllow, challenge.ErrAway, 0},
		"allow, Redis away": {guard.AwayAllow, challenge.ErrUnavailable.Because(fmt.Errorf("x")), 0},
		"allow, but wrong":  {guard.AwayAllow, challenge.ErrInvalid, 403},
		"allow, but busy":   {guard.AwayAllow, fault.New(fault.Unavailable, "x").Named("challenge_busy"), 503},
		"allow, but a bug":  {guard.AwayAllow, fmt.Errorf("x"), 500},
	} {
		d := challenged(t, func(cfg *guard.Config) { cfg.Challenge.Provider.WhenAway = c.away })
		d.world.spend = c.fails
		v := d.Check(t.Context(), visit("x-gatehouse-challenge", "canary"))
		if v.Forward != (c.status == 0) || v.Status != c.status {
			t.Errorf("%s: forward %v, status %d, want %d", name, v.Forward, v.Status, c.status)
		}
		if v.Forward && cookieOf(v) != "" {
			t.Errorf("%s: what nobody has checked clears", name)
		}
		if v.Forward && !strings.Contains(d.world.log.String(), "requests with a solution go on") {
			t.Errorf("%s: nobody is told: %s", name, d.world.log.String())
		}
		if strings.Contains(d.world.log.String(), "canary") { // S67
			t.Errorf("%s: the log has the solution", name)
		}
		if v := d.Check(t.Context(), visit()); v.Status != 403 {
			t.Errorf("%s, without a solution: forward %v, status %d", name, v.Forward, v.Status)
		}
	}
}

// S61: each signal counts as documented, and only from the threshold on a challenge is asked for.
func TestRiskAsksForAChallenge(t *testing.T) {
	t.Parallel()
	spend := func(left int64) func(*door) {
		return func(d *door) {
			d.world.take = func([]limit.Key) (limit.Result, error) {
				return limit.Result{Allowed: true, States: []limit.State{{Name: "l", Rate: limit.Rate{Limit: 10, Period: time.Minute}, Remaining: left}}}, nil
			}
		}
	}
	failed := func(n int) func(*door) {
		return func(d *door) {
			for range n {
				d.fails.Add(netip.MustParseAddr("192.0.2.200")) // of the same network
			}
		}
	}
	both := func(a, b func(*door)) func(*door) { return func(d *door) { a(d); b(d) } }
	for name, c := range map[string]struct {
		before  func(*door)
		request guard.Request
		asked   bool
	}{
		"calm":                           {nil, visit(), false},
		"some failures":                  {failed(4), visit(), false},
		"many failures":                  {failed(5), visit(), true},
		"half the limit":                 {spend(5), visit(), false},
		"all of the limit alone":         {spend(0), visit(), false},
		"the limit and some failures":    {both(spend(2), failed(3)), visit(), true},
		"no user agent":                  {nil, visit("user-agent", ""), false},
		"no user agent, no accept":       {nil, visit("user-agent", "", "accept", ""), true},
		"an empty user agent, no accept": {nil, visit("user-agent", " ", "accept", ""), true},
		"the limit and no accept":        {spend(1), visit("accept", ""), true},
		"bad repute":                     {nil, func() guard.Request { r := visit(); r.Addr = netip.MustParseAddr("::ffff:203.0.113.9"); return r }(), true},
	} {
		d := challenged(t, func(cfg *guard.Config) {
			cfg.Challenge.When = guard.Risky
			cfg.Challenge.Risk.Networks = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
			cfg.Limits = []guard.Limit{{Name: "l", Key: guard.ByAddress, Rate: limit.Rate{Limit: 10, Period: time.Minute}}}
		})
		spend(9)(d)
		if c.before != nil {
			c.before(d)
		}
		if v := d.Check(t.Context(), c.request); v.Forward == c.asked {
			t.Errorf("%s: forward %v, told %q", name, v.Forward, d.meter.challenged)
		}
	}
}

func TestARouteForBrowsersWantsWhatBrowsersSend(t *testing.T) {
	t.Parallel()
	d := challenged(t, func(cfg *guard.Config) {
		cfg.Challenge.When, cfg.Challenge.Risk.Browser, cfg.Challenge.Risk.Threshold = guard.Risky, true, 25
	})
	for name, c := range map[string]struct {
		request guard.Request
		asked   bool
	}{
		"a browser":                {visit("user-agent", "Mozilla/5.0 (X11)", "accept-language", "en"), false},
		"no language":              {visit("user-agent", "Mozilla/5.0 (X11)"), true},
		"an odd name of a browser": {visit("user-agent", "browser", "accept-language", "en"), true},
	} {
		if v := d.Check(t.Context(), c.request); v.Forward == c.asked {
			t.Errorf("%s: forward %v", name, v.Forward)
		}
	}
}

// What a client is refused for makes the next challenge come sooner; what happens to honest clients does not.
func TestRefusalsAreRemembered(t *testing.T) {
	t.Parallel()
	d := challenged(t, nil)
	address := netip.MustParseAddr("192.0.2.1")
	for range 3 {
		d.Check(t.Context(), visit())
	}
	if n := d.fails.Count(address); n != 0 {
		t.Errorf("%d failures, and nothing but challenges to solve", n)
	}
	d.world.spend = challenge.ErrInvalid
	for range 3 {
		d.Check(t.Context(), visit("x-gatehouse-challenge", "x"))
	}
	if n := d.fails.Count(address); n != 3 {
		t.Errorf("%d failures, want 3", n)
	}
	tokens := challenged(t, func(c *guard.Config) {
		c.Identify, c.Issuers, c.Challenge.When = guard.Required, []guard.Issuer{{Issuer: "i"}}, guard.Never
	})
	refuses := func(reason string) {
		tokens.world.verify = func(string) (principal.Principal, error) {
			return principal.Principal{}, fault.New(fault.Unauthenticated, "x").Named(reason)
		}
	}
	refuses("token_invalid")
	tokens.Check(t.Context(), visit("authorization", "Bearer x"))
	refuses("token_expired")
	tokens.Check(t.Context(), visit("authorization", "Bearer x"))
	tokens.Check(t.Context(), visit())
	if n := tokens.fails.Count(address); n != 1 {
		t.Errorf("%d failures, want the invalid token alone", n)
	}
}

// A clearance that was had cheaply does not outlast a risk that rises.
func TestAClearanceEndsWhenTheRiskRises(t *testing.T) {
	t.Parallel()
	d := challenged(t, nil)
	mine := cookieOf(d.Check(t.Context(), visit("x-gatehouse-challenge", "solved")))
	if v := d.Check(t.Context(), visit("cookie", mine)); !v.Forward {
		t.Fatalf("status %d", v.Status)
	}
	for range 5 {
		d.fails.Add(netip.MustParseAddr("192.0.2.1"))
	}
	if v := d.Check(t.Context(), visit("cookie", mine)); v.Status != 403 {
		t.Errorf("forward %v", v.Forward)
	}
}

func navigation(further ...string) guard.Request {
	r := visit(append([]string{"accept", "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-mode", "navigate", "accept-language", "de-CH, en;q=0.5"}, further...)...)
	r.Method = "GET"
	return r
}

// S70: a browser that navigates gets a page without inline code, in its language, in nobody's frame.
func TestANavigationGetsAPage(t *testing.T) {
	t.Parallel()
	d := challenged(t, nil)
	v := d.Check(t.Context(), navigation())
	body := string(v.Body)
	for _, want := range []string{`<html lang="de">`, `role="status"`, `aria-live="polite"`, `data-gatehouse-challenge="&#34;solve this&#34;"`, `src="/.well-known/gatehouse/challenge.js?v=`, "<noscript>"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if v.Status != 403 || v.Header["Content-Type"] != "text/html; charset=utf-8" || v.Header["Cache-Control"] != "no-store" || v.Header["X-Content-Type-Options"] != "nosniff" {
		t.Errorf("status %d, headers %v", v.Status, v.Header)
	}
	policy := v.Header["Content-Security-Policy"]
	if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self';") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	for _, inline := range []string{"<style", " style=", " onclick=", "javascript:", "<script>"} {
		if strings.Contains(body, inline) {
			t.Errorf("%s in %s", inline, body)
		}
	}
	post, frame := navigation(), navigation("sec-fetch-mode", "cors")
	post.Method = "POST"
	for name, c := range map[string]struct {
		request guard.Request
		change  func(*guard.Config)
	}{
		"a program":    {visit(), nil},
		"a form":       {post, nil},
		"a script":     {frame, nil},
		"no page":      {navigation(), func(c *guard.Config) { c.Challenge.Page = false }},
		"no clearance": {navigation(), func(c *guard.Config) { c.Challenge.Clearance.TTL = 0 }},
		"no cookie":    {navigation(), func(c *guard.Config) { c.Challenge.Clearance.By = guard.InHeader }},
		"nobody's widget": {navigation(), func(c *guard.Config) {
			c.Challenge.Provider = guard.Provider{Name: challenge.Generic, URL: "u", Secret: "s"}
		}},
	} {
		if v := challenged(t, c.change).Check(t.Context(), c.request); problem(t, v).Code != "challenge_required" {
			t.Errorf("%s: %s", name, v.Body)
		}
	}
}

// A page of another site may send a solution and read a clearance, and no cache gives it another's answer.
func TestAPageOfAnotherSiteCanSolve(t *testing.T) {
	t.Parallel()
	d := challenged(t, func(c *guard.Config) {
		c.Challenge.Clearance.By = guard.InBoth
		c.CORS = guard.CORS{Origins: []string{"https://app.test"}, Methods: []string{"POST"}}
	})
	preflight := visit("origin", "https://app.test", "access-control-request-method", "POST")
	preflight.Method = "OPTIONS"
	if v := d.Check(t.Context(), preflight); v.Status != 204 || v.Header["Access-Control-Allow-Headers"] != "X-Gatehouse-Challenge, X-Gatehouse-Clearance" {
		t.Errorf("preflight: %d %v", v.Status, v.Header)
	}
	if v := d.Check(t.Context(), visit("origin", "https://app.test", "x-gatehouse-challenge", "solved")); !strings.Contains(v.Respond["Access-Control-Expose-Headers"], "X-Gatehouse-Clearance") {
		t.Errorf("solved: %v", v.Respond)
	}
	if v := d.Check(t.Context(), navigation("origin", "https://app.test")); v.Header["Vary"] != "Accept, Accept-Language, Sec-Fetch-Mode, Origin" {
		t.Errorf("Vary %q", v.Header["Vary"])
	}
}

// The page takes the clearance alone: the upstream is not asked twice.
func TestThePageTakesTheClearanceAlone(t *testing.T) {
	t.Parallel()
	d := challenged(t, nil)
	r := visit("x-gatehouse-challenge", "solved", "x-gatehouse-clearance-only", "true")
	r.Query = "from=mail"
	v := d.Check(t.Context(), r)
	if v.Forward || !v.Served || v.Status != 303 || v.Header["Location"] != "/login?from=mail" || cookieOf(v) == "" || v.Header["X-Gatehouse-Decision"] != "d-edge" || !v.Decision.Allowed {
		t.Errorf("verdict %+v", v)
	}
	d.world.spend = challenge.ErrInvalid
	if v := d.Check(t.Context(), visit("x-gatehouse-challenge", "x", "x-gatehouse-clearance-only", "true")); v.Status != 403 || v.Served {
		t.Errorf("unsolved: status %d", v.Status)
	}
}

func TestTheScriptIsServedOnEveryGuardedRoute(t *testing.T) {
	t.Parallel()
	g := build(t, calm(), nil) // it wants a token
	get := func(method, path string) guard.Verdict {
		return g.Check(t.Context(), request(func(r *guard.Request) { r.Method, r.Path, r.Header = method, path, map[string][]string{} }))
	}
	for path, kind := range map[string]string{"/.well-known/gatehouse/challenge.js": "text/javascript", "/.well-known/gatehouse/challenge.css": "text/css"} {
		v := get("GET", path)
		if !v.Served || v.Status != 200 || !strings.HasPrefix(v.Header["Content-Type"], kind) || len(v.Body) == 0 || v.Header["X-Content-Type-Options"] != "nosniff" {
			t.Errorf("%s: %d %v", path, v.Status, v.Header)
		}
		if v := get("HEAD", path); !v.Served || len(v.Body) > 0 {
			t.Errorf("HEAD %s: %d bytes", path, len(v.Body))
		}
	}
	for _, c := range [][2]string{{"POST", "/.well-known/gatehouse/challenge.js"}, {"GET", "/.well-known/gatehouse/other"}, {"GET", "/.well-known/gatehouse/../x"}, {"GET", "/x/.well-known/gatehouse/challenge.js"}} {
		if v := get(c[0], c[1]); v.Served || v.Forward {
			t.Errorf("%s %s: served %v, forward %v", c[0], c[1], v.Served, v.Forward)
		}
	}
}

func TestAChallengeThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	for path, change := range map[string]func(*guard.Challenge){
		"challenge.when":                  func(c *guard.Challenge) { c.When = "sometimes" },
		"challenge.action":                func(c *guard.Challenge) { c.Action = "" },
		"challenge.clearance.ttl_seconds": func(c *guard.Challenge) { c.Clearance.TTL = -1 },
		"challenge.clearance.by":          func(c *guard.Challenge) { c.Clearance.By = "mail" },
		"challenge.provider.name":         func(c *guard.Challenge) { c.Provider.Name = "captcha" },
		"challenge.provider.when_away":    func(c *guard.Challenge) { c.Provider.WhenAway = "hope" },
		"challenge.provider.secret":       func(c *guard.Challenge) { c.Provider.Name = challenge.HCaptcha },
		"challenge.provider.site_key":     func(c *guard.Challenge) { c.Provider.Name = challenge.RecaptchaV2 },
		"challenge.provider.url":          func(c *guard.Challenge) { c.Provider.Name = challenge.Generic },
		"challenge.provider.hostnames[1]": func(c *guard.Challenge) {
			c.Provider = guard.Provider{Name: challenge.Generic, Hostnames: []string{"https://x"}}
		},
		"challenge.risk.threshold":         func(c *guard.Challenge) { c.Risk.Threshold = 0 },
		"challenge.risk.failures":          func(c *guard.Challenge) { c.Risk.Failures = 0 },
		"challenge.risk.weights.client":    func(c *guard.Challenge) { c.Risk.Weights.Client = 101 },
		"challenge.risk.threshold: no req": func(c *guard.Challenge) { c.Risk.Weights = guard.Weights{Network: 100, Rate: 100} },
	} {
		cfg := guard.Config{Identify: guard.None, RedisURL: "redis://r", Challenge: guard.Challenge{
			When: guard.Risky, Action: "a", Risk: guard.Risk{Threshold: 50, Failures: 5, Weights: guard.Weights{Failures: 60}},
		}}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg.Challenge)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "config."+path) {
			t.Errorf("no %q in: %v", path, err)
		}
	}
	for provider, action := range map[challenge.Provider]string{challenge.Turnstile: "a/b", challenge.RecaptchaV3: "a-b"} {
		cfg := guard.Config{Identify: guard.None, RedisURL: "redis://r", Challenge: guard.Challenge{
			When: guard.Always, Action: action, Provider: guard.Provider{Name: provider, Secret: "s", SiteKey: "k"},
		}}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "config.challenge.action") {
			t.Errorf("%s takes %q: %v", provider, action, err)
		}
	}
}
