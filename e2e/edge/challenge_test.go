package edge_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	altcha "github.com/altcha-org/altcha-lib-go"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// oneRoute runs an edge over an upstream whose only route has these plugins, in YAML's flow style. It may not serve yet.
func oneRoute(t *testing.T, upstream http.HandlerFunc, plugins string, vault map[string]string) (base, status string) {
	t.Helper()
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	config := `
_format_version: "3.0"
upstreams: [{name: site, targets: [{target: "site:80", weight: 100}]}]
services:
  - name: site
    host: site
    port: 80
    routes:
      - name: login
        paths: ["/"]
        strip_path: false
        plugins: ` + plugins
	status = testenv.Spare(t)
	return gate(t, []byte(config), socket(t), status, map[string]string{"site:80": host(server)}, vault), status
}

// guardedSite runs an edge over one upstream whose only route has this challenge.
func guardedSite(t *testing.T, challenge string, vault map[string]string) (base string, reached *atomic.Int64) {
	t.Helper()
	reached = &atomic.Int64{}
	if vault == nil {
		vault = map[string]string{}
	}
	vault["secret"], vault["redis"] = "0123456789abcdef0123456789abcdef", testenv.Redis(t)
	base, _ = oneRoute(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) },
		`[{name: gatehouse, config: {identify: none, authorize: false, redis_url: "{vault://env/redis}", challenge: `+challenge+`}}]`, vault)
	await.That(t, "the edge serves", func() bool { return post(t, base, "/.well-known/gatehouse/challenge.js", nil).status != 500 })
	reached.Store(0)
	return base, reached
}

func post(t *testing.T, base, path string, header map[string]string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	for name, v := range header {
		req.Header.Set(name, v)
	}
	res, err := testhttp.Client.Do(req)
	if err != nil {
		return answer{status: 500}
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if body, err := io.ReadAll(res.Body); err == nil {
		_ = json.Unmarshal(body, &a.problem) // an answer of the upstream is none
	}
	return a
}

// worked does the work that the problem asks for.
func worked(t *testing.T, p web.ProblemDocument) (payload string, work int) {
	t.Helper()
	given, err := json.Marshal(p.Challenge)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Algorithm, Challenge, Salt, Signature string
		MaxNumber                             int `json:"maxnumber"`
	}
	if err := json.Unmarshal(given, &c); err != nil {
		t.Fatal(err)
	}
	s, err := altcha.SolveChallenge(c.Challenge, c.Salt, altcha.SHA256, c.MaxNumber, 0, nil)
	if err != nil || s == nil {
		t.Fatalf("challenge %s: solution %v, error %v", given, s, err)
	}
	solved, err := json.Marshal(altcha.Payload{Algorithm: c.Algorithm, Challenge: c.Challenge, Number: int64(s.Number), Salt: c.Salt, Signature: c.Signature})
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(solved), c.MaxNumber
}

// S14: a clearance, by cookie or header, spares a client further challenges, and nobody else.
func TestAClearanceSparesTheNextChallenge(t *testing.T) {
	t.Parallel()
	base, reached := guardedSite(t, `{when: always, action: login, secret: "{vault://env/secret}", max_number: 1000, clearance: {by: both}}`, nil)
	payload, _ := worked(t, post(t, base, "/login", nil).problem)
	a := post(t, base, "/login", map[string]string{"X-Gatehouse-Challenge": payload})
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	if a.status != 200 || cookie == "" || a.header.Get("X-Gatehouse-Clearance") == "" {
		t.Fatalf("solved: %d %v", a.status, a.header)
	}
	for name, h := range map[string]map[string]string{"cookie": {"Cookie": cookie}, "header": {"X-Gatehouse-Clearance": a.header.Get("X-Gatehouse-Clearance")}} {
		if got := post(t, base, "/login", h); got.status != 200 {
			t.Errorf("%s: %d %+v", name, got.status, got.problem)
		}
		h["User-Agent"] = "another"
		want(t, name+" of another user agent", post(t, base, "/login", h), 403, "challenge_required")
	}
	if n := reached.Load(); n != 3 {
		t.Errorf("%d requests reached the upstream, want 3", n)
	}
}

// S14, S61: a client whose solutions are wrong becomes risky; it must work, and work more, where others need not.
func TestRiskBringsAChallenge(t *testing.T) {
	t.Parallel()
	base, _ := guardedSite(t, `{when: risk, action: login, secret: "{vault://env/secret}", max_number: 1000, risk: {threshold: 25, failures: 4, max_number: 11000}}`, nil)
	if a := post(t, base, "/login", nil); a.status != 200 {
		t.Fatalf("calm: %d %+v", a.status, a.problem)
	}
	odd := map[string]string{"User-Agent": "", "X-Gatehouse-Challenge": "nonsense"}
	for range 4 {
		want(t, "an odd client", post(t, base, "/login", odd), 403, "challenge_invalid")
	}
	a := post(t, base, "/login", nil)
	want(t, "from a network that failed", a, 403, "challenge_required")
	payload, work := worked(t, a.problem)
	if work != 7000 { // 60 of 100
		t.Errorf("work %d, want 7000", work)
	}
	if a := post(t, base, "/login", map[string]string{"X-Gatehouse-Challenge": payload}); a.status != 200 {
		t.Errorf("solved: %d %+v", a.status, a.problem)
	}
}

// S14, S56: a provider is asked by the edge; away, it lets nothing pass unless the route says so.
func TestAHostedChallengeIsCheckedByItsProvider(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case away.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.FormValue("secret") == "provider-secret" && strings.HasPrefix(r.FormValue("response"), "good"):
			_, _ = io.WriteString(w, `{"success":true,"hostname":"www.example.org","action":"login"}`)
		default:
			_, _ = io.WriteString(w, `{"success":false,"error-codes":["invalid-input-response"]}`)
		}
	}))
	t.Cleanup(provider.Close)
	for _, when := range []string{"deny", "allow"} {
		base, _ := guardedSite(t, `{when: always, action: login, secret: "{vault://env/secret}", provider: {name: turnstile, site_key: k, secret: "{vault://env/provider}",
			url: "{vault://env/verify}", hostnames: [www.example.org], when_away: `+when+`}}`, map[string]string{"provider": "provider-secret", "verify": provider.URL})
		a := post(t, base, "/login", nil)
		want(t, "nothing solved", a, 403, "challenge_required")
		if got := fmt.Sprint(a.problem.Challenge); got != "map[action:login provider:turnstile site_key:k]" {
			t.Errorf("challenge %s", got)
		}
		solved := func(token string) answer {
			return post(t, base, "/login", map[string]string{"X-Gatehouse-Challenge": token})
		}
		if a := solved("good-" + when); a.status != 200 || a.header.Get("Set-Cookie") == "" {
			t.Errorf("solved: %d %v", a.status, a.header)
		}
		want(t, "spent", solved("good-"+when), 403, "challenge_invalid")
		want(t, "wrong", solved("bad"), 403, "challenge_invalid")
		away.Store(true)
		if when == "deny" {
			want(t, "away", solved("good-2"), 503, "challenge_provider_away")
		} else if a := solved("good-2"); a.status != 200 || a.header.Get("Set-Cookie") != "" {
			t.Errorf("away, and let pass: %d %v", a.status, a.header)
		}
		want(t, "away, nothing solved", post(t, base, "/login", nil), 403, "challenge_required")
		away.Store(false)
	}
}
