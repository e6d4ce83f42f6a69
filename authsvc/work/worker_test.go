package work_test

import (
	"context"
	"database/sql"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/authsvc/work"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outside is what jobs reach beyond the database. Each takes what a worker hands it, after as many failures as it is told.
type outside struct {
	mu       sync.Mutex
	failures []error // of the next calls, in order; then all succeed
	mails    chan mail.Message
	revoked  chan job.Revocation
	profiles chan [2]string
	expired  chan time.Time
}

func newOutside(failures ...error) *outside {
	return &outside{
		failures: failures, mails: make(chan mail.Message, 10), revoked: make(chan job.Revocation, 10), profiles: make(chan [2]string, 10),
		expired: make(chan time.Time, 10),
	}
}

func (o *outside) fails() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.failures) == 0 {
		return nil
	}
	err := o.failures[0]
	o.failures = o.failures[1:]
	return err
}

func (o *outside) Send(_ context.Context, m mail.Message) error {
	if err := o.fails(); err != nil {
		return err
	}
	o.mails <- m
	return nil
}

func (o *outside) Create(_ context.Context, userID, name string) error {
	if err := o.fails(); err != nil {
		return err
	}
	o.profiles <- [2]string{userID, name}
	return nil
}

func (o *outside) publish(_ context.Context, r job.Revocation) error {
	if err := o.fails(); err != nil {
		return err
	}
	o.revoked <- r
	return nil
}

func (o *outside) expire(context.Context) error {
	if err := o.fails(); err != nil {
		return err
	}
	o.expired <- time.Now()
	return nil
}

// databases are where the queue may be.
func databases(t *testing.T, test func(t *testing.T, dsn, driver, direct string)) {
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		dsn := dbtest.PostgresDSN(t)
		test(t, dsn, "pgx", dsn)
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		dsn := dbtest.SQLiteDSN(t)
		test(t, dsn, "sqlite", "file:"+strings.TrimPrefix(dsn, "sqlite:")+"?_pragma=busy_timeout(10000)")
	})
}

// working is a database with a worker on it that runs until the test ends, and what it logs.
func working(t *testing.T, dsn string, o *outside) (*store.DB, *testenv.Output) {
	t.Helper()
	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	renderer, err := mail.NewRenderer()
	if err != nil {
		t.Fatal(err)
	}
	log := &testenv.Output{}
	w, err := work.NewWorker(work.Options{
		Queue: db.Queue(), Renderer: renderer, Sender: o, Publish: o.publish, Profiles: o, Expire: o.expire, Poll: 20 * time.Millisecond, Now: time.Now,
		Log: telemetry.Logger(log, slog.LevelInfo),
		Address: func(ctx context.Context, id string) (string, error) {
			u, err := db.Accounts().ByID(ctx, id)
			return u.Email, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return db, log
}

// next waits for what a worker hands out.
func next[T any](t *testing.T, from chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("the job was not done")
		panic("unreachable")
	}
}

// settled waits until no job is left to do, and answers the states of all.
func settled(t *testing.T, driver, direct string) []string {
	t.Helper()
	db, err := sql.Open(driver, direct)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		states, err := statesOf(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		done := !slices.ContainsFunc(states, func(s string) bool { return s != "completed" && s != "cancelled" && s != "discarded" })
		if done {
			return states
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("jobs are %v", states)
		}
	}
}

func statesOf(ctx context.Context, db *sql.DB) (states []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT state FROM river_job ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, rows.Err()
}

func enqueue(t *testing.T, db *store.DB, jobs ...job.Job) {
	t.Helper()
	if err := db.Accounts().Enqueue(t.Context(), jobs...); err != nil {
		t.Fatal(err)
	}
}

func TestEachKindOfJobIsDoneWithWhatWasQueued(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, dsn, _, _ string) {
		o := newOutside()
		db, _ := working(t, dsn, o)
		end := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		enqueue(t, db,
			job.SendMail(job.Mail{Template: job.VerificationCode, To: "ada@example.com", Data: map[string]string{"code": "123456"}, ExpiresAt: end}),
			job.PublishRevocation(job.Revocation{Kind: "sid", Value: "s1", ExpiresAt: end}),
			job.CreateProfile(job.Profile{UserID: "u1", Name: "Ada"}))
		if m := next(t, o.mails); m.To != "ada@example.com" || !strings.Contains(m.Text, "123456") || m.Subject == "" {
			t.Errorf("mail %+v", m)
		}
		if r := next(t, o.revoked); r.Kind != "sid" || r.Value != "s1" || !r.ExpiresAt.Equal(end) {
			t.Errorf("revocation %+v", r)
		}
		if p := next(t, o.profiles); p != [2]string{"u1", "Ada"} {
			t.Errorf("profile %v", p)
		}
	})
}

