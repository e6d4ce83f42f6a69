package session_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tick      = time.Microsecond // the smallest difference between two times that is kept
	tokenLife = 6 * time.Minute
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// fixture is a service on a real database and a real Redis. Its clock stands until it is set.
type fixture struct {
	*session.Service
	db    dbtest.DB
	redis redis.UniversalClient
	log   *testenv.Output

	mu  sync.Mutex
	now time.Time
}

// newFixture answers a service at noon for the user u1.
func newFixture(t *testing.T, db dbtest.DB, redisURL string) *fixture {
	t.Helper()
	client, err := redisx.Open(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	f := &fixture{db: db, redis: client, log: &testenv.Output{}, now: noon()}
	f.Service = &session.Service{
		Store: db.Sessions(), Box: box(t, 1), Publisher: publisher{f}, TokenLife: tokenLife, Now: f.clock,
		NewID: func() string { return uuid.Must(uuid.NewV7()).String() }, Log: telemetry.Logger(f.log, slog.LevelDebug),
	}
	u := account.User{ID: "u1", Email: "ada@x.test", CreatedAt: noon(), UpdatedAt: noon()}
	if err := db.Accounts().Create(t.Context(), u, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

// onBoth runs a test with PostgreSQL and with SQLite.
func onBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	dbtest.OnBoth(t, func(t *testing.T, db dbtest.DB) { test(t, newFixture(t, db, testenv.Redis(t))) })
}

func box(t *testing.T, first byte) *seal.Box {
	t.Helper()
	b, err := seal.New(append([]byte{first}, make([]byte, seal.KeySize-1)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
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

// publisher writes to the stream that the edge reads.
type publisher struct{ f *fixture }

func (p publisher) Publish(ctx context.Context, r session.Revocation) error {
	return redisx.PublishRevocation(ctx, p.f.redis,
		redisx.Revocation{Kind: r.Kind, Value: r.Value, NotBefore: r.NotBefore, ExpiresAt: r.ExpiresAt}, p.f.clock())
}

// start opens a session of u1.
func (f *fixture) start(t *testing.T) (session.Session, string) {
	t.Helper()
	s, token, err := f.Start(t.Context(), "u1", "web", []string{"pwd"})
	if err != nil {
		t.Fatal(err)
	}
	return s, token
}

// refresh presents a token and fails the test unless the outcome is this one.
func (f *fixture) refresh(t *testing.T, token string, want session.Outcome) (session.Session, string) {
	t.Helper()
	r, successor, err := f.Refresh(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if r.Outcome != want {
		t.Fatalf("the token was %s, want %s", r.Outcome, want)
	}
	if given := successor != ""; given != (want == session.Rotated || want == session.Replayed) {
		t.Errorf("%s, and a successor of %d bytes", want, len(successor))
	}
	if known := r.Session.ID != ""; known != (want != session.Unknown) {
		t.Errorf("%s, and the session %q", want, r.Session.ID)
	}
	return r.Session, successor
}

// stored answers a session as it is kept.
func (f *fixture) stored(t *testing.T, id string) session.Session {
	t.Helper()
	s, err := f.ByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// told answers what the edge has been told, in order.
func (f *fixture) told(t *testing.T) []redisx.Revocation {
	t.Helper()
	entries, err := f.redis.XRange(t.Context(), redisx.RevocationStream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all []redisx.Revocation
	for _, e := range entries {
		r, err := redisx.ParseRevocation(e.Values)
		if err != nil {
			t.Fatal(err)
		}
		r.ExpiresAt = r.ExpiresAt.UTC()
		all = append(all, r)
	}
	return all
}

// wantEnded fails unless exactly these sessions have been ended at these times, each in the session, in a revocation, in a
// job and, where published, in the stream; and unless the jobs are these, besides.
func (f *fixture) wantEnded(t *testing.T, published bool, others []job.Job, ended ...session.Session) {
	t.Helper()
	var rows []session.Revocation
	var jobs []job.Job
	var stream []redisx.Revocation
	for _, s := range ended {
		same(t, "the session", f.stored(t, s.ID), s)
		forget := s.RevokedAt.Add(tokenLife)
		rows = append(rows, session.Revocation{Kind: "sid", Value: s.ID, CreatedAt: *s.RevokedAt, ExpiresAt: forget})
		jobs = append(jobs, job.PublishRevocation(job.Revocation{Kind: "sid", Value: s.ID, ExpiresAt: forget}))
		stream = append(stream, redisx.Revocation{Kind: "sid", Value: s.ID, ExpiresAt: forget.Truncate(time.Millisecond)})
	}
	kept := f.db.Revocations(t)
	for i := range kept {
		if kept[i].ID == "" {
			t.Error("a revocation without an id")
		}
		kept[i].ID = ""
	}
	same(t, "the revocations", kept, rows)
	byKind := map[string][]job.Job{}
	for _, j := range f.db.Jobs(t) {
		byKind[j.Kind] = append(byKind[j.Kind], j)
	}
	same(t, "the jobs that publish", byKind[job.KindRevocation], jobs)
	delete(byKind, job.KindRevocation)
	var rest []job.Job
	for _, more := range byKind {
		rest = append(rest, more...)
	}
	same(t, "the other jobs", rest, others)
	if !published {
		stream = nil
	}
	same(t, "the stream", f.told(t), stream)
}

func over(s session.Session, at time.Time, reason string) session.Session {
	s.RevokedAt, s.Reason = &at, reason
	return s
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// wantNoToken fails if what has been logged holds one of these tokens.
func (f *fixture) wantNoToken(t *testing.T, tokens ...string) {
	t.Helper()
	for _, token := range tokens {
		if strings.Contains(f.log.String(), token) {
			t.Errorf("the log holds a token: %s", f.log)
		}
	}
}
