package login_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/password"
	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/authsvc/token/tokentest"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ada   = "ada@x.test"
	right = "correct horse battery staple"
	wrong = "certainly not that password"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// fixture is the flows on real parts. Its clock stands until it is set.
type fixture struct {
	*login.Service
	db     dbtest.DB
	hasher *password.Hasher
	hashed *atomic.Int32 // how many hashes have been computed
	log    *testenv.Output

	mu  sync.Mutex
	now time.Time
}

// onBoth runs a test with PostgreSQL and with SQLite.
func onBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	dbtest.OnBoth(t, func(t *testing.T, db dbtest.DB) { test(t, newFixture(t, db)) })
}

func newFixture(t *testing.T, db dbtest.DB) *fixture {
	t.Helper()
	client, err := redisx.Open(testenv.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	box, err := seal.New(bytes.Repeat([]byte{7}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{db: db, hashed: &atomic.Int32{}, log: &testenv.Output{}, now: noon()}
	id := func() string { return uuid.Must(uuid.NewV7()).String() }
	log := telemetry.Logger(f.log, slog.LevelDebug)
	f.hasher = password.New(password.Options{Pepper: []byte("a pepper of thirty-two bytes...."), Wait: time.Minute})
	f.Service = &login.Service{
		Accounts: db.Accounts(), Check: password.Check, Now: f.clock, NewID: id, Log: log,
		Passwords: counted{f.hasher, f.hashed},
		Codes:     account.Codes{Key: []byte("a key"), Now: f.clock},
		Sessions: &session.Service{
			Store: db.Sessions(), Box: box, TokenLife: 6 * time.Minute, Now: f.clock, NewID: id, Log: log,
			Publisher: publishing(func(ctx context.Context, r session.Revocation) error {
				return redisx.PublishRevocation(ctx, client, redisx.Revocation{Kind: r.Kind, Value: r.Value, ExpiresAt: r.ExpiresAt}, f.clock())
			}),
		},
		Tokens: token.New(token.Options{
			Store: db.Keys(), Box: box, Issuer: "https://auth.example", Audience: "api", TTL: 5 * time.Minute, Now: f.clock, NewID: id,
			Generate: tokentest.Keys(),
		}),
	}
	return f
}

type publishing func(context.Context, session.Revocation) error

func (p publishing) Publish(ctx context.Context, r session.Revocation) error { return p(ctx, r) }

// counted counts what a hasher computes; a call that is refused has computed nothing.
type counted struct {
	*password.Hasher
	n *atomic.Int32
}

func (c counted) count(err error) error {
	if err == nil {
		c.n.Add(1)
	}
	return err
}

func (c counted) Hash(ctx context.Context, plain string) (string, error) {
	s, err := c.Hasher.Hash(ctx, plain)
	return s, c.count(err)
}

func (c counted) Verify(ctx context.Context, stored, plain string) (bool, error) {
	ok, err := c.Hasher.Verify(ctx, stored, plain)
	return ok, c.count(err)
}

func (c counted) VerifyNobody(ctx context.Context, plain string) error {
	return c.count(c.Hasher.VerifyNobody(ctx, plain))
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) at(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
}

// add makes an account whose address is proved, and answers its id.
func (f *fixture) add(t *testing.T, email string, roles ...string) string {
	t.Helper()
	id, err := f.Add(t.Context(), login.NewUser{Email: email, Password: right, Roles: roles, Attributes: map[string]string{"department": "sales"}})
	must(t, err)
	return id
}

// register registers an address with the right password and answers the code that is mailed.
func (f *fixture) register(t *testing.T, email string) string {
	t.Helper()
	must(t, f.Register(t.Context(), email, right, "Ada"))
	return f.code(t)
}

// code answers the newest code that waits to be mailed.
func (f *fixture) code(t *testing.T) (code string) {
	t.Helper()
	for _, j := range f.db.Jobs(t) {
		if m, ok := j.Args.(job.Mail); ok && m.Template == job.VerificationCode {
			code = m.Data["code"]
		}
	}
	if len(code) != 6 {
		t.Fatalf("the mailed code has %d digits", len(code))
	}
	return code
}

// another is a code that differs from this one.
func another(code string) string {
	return string('0'+(code[0]-'0'+1)%10) + code[1:]
}

// login logs in with the right password.
func (f *fixture) login(t *testing.T, email string) login.Grant {
	t.Helper()
	g, err := f.Login(t.Context(), email, right)
	must(t, err)
	return g
}

// disable shuts an account, as nothing else can yet.
func (f *fixture) disable(t *testing.T, id string) {
	t.Helper()
	f.db.Exec(t, `UPDATE users SET disabled_at = created_at WHERE id = $1`, id)
}

// wantNoSecret fails if one of these stands in the log.
func (f *fixture) wantNoSecret(t *testing.T, secrets ...string) {
	t.Helper()
	log := f.log.String()
	for _, s := range secrets {
		if s == "" {
			t.Error("nothing is no secret")
		} else if strings.Contains(log, s) {
			t.Errorf("%q is in the log:\n%s", s, log)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: %v, want %v", what, err, target)
	}
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// alike fails unless all errors say the same to whoever reads them.
func alike(t *testing.T, errs map[string]error, want error) {
	t.Helper()
	for name, err := range errs {
		if fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// mint signs a token that no login would.
func (f *fixture) mint(t *testing.T, subject, sessionID string) string {
	t.Helper()
	signed, _, err := f.Tokens.Mint(t.Context(), token.Claims{
		Subject: subject, ClientID: login.ClientID, SessionID: sessionID, AMR: []string{"pwd"}, AuthTime: f.clock(),
	})
	must(t, err)
	return signed
}