func TestAFailedJobIsTriedAgain(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, dsn, driver, direct string) {
		away := fault.New(fault.Unavailable, "away")
		o := newOutside(away, away)
		db, log := working(t, dsn, o)
		enqueue(t, db, job.PublishRevocation(job.Revocation{Kind: "sid", Value: "s1", ExpiresAt: time.Now().Add(time.Hour)}))
		next(t, o.revoked)
		if got := settled(t, driver, direct); len(got) != 1 || got[0] != "completed" {
			t.Errorf("jobs are %v", got)
		}
		if n := strings.Count(log.String(), "job failed; it will be tried again"); n != 2 {
			t.Errorf("%d failures in the log: %s", n, log)
		}
	})
}

// What will never succeed, or would be of no use, is not tried again. No mail's content reaches the log (S67).
func TestAMailThatCannotBeDeliveredIsGivenUp(t *testing.T) {
	t.Parallel()
	const canary = "canary-4f2e"
	for name, c := range map[string]struct {
		mail  job.Mail
		fails error
		state string
	}{
		"refused by the server": {job.Mail{Template: job.VerificationCode, To: "a@example.com", Data: map[string]string{"code": canary}}, fault.New(fault.Invalid, "no").Named("mail_refused"), "cancelled"},
		"an unknown template":   {job.Mail{Template: "nonsense", To: "a@example.com"}, nil, "cancelled"},
		"data is missing":       {job.Mail{Template: job.VerificationCode, To: "a@example.com"}, nil, "cancelled"},
		"the user is gone":      {job.Mail{Template: job.RegistrationAttempt, UserID: "nobody"}, nil, "cancelled"},
		"too late":              {job.Mail{Template: job.VerificationCode, To: "a@example.com", Data: map[string]string{"code": canary}, ExpiresAt: time.Unix(1, 0)}, nil, "completed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutside()
			if c.fails != nil {
				o = newOutside(c.fails)
			}
			dsn := dbtest.SQLiteDSN(t)
			db, log := working(t, dsn, o)
			enqueue(t, db, job.SendMail(c.mail))
			if got := settled(t, "sqlite", "file:"+strings.TrimPrefix(dsn, "sqlite:")+"?_pragma=busy_timeout(10000)"); len(got) != 1 || got[0] != c.state {
				t.Errorf("jobs are %v, want %s", got, c.state)
			}
			if len(o.mails) != 0 {
				t.Errorf("sent %v", <-o.mails)
			}
			if strings.Contains(log.String(), canary) {
				t.Errorf("the log shows the mail: %s", log)
			}
		})
	}
}

func TestAMailForAUserGoesToTheAddressThatSheHasThen(t *testing.T) {
	t.Parallel()
	o := newOutside()
	db, _ := working(t, dbtest.SQLiteDSN(t), o)
	now := time.Now()
	u := account.User{ID: "u1", Email: "ada@example.com", CreatedAt: now, UpdatedAt: now}
	if err := db.Accounts().Create(t.Context(), u, nil, job.SendMail(job.Mail{Template: job.RefreshTokenReused, UserID: u.ID})); err != nil {
		t.Fatal(err)
	}
	if m := next(t, o.mails); m.To != u.Email {
		t.Errorf("sent to %s", m.To)
	}
}

func TestARevocationOfNothingAliveIsNotPublished(t *testing.T) {
	t.Parallel()
	o := newOutside()
	dsn := dbtest.SQLiteDSN(t)
	db, _ := working(t, dsn, o)
	enqueue(t, db, job.PublishRevocation(job.Revocation{Kind: "sid", Value: "s1", ExpiresAt: time.Now().Add(-time.Second)}))
	if got := settled(t, "sqlite", "file:"+strings.TrimPrefix(dsn, "sqlite:")+"?_pragma=busy_timeout(10000)"); len(got) != 1 || got[0] != "completed" || len(o.revoked) != 0 {
		t.Errorf("jobs are %v, %d published", got, len(o.revoked))
	}
}

func TestRolesAreTakenAwayWhenTheirTimeIsOver(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, dsn, _, _ string) {
		o := newOutside(fault.New(fault.Unavailable, "later")) // the first try fails
		db, _ := working(t, dsn, o)
		end := time.Now().Add(500 * time.Millisecond)
		if err := db.Accounts().Enqueue(t.Context(), job.ExpireRoles(end)); err != nil {
			t.Fatal(err)
		}
		if at := next(t, o.expired); at.Before(end) {
			t.Errorf("taken away %v early", end.Sub(at))
		}
	})
}
