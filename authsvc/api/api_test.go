package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/api"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// paths are all that there is, with their methods.
func paths() map[string]string {
	return map[string]string{
		"/auth/register": "POST", "/auth/verify-email": "POST", "/auth/login": "POST", "/auth/refresh": "POST", "/auth/logout": "POST",
		"/auth/me": "GET", "/user/me": "GET PATCH", "/.well-known/jwks.json": "GET", "/auth/.well-known/jwks.json": "GET",
		"/.well-known/openid-configuration": "GET", "/healthz": "GET", "/readyz": "GET",
	}
}

// S28: nothing changes by GET, and a method that a path does not know is told which it does.
func TestAPathKnowsItsMethods(t *testing.T) {
	t.Parallel()
	s := newServer(t, dbtest.SQLite(t))
	for path, known := range paths() {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
			if slices.Contains(strings.Fields(known), method) {
				continue
			}
			a := s.send(t, method, path, "")
			wantProblem(t, method+" "+path, a, http.StatusMethodNotAllowed, "method_not_allowed")
			for _, m := range strings.Fields(known) {
				if !strings.Contains(a.Header.Get("Allow"), m) {
					t.Errorf("%s %s: Allow is %q", method, path, a.Header.Get("Allow"))
				}
			}
		}
	}
	for _, path := range []string{
		"/", "/auth", "/auth/", "/auth/login/", "/auth/Login", "/auth/" + canary, "/user", "/user/you", "/user/me/x", "/openapi.json", "/openapi.yaml", "/docs", "/schemas/LoginInputBody.json",
		"/metrics", "/debug/pprof/", "/admin", "/.well-known/", "/.env",
	} {
		a := s.send(t, http.MethodGet, path, "")
		wantProblem(t, path, a, http.StatusNotFound, "not_found")
		if strings.Contains(a.Body, canary) {
			t.Errorf("%s: the path comes back: %s", path, a.Body)
		}
	}
}

// S29: nobody keeps a token, an account or a refusal; what is public may be kept for five minutes.
func TestOnlyWhatIsPublicMayBeKept(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		g := s.join(t)
		if g.TokenType != "Bearer" || g.ExpiresIn != 300 {
			t.Errorf("a token of type %q for %d s", g.TokenType, g.ExpiresIn)
		}
		bearer := []string{"Authorization", "Bearer " + g.AccessToken}
		registered := s.post(t, "/auth/register", fields{"email": "new@x.test", "password": right})
		known := s.post(t, "/auth/register", fields{"email": ada, "password": right})
		for what, c := range map[string]struct {
			a              answer
			status         int
			media, caching string
		}{
			"login":            {s.post(t, "/auth/login", fields{"email": ada, "password": right}), 200, "application/json", "no-store"},
			"refresh":          {s.post(t, "/auth/refresh", fields{"refresh_token": g.RefreshToken}), 200, "application/json", "no-store"},
			"register":         {registered, 202, "application/json", "no-store"},
			"a known address":  {known, 202, "application/json", "no-store"},
			"verify":           {s.post(t, "/auth/verify-email", fields{"email": "new@x.test", "code": s.code(t)}), 204, "", "no-store"},
			"the account":      {s.send(t, "GET", "/auth/me", "", bearer...), 200, "application/json", "no-store"},
			"the profile":      {s.send(t, "GET", "/user/me", "", bearer...), 200, "application/json", "no-store"},
			"a patch":          {s.send(t, "PATCH", "/user/me", `{}`, append(bearer, "If-Match", "*", "Content-Type", "application/json")...), 200, "application/json", "no-store"},
			"the keys":         {s.send(t, "GET", "/auth/.well-known/jwks.json", ""), 200, "application/jwk-set+json", "public, max-age=300"},
			"the keys, nearer": {s.send(t, "GET", "/.well-known/jwks.json", ""), 200, "application/jwk-set+json", "public, max-age=300"},
			"the issuer":       {s.send(t, "GET", "/.well-known/openid-configuration", ""), 200, "application/json", "public, max-age=300"},
			"health":           {s.send(t, "GET", "/healthz", ""), 200, "application/json", "no-store"},
			"readiness":        {s.send(t, "GET", "/readyz", ""), 200, "application/json", "no-store"},
			"log-out":          {s.send(t, "POST", "/auth/logout", "", bearer...), 204, "", "no-store"},
		} {
			if c.a.Status != c.status {
				t.Errorf("%s: %d %s", what, c.a.Status, c.a.Body)
			}
			wantHeaders(t, what, c.a, c.media, c.caching)
			if cleared := c.a.Header.Get("Clear-Site-Data") != ""; cleared != (what == "log-out") {
				t.Errorf("%s: Clear-Site-Data is %q", what, c.a.Header.Get("Clear-Site-Data"))
			}
			if c.a.Header.Get("Set-Cookie") != "" || c.a.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %v", what, c.a.Header)
			}
		}
		if registered.Body != known.Body { // S12
			t.Errorf("a new address is answered %s, a known one %s", registered.Body, known.Body)
		}
	})
}

