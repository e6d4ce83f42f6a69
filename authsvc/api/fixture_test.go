package api_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/authsvc/api"
	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/authsvc/token/tokentest"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	issuer = "https://auth.example"
	ada    = "ada@x.test"
	right  = "correct horse battery staple"
	wrong  = "certainly not that password"
	trace  = "4bf92f3577b34da6a3ce929d0e0e4736"
)

// canary is in every bad value; no answer and no log may repeat it.
const canary = "canary-9f3b"

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// server is the interface on real parts, behind a real socket.
type server struct {
	URL    string
	logins *login.Service
	db     dbtest.DB
	log    *testenv.Output
	http   *http.Client

	mu  sync.Mutex
	now time.Time
}

// onBoth runs a test with PostgreSQL and with SQLite.
func onBoth(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	dbtest.OnBoth(t, func(t *testing.T, db dbtest.DB) { test(t, newServer(t, db)) })
}

func newServer(t *testing.T, db dbtest.DB, change ...func(*api.Options)) *server {
	t.Helper()
	client, err := redisx.Open(testenv.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s := &server{db: db, log: &testenv.Output{}, now: noon()}
	log := telemetry.Logger(s.log, slog.LevelDebug)
	root := []byte("thirty-two bytes of a root key..")
	c := app.Config{RootKey: telemetry.Secret(hexadecimal(root)), Issuer: issuer, Audience: "api", AccessTTL: 5 * time.Minute}
	if s.logins, _, err = app.Accounts(c, app.Parts{DB: db.DB, Redis: client, Now: s.clock, Log: log}); err != nil {
		t.Fatal(err)
	}
	box, err := seal.New(root)
	if err != nil {
		t.Fatal(err)
	}
	ring := token.New(token.Options{
		Store: db.Keys(), Box: box, Issuer: issuer, Audience: "api", TTL: 5 * time.Minute, Now: s.clock, NewID: uuid.NewString,
		Generate: tokentest.Keys(),
	})
	s.logins.Tokens = ring
	o := api.Options{
		Logins: s.logins, Profiles: &profile.Service{Store: db.Profiles(), Now: s.clock}, Authenticate: s.logins.Authenticate,
		KeySet: ring.JWKS, Issuer: issuer, Log: log, Checks: map[string]web.Check{"database": db.Ready},
	}
	for _, fn := range change {
		fn(&o)
	}
	ts := httptest.NewServer(api.New(o))
	t.Cleanup(ts.Close)
	s.URL, s.http = ts.URL, ts.Client()
	return s
}

func hexadecimal(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func (s *server) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *server) at(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// answer is a response, read.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// send sends a request of the trace above. Headers come in pairs; a body is sent as it is.
func (s *server) send(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	return s.sendFrom(t, method, path, strings.NewReader(body), headers...)
}

func (s *server) sendFrom(t *testing.T, method, path string, body io.Reader, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := s.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(read)}
}

// post sends JSON.
func (s *server) post(t *testing.T, path string, v any, headers ...string) answer {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return s.send(t, http.MethodPost, path, string(body), append(headers, "Content-Type", "application/json")...)
}

type fields map[string]any

// wantProblem fails unless a is a whole problem document (RFC 9457) of this status and code that nobody may keep.
func wantProblem(t *testing.T, what string, a answer, status int, code string) {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal([]byte(a.Body), &p); err != nil {
		t.Errorf("%s: %d %.300q: %v", what, a.Status, a.Body, err)
		return
	}
	detail, _ := p["detail"].(string)
	if a.Status != status || p["status"] != float64(status) || p["code"] != code || p["title"] != http.StatusText(status) || detail == "" ||
		p["type"] != "https://gatehouse-auth.github.io/problems#"+code || p["trace_id"] != trace {
		t.Errorf("%s: want %d %s, got %d %.300s", what, status, code, a.Status, a.Body)
	}
	for name := range p {
		switch name {
		case "type", "title", "status", "detail", "code", "trace_id", "errors":
		default:
			t.Errorf("%s: the problem has a member %s", what, name)
		}
	}
	wantHeaders(t, what, a, "application/problem+json", "no-store")
	if challenged := a.Header.Get("WWW-Authenticate") == `Bearer realm="gatehouse"`; challenged != (status == http.StatusUnauthorized) {
		t.Errorf("%s: %d with WWW-Authenticate %q", what, status, a.Header.Get("WWW-Authenticate"))
	}
}

func wantHeaders(t *testing.T, what string, a answer, contentType, caching string) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": contentType, "Cache-Control": caching, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
	} {
		if got := a.Header.Values(name); len(got) > 1 || a.Header.Get(name) != want {
			t.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
}

// wantNoCanary fails if what was sent comes back, or is in the log.
func (s *server) wantNoCanary(t *testing.T, what string, a answer, secrets ...string) {
	t.Helper()
	var header strings.Builder
	if err := a.Header.Write(&header); err != nil {
		t.Fatal(err)
	}
	log := s.log.String()
	for _, secret := range append(secrets, canary) {
		if strings.Contains(a.Body, secret) || strings.Contains(header.String(), secret) {
			t.Errorf("%s: the answer tells %q: %.300s", what, secret, a.Body)
		}
		if strings.Contains(log, secret) {
			t.Errorf("%s: the log tells %q: %s", what, secret, log)
		}
	}
}

// grant is what a login answers.
type grant struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
	SessionID    string `json:"session_id"`
}

// join makes ada's account and logs in.
func (s *server) join(t *testing.T) grant {
	t.Helper()
	id, err := s.logins.Add(t.Context(), login.NewUser{Email: ada, Password: right, Roles: []string{"customer"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&profile.Service{Store: s.db.Profiles(), Now: s.clock}).Create(t.Context(), id, "Ada"); err != nil {
		t.Fatal(err)
	}
	return s.login(t)
}

func (s *server) login(t *testing.T) grant {
	t.Helper()
	a := s.post(t, "/auth/login", fields{"email": ada, "password": right})
	return granted(t, a)
}

func granted(t *testing.T, a answer) (g grant) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), &g); err != nil || a.Status != http.StatusOK {
		t.Fatalf("no grant: %d %.300s", a.Status, a.Body)
	}
	return g
}

// code answers the newest code that waits to be mailed.
func (s *server) code(t *testing.T) (code string) {
	t.Helper()
	for _, j := range s.db.Jobs(t) {
		if m, ok := j.Args.(job.Mail); ok && m.Template == job.VerificationCode {
			code = m.Data["code"]
		}
	}
	return code
}
