package challenge_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

// provider stands in for a CAPTCHA provider: it answers what the test says, and keeps what it was asked.
type provider struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	asked  chan url.Values
}

func stand(t testing.TB) *provider {
	t.Helper()
	p := &provider{asked: make(chan url.Values, 1000)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s: %v", r.Method, err)
		}
		p.asked <- r.PostForm
		(*p.answer.Load())(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) does(h http.HandlerFunc) { p.answer.Store(&h) }

func (p *provider) says(status int, body string) {
	p.does(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	})
}

const solved = `{"success":true,"hostname":"example.org","action":"register","score":0.9}`

func hosted(t testing.TB, p *provider, redisURL string, change func(*challenge.HostedOptions)) *challenge.Hosted {
	t.Helper()
	client, err := redisx.Open(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	o := challenge.HostedOptions{
		Provider: challenge.Turnstile, URL: p.URL, SiteKey: "site", Secret: "secret-canary", Hostnames: []string{"example.org", "www.example.org"},
		Timeout: 5 * time.Second, TTL: 5 * time.Minute, Redis: client, Now: time.Now,
	}
	if change != nil {
		change(&o)
	}
	h, err := challenge.NewHosted(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// S14: what the provider says is believed only about this site, this action, a good score and not too long ago.
func TestAProvidersYesMustBeAboutThisRequest(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(d time.Duration) string {
		return `{"success":true,"hostname":"example.org","action":"register","challenge_ts":"` + now.Add(d).UTC().Format(time.RFC3339) + `"}`
	}
	for name, c := range map[string]struct {
		provider challenge.Provider
		change   func(*challenge.HostedOptions)
		body     string
		passes   bool
	}{
		"turnstile":                      {challenge.Turnstile, nil, solved, true},
		"another of our hosts":           {challenge.Turnstile, nil, strings.Replace(solved, "example", "WWW.example", 1), true},
		"another host":                   {challenge.Turnstile, nil, strings.Replace(solved, "example", "evil", 1), false},
		"a host below ours":              {challenge.Turnstile, nil, strings.Replace(solved, "example", "x.example", 1), false},
		"no host":                        {challenge.Turnstile, nil, `{"success":true,"action":"register"}`, false},
		"another action":                 {challenge.Turnstile, nil, strings.Replace(solved, "register", "login", 1), false},
		"turnstile without an action":    {challenge.Turnstile, nil, `{"success":true,"hostname":"example.org"}`, false},
		"hcaptcha names no action":       {challenge.HCaptcha, nil, `{"success":true,"hostname":"example.org","challenge_ts":"` + now.UTC().Format("2006-01-02T15:04:05.000000Z") + `"}`, true},
		"recaptcha v2 names no action":   {challenge.RecaptchaV2, nil, `{"success":true,"hostname":"example.org"}`, true},
		"recaptcha v3":                   {challenge.RecaptchaV3, func(o *challenge.HostedOptions) { o.MinScore = 0.5 }, solved, true},
		"recaptcha v3, low score":        {challenge.RecaptchaV3, func(o *challenge.HostedOptions) { o.MinScore = 0.95 }, solved, false},
		"recaptcha v3, no score":         {challenge.RecaptchaV3, func(o *challenge.HostedOptions) { o.MinScore = 0.1 }, strings.Replace(solved, `,"score":0.9`, "", 1), false},
		"recaptcha v3, another action":   {challenge.RecaptchaV3, func(o *challenge.HostedOptions) { o.MinScore = 0.1 }, strings.Replace(solved, "register", "login", 1), false},
		"generic, nothing but yes":       {challenge.Generic, func(o *challenge.HostedOptions) { o.Hostnames = nil }, `{"success":true}`, true},
		"generic, another action":        {challenge.Generic, func(o *challenge.HostedOptions) { o.Hostnames = nil }, `{"success":true,"action":"login"}`, false},
		"generic, host wanted, not told": {challenge.Generic, nil, `{"success":true}`, false},
		"just now":                       {challenge.Turnstile, nil, at(-time.Minute), true},
		"too long ago":                   {challenge.Turnstile, nil, at(-6 * time.Minute), false},
		"in the future":                  {challenge.Turnstile, nil, at(5 * time.Minute), false},
		"at no readable time":            {challenge.Turnstile, nil, `{"success":true,"hostname":"example.org","action":"register","challenge_ts":"yesterday"}`, false},
		"no":                             {challenge.Turnstile, nil, strings.Replace(solved, "true", "false", 1), false},
		"no, in so many words":           {challenge.Turnstile, nil, `{"success":false,"error-codes":["timeout-or-duplicate"]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stand(t)
			p.says(200, c.body)
			h := hosted(t, p, testenv.Redis(t), func(o *challenge.HostedOptions) {
				if o.Provider = c.provider; c.change != nil {
					c.change(o)
				}
			})
			switch err := h.Spend(t.Context(), "token", bind, ""); {
			case c.passes && err != nil:
				t.Error(err)
			case !c.passes && !errors.Is(err, challenge.ErrInvalid):
				t.Errorf("error %v, want challenge_invalid", err)
			}
		})
	}
}

func TestAProviderIsToldWhatItNeedsAndNoMore(t *testing.T) {
	t.Parallel()
	p := stand(t)
	p.says(200, solved)
	url := testenv.Redis(t)
	if err := hosted(t, p, url, nil).Spend(t.Context(), "token", bind, ""); err != nil {
		t.Fatal(err)
	}
	if got := (<-p.asked).Encode(); got != "response=token&secret=secret-canary" {
		t.Errorf("asked %s", got)
	}
	h := hosted(t, p, url, func(o *challenge.HostedOptions) { o.Provider, o.SendAddress = challenge.HCaptcha, true })
	if err := h.Spend(t.Context(), "another", bind, ""); err != nil {
		t.Fatal(err)
	}
	if got := (<-p.asked).Encode(); got != "remoteip=192.0.2.7&response=another&secret=secret-canary&sitekey=site" {
		t.Errorf("asked %s", got)
	}
	issued, err := h.Issue(t.Context(), bind, 0)
	if want := (challenge.HostedChallenge{Provider: "hcaptcha", SiteKey: "site", Action: "register"}); err != nil || issued != want {
		t.Errorf("issued %+v, error %v", issued, err)
	}
}

// S14, S56, S64: a provider that is slow, endless, elsewhere or out of its mind has not said yes. What a client's own token
// could bring about is a refusal; the rest is an absence, about which the route decides.
func TestAProviderThatDoesNotAnswerAsOneDoesHasNotSaidYes(t *testing.T) {
	t.Parallel()
	elsewhere := stand(t)
	elsewhere.says(200, solved)
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
		}
	}
	for name, c := range map[string]struct {
		does http.HandlerFunc
		want error
	}{
		"slow": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, challenge.ErrAway},
		"slow in its body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, `{"succ`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, challenge.ErrAway},
		"huge": {answer(200, solved[:len(solved)-1]+`,"x":"`+strings.Repeat("x", 17<<10)+`"}`), challenge.ErrAway},
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, challenge.ErrAway},
		"hangs up":                  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, challenge.ErrAway},
		"broken":                    {answer(500, solved), challenge.ErrAway},
		"unavailable":               {answer(503, "later"), challenge.ErrAway},
		"asked too often":           {answer(429, "{}"), challenge.ErrAway},
		"nothing":                   {answer(200, ""), challenge.ErrAway},
		"no content":                {answer(204, ""), challenge.ErrAway},
		"a page":                    {answer(200, "<html>success</html>"), challenge.ErrAway},
		"another shape":             {answer(200, `[{"success":true}]`), challenge.ErrAway},
		"success in words":          {answer(200, `{"success":"true"}`), challenge.ErrAway},
		"no success":                {answer(200, `{"hostname":"example.org"}`), challenge.ErrAway},
		"two documents":             {answer(200, solved+solved), challenge.ErrAway},
		"its own failure":           {answer(200, `{"success":false,"error-codes":["internal-error"]}`), challenge.ErrAway},
		"a bad request in JSON":     {answer(400, `{"success":false,"error-codes":["invalid-input-response"]}`), challenge.ErrInvalid},
		"a bad request in words":    {answer(400, "no"), challenge.ErrInvalid},
		"a firewall's word":         {answer(403, "blocked"), challenge.ErrInvalid},
		"yes, but as a bad request": {answer(400, solved), challenge.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stand(t)
			p.does(c.does)
			h := hosted(t, p, testenv.Redis(t), func(o *challenge.HostedOptions) {
				if strings.HasPrefix(name, "slow") {
					o.Timeout = 50 * time.Millisecond
				}
			})
			err := h.Spend(t.Context(), "token-canary", bind, "")
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if text := fmt.Sprintf("%+v", err); strings.Contains(text, "canary") || strings.Contains(text, "blocked") { // S67
				t.Errorf("error tells: %s", text)
			}
		})
	}
	if len(elsewhere.asked) > 0 {
		t.Error("a redirect was followed")
	}
}

// S14, S72: of many who send the same token at once, to two processes, one passes, even if the provider says yes to all.
func TestAProvidersTokenIsSpentOnce(t *testing.T) {
	t.Parallel()
	p := stand(t)
	p.says(200, solved)
	url := testenv.Redis(t)
	edges := []*challenge.Hosted{hosted(t, p, url, nil), hosted(t, p, url, nil)}
	var passed atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			switch err := edges[i%2].Spend(t.Context(), "token", bind, ""); {
			case err == nil:
				passed.Add(1)
			case !errors.Is(err, challenge.ErrInvalid):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := passed.Load(); n != 1 {
		t.Errorf("%d passed, want 1", n)
	}
}

// Kong runs an event again when its connection broke: the same request has not spent twice, another has.
func TestTheSameRequestMaySpendTwice(t *testing.T) {
	t.Parallel()
	p := stand(t)
	p.says(200, solved)
	url := testenv.Redis(t)
	c, h := open(t, url, time.Now), hosted(t, p, url, nil)
	work := solve(t, c, bind)
	for name, spend := range map[string]func(request string) error{
		"proof of work": func(request string) error { return c.Spend(t.Context(), work, bind, request) },
		"hosted":        func(request string) error { return h.Spend(t.Context(), "token", bind, request) },
	} {
		for _, request := range []string{"r1", "r1"} {
			if err := spend(request); err != nil {
				t.Errorf("%s, %s: %v", name, request, err)
			}
		}
		for _, request := range []string{"r2", ""} {
			if err := spend(request); !errors.Is(err, challenge.ErrInvalid) {
				t.Errorf("%s, %s: %v", name, request, err)
			}
		}
	}
	if n := len(p.asked); n != 3 {
		t.Errorf("the provider was asked %d times, want 3: not for the request that came again", n)
	}
}

// S56: without Redis nobody can say whether a good token was used; a bad one is refused all the same.
func TestWithoutRedisABadTokenIsStillBad(t *testing.T) {
	t.Parallel()
	p := stand(t)
	h := hosted(t, p, "redis://127.0.0.1:1", nil)
	for _, request := range []string{"", "r1"} {
		p.says(200, `{"success":false}`)
		if err := h.Spend(t.Context(), "token", bind, request); !errors.Is(err, challenge.ErrInvalid) {
			t.Errorf("bad: %v", err)
		}
		p.says(200, solved)
		if err := h.Spend(t.Context(), "token", bind, request); !errors.Is(err, challenge.ErrUnavailable) {
			t.Errorf("good: %v", err)
		}
	}
}

// Who floods us with tokens must not be taken for a provider that is away: a route may let those pass.
func TestAFloodIsNotAnAbsence(t *testing.T) {
	t.Parallel()
	p := stand(t)
	entered, held := make(chan struct{}, 1), make(chan struct{})
	p.does(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-held
		_, _ = fmt.Fprint(w, solved)
	})
	h := hosted(t, p, testenv.Redis(t), func(o *challenge.HostedOptions) { o.AtOnce = 1 })
	first := make(chan error)
	go func() { first <- h.Spend(t.Context(), "one", bind, "") }()
	<-entered
	err := h.Spend(t.Context(), "two", bind, "")
	if errors.Is(err, challenge.ErrAway) || fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("error %v, want challenge_busy", err)
	}
	close(held)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoTokenIsNotAskedAbout(t *testing.T) {
	t.Parallel()
	p := stand(t)
	h := hosted(t, p, "redis://127.0.0.1:1", nil)
	for _, token := range []string{"", strings.Repeat("x", 9<<10), "a b", "a\nb", "ä"} {
		if err := h.Spend(t.Context(), token, bind, ""); !errors.Is(err, challenge.ErrInvalid) {
			t.Errorf("%.9q: %v", token, err)
		}
	}
	if len(p.asked) > 0 {
		t.Error("the provider was asked")
	}
}

// S64: a siteverify URL goes to https, or where the configuration says in so many words.
func TestHostedOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for path, change := range map[string]func(*challenge.HostedOptions){
		"provider.url: is needed":    func(o *challenge.HostedOptions) { o.Provider, o.URL = challenge.Generic, "" },
		"provider.url: plain http":   func(o *challenge.HostedOptions) { o.URL = "http://verify.test/" },
		"provider.url: not":          func(o *challenge.HostedOptions) { o.URL = "file:///etc/passwd" },
		"provider.secret":            func(o *challenge.HostedOptions) { o.Secret = "" },
		"provider.hostnames":         func(o *challenge.HostedOptions) { o.Hostnames = nil },
		"provider.min_score_percent": func(o *challenge.HostedOptions) { o.Provider = challenge.RecaptchaV3 },
		"provider.timeout_ms":        func(o *challenge.HostedOptions) { o.Timeout = 0 },
		"ttl_seconds":                func(o *challenge.HostedOptions) { o.TTL = 0 },
	} {
		o := challenge.HostedOptions{
			Provider: challenge.Turnstile, Secret: "s", Hostnames: []string{"h"}, Timeout: time.Second, TTL: time.Minute, Now: time.Now,
		}
		change(&o)
		if _, err := challenge.NewHosted(o); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want %s", err, path)
		}
	}
	for _, p := range []challenge.Provider{challenge.Turnstile, challenge.HCaptcha, challenge.RecaptchaV2, challenge.RecaptchaV3} {
		if !strings.HasPrefix(p.Siteverify(), "https://") || !p.Hosted() {
			t.Errorf("%s: %q", p, p.Siteverify())
		}
	}
}

// FuzzVerdict: whatever a provider answers, it is read or refused, and nothing but success passes.
func FuzzVerdict(f *testing.F) {
	for _, seed := range []string{solved, `{"success":true}`, `{"success":1}`, `[]`, `{"success":false,"error-codes":[1]}`, "\x00"} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := challenge.ReadVerdict(status, body)
		if err == nil && (status != 200 || !strings.Contains(strings.ToLower(string(body)), "true")) {
			t.Errorf("%d %q passed", status, body)
		}
		if err != nil && !errors.Is(err, challenge.ErrAway) && !errors.Is(err, challenge.ErrInvalid) {
			t.Errorf("%d %q: %v", status, body, err)
		}
	})
}