// What is public holds nothing of a private key.
func TestTheKeySetIsPublic(t *testing.T) {
	t.Parallel()
	s := newServer(t, dbtest.SQLite(t))
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(s.send(t, "GET", "/.well-known/jwks.json", "").Body), &set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("%d keys, %v", len(set.Keys), err)
	}
	for _, k := range set.Keys {
		same := slices.Sorted(maps.Keys(k))
		if !slices.Equal(same, []string{"alg", "e", "kid", "kty", "n", "use"}) {
			t.Errorf("a key with members %v", same)
		}
	}
}

// S25, S30, S35: without a token that is good here and now the answer is 401 with a challenge, and the token comes back
// nowhere.
func TestWithoutAGoodTokenNobodyIsAnswered(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		g := s.join(t)
		part := strings.Split(g.AccessToken, ".")
		none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`))
		calls := map[string]func(headers ...string) answer{
			"/auth/me":     func(h ...string) answer { return s.send(t, "GET", "/auth/me", "", h...) },
			"/auth/logout": func(h ...string) answer { return s.send(t, "POST", "/auth/logout", "", h...) },
			"/user/me":     func(h ...string) answer { return s.send(t, "GET", "/user/me", "", h...) },
			"patch": func(h ...string) answer {
				return s.send(t, "PATCH", "/user/me", `{"name":"`+canary+`"}`, append(h, "If-Match", "*", "Content-Type", "application/json")...)
			},
		}
		refused := func(what, code string, headers ...string) {
			t.Helper()
			for path, call := range calls {
				a := call(headers...)
				wantProblem(t, path+" "+what, a, http.StatusUnauthorized, code)
				s.wantNoCanary(t, path+" "+what, a, part[1], part[2])
			}
		}
		for what, header := range map[string]string{
			"empty": "", "the scheme alone": "Bearer", "the scheme and a space": "Bearer ", "no scheme": g.AccessToken, "Basic": "Basic " + g.AccessToken, "two spaces alone": "Bearer   ",
			"no space": "Bearer" + g.AccessToken, "a comma": "Bearer,", "another scheme": "DPoP " + g.AccessToken,
		} {
			refused(what, "token_missing", "Authorization", header)
		}
		refused("no header", "token_missing")
		refused("in the query's place", "token_missing", "X-Access-Token", g.AccessToken)
		for what, token := range map[string]string{
			"a word": canary, "alg none": none + "." + part[1] + ".", "no signature": part[0] + "." + part[1] + ".", "two parts": part[0] + "." + part[1],
			"another signature": part[0] + "." + part[1] + "." + base64.RawURLEncoding.EncodeToString([]byte(canary)), "the refresh token": g.RefreshToken,
			"another claim": part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"`+canary+`"}`)) + "." + part[2], "two tokens": g.AccessToken + " " + g.AccessToken,
			"8 KB": strings.Repeat("x", 8<<10),
		} {
			refused(what, "token_invalid", "Authorization", "Bearer "+token)
		}
		s.at(noon().Add(6 * time.Minute))
		refused("expired", "token_expired", "Authorization", "Bearer "+g.AccessToken)
		s.at(noon())
		if a := calls["/auth/me"]("Authorization", "bearer "+g.AccessToken); a.Status != 200 { // a scheme has no case
			t.Errorf("%d %s", a.Status, a.Body)
		}
		if a := calls["/auth/logout"]("Authorization", "Bearer "+g.AccessToken); a.Status != 204 {
			t.Errorf("%d %s", a.Status, a.Body)
		}
		refused("after the log-out", "session_revoked", "Authorization", "Bearer "+g.AccessToken)
	})
}

// The refusals of the flows have their status and code, and a wrong password is no different from a wrong address (S12).
func TestARefusalHasItsCode(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		g := s.join(t)
		s.post(t, "/auth/register", fields{"email": "new@x.test", "password": right})
		unknown := s.post(t, "/auth/login", fields{"email": canary + "@x.test", "password": right})
		known := s.post(t, "/auth/login", fields{"email": ada, "password": canary + canary})
		if unknown.Body != known.Body {
			t.Errorf("an unknown address is answered %s, a known one %s", unknown.Body, known.Body)
		}
		for what, c := range map[string]struct {
			a      answer
			status int
			code   string
		}{
			"unknown":           {unknown, 401, "invalid_credentials"},
			"wrong password":    {known, 401, "invalid_credentials"},
			"no address":        {s.post(t, "/auth/login", fields{"email": canary, "password": canary}), 401, "invalid_credentials"},
			"unproved":          {s.post(t, "/auth/login", fields{"email": "new@x.test", "password": right}), 403, "email_not_verified"},
			"short password":    {s.post(t, "/auth/register", fields{"email": ada, "password": canary}), 400, "password_too_short"},
			"bytes beyond 1024": {s.post(t, "/auth/register", fields{"email": ada, "password": canary + strings.Repeat("ż", 600)}), 400, "password_too_long"},
			"a bad address":     {s.post(t, "/auth/register", fields{"email": canary, "password": right}), 400, "email_invalid"},
			"a forged header":   {s.post(t, "/auth/register", fields{"email": "a@x.test\r\nBcc: " + canary + "@x.test", "password": right}), 400, "email_invalid"},
			"a wrong code":      {s.post(t, "/auth/verify-email", fields{"email": "new@x.test", "code": canary}), 400, "code_invalid"},
			"nobody's code":     {s.post(t, "/auth/verify-email", fields{"email": canary + "@x.test", "code": "123456"}), 400, "code_invalid"},
			"a bad token":       {s.post(t, "/auth/refresh", fields{"refresh_token": canary}), 401, "refresh_token_invalid"},
			"an access token":   {s.post(t, "/auth/refresh", fields{"refresh_token": g.AccessToken[:500]}), 401, "refresh_token_invalid"},
		} {
			wantProblem(t, what, c.a, c.status, c.code)
			s.wantNoCanary(t, what, c.a, right)
		}
	})
}

// S69: a part that panics or fails costs its caller an answer of 500 or 503, the log the cause, and nobody else anything.
func TestAFailureOfOursIsAProblemAndALine(t *testing.T) {
	t.Parallel()
	const cause = "dsn with a password"
	for name, c := range map[string]struct {
		authenticate func(context.Context, string) (principal.Principal, error)
		status       int
		code         string
		logged       string
	}{
		"a panic": {func(context.Context, string) (principal.Principal, error) { panic(cause) }, 500, "internal", "handler panicked"},
		"a panic of the run time": {func(context.Context, string) (principal.Principal, error) {
			return principal.Principal{Subject: strings.Split(trace, "/")[1]}, nil
		}, 500, "internal", "handler panicked"},
		"an error": {func(context.Context, string) (principal.Principal, error) {
			return principal.Principal{}, errors.New(cause)
		}, 500, "internal", cause},
		"a fault of ours": {func(context.Context, string) (principal.Principal, error) {
			return principal.Principal{}, fault.New(fault.Internal, cause)
		}, 500, "internal", cause},
		"something that is away": {func(context.Context, string) (principal.Principal, error) {
			return principal.Principal{}, fault.New(fault.Unavailable, "Later.").Because(errors.New(cause))
		}, 503, "unavailable", cause},
		"a caller that is not known": {func(context.Context, string) (principal.Principal, error) {
			return principal.Principal{}, account.ErrNotFound
		}, 404, "user_not_found", "request failed"},
		"nobody, without being a 401": {func(context.Context, string) (principal.Principal, error) { return principal.Principal{}, nil }, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, dbtest.SQLite(t), func(o *api.Options) {
				o.Authenticate = c.authenticate
				o.KeySet = func(ctx context.Context) ([]byte, error) {
					_, err := c.authenticate(ctx, "")
					return nil, err
				}
			})
			for _, path := range []string{"/auth/me", "/user/me", "/.well-known/jwks.json"} {
				a := s.send(t, "GET", path, "", "Authorization", "Bearer "+canary)
				if c.status == 0 {
					if path != "/.well-known/jwks.json" && a.Status == 200 {
						t.Errorf("%s: nobody is answered %s", path, a.Body)
					}
					continue
				}
				wantProblem(t, path, a, c.status, c.code)
				s.wantNoCanary(t, path, a)
				if strings.Contains(a.Body, cause) || strings.Contains(a.Body, "goroutine") {
					t.Errorf("%s: the cause is told: %s", path, a.Body)
				}
				if log := s.log.String(); !strings.Contains(log, c.logged) || !strings.Contains(log, trace) {
					t.Errorf("%s: the log has not %q of this trace: %s", path, c.logged, log)
				}
			}
			if a := s.send(t, "GET", "/healthz", ""); a.Status != 200 {
				t.Errorf("afterwards: %d", a.Status)
			}
		})
	}
}

// A role that a process does not serve is not there.
func TestARoleThatIsNotServedIsNotThere(t *testing.T) {
	t.Parallel()
	noAuth := newServer(t, dbtest.SQLite(t), func(o *api.Options) { o.Logins = nil })
	noProfile := newServer(t, dbtest.SQLite(t), func(o *api.Options) { o.Profiles = nil })
	for path, methods := range paths() {
		method := strings.Fields(methods)[0]
		ofAuth, ofProfile := strings.HasPrefix(path, "/auth/") || strings.HasPrefix(path, "/.well-known/"), strings.HasPrefix(path, "/user/")
		if a := noAuth.send(t, method, path, ""); (a.Status == 404) != ofAuth {
			t.Errorf("without auth %s is %d", path, a.Status)
		}
		if a := noProfile.send(t, method, path, ""); (a.Status == 404) != ofProfile {
			t.Errorf("without profile %s is %d", path, a.Status)
		}
	}
}
