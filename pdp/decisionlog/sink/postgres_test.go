package sink_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sinktest"
)

// database is a database with the table, seen by its owner, and the URL of a role that may insert and nothing else.
type database struct {
	*pgx.Conn
	name, role, url string
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	owner := testenv.Postgres(t)
	conn, err := pgx.Connect(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	d := &database{Conn: conn, name: strings.TrimPrefix(u.Path, "/"), role: "log_" + strings.ReplaceAll(uuid.NewString(), "-", "")}
	t.Cleanup(func() {
		for _, statement := range []string{"DROP OWNED BY " + d.role, "DROP ROLE " + d.role} {
			if _, err := conn.Exec(context.Background(), statement); err != nil {
				t.Error(err)
			}
		}
		_ = conn.Close(context.Background())
	})
	d.exec(t, sink.Schema)
	d.exec(t, "CREATE ROLE "+d.role+" LOGIN PASSWORD 'secret-password'")
	d.exec(t, "GRANT INSERT ON decision_log TO "+d.role)
	u.User = url.UserPassword(d.role, "secret-password")
	d.url = u.String()
	return d
}

func (d *database) exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := d.Exec(context.Background(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (d *database) records(t *testing.T) []string {
	t.Helper()
	rows, err := d.Query(t.Context(), "SELECT record::text FROM decision_log ORDER BY decided_at")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func openPostgres(t *testing.T, d *database) *sink.Postgres {
	t.Helper()
	s, err := sink.OpenPostgres(telemetry.Secret(d.url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// S68, S71: by a role that can neither read, change nor remove what it has written.
func TestPostgreSQLKeepsTheContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) sinktest.Place {
		d := newDatabase(t)
		return sinktest.Place{
			Sink: openPostgres(t, d), Delivered: d.records, Secrets: []string{"secret-password"},
			Break: func(t *testing.T) func() { // the server ends its connections and takes no new one
				d.exec(t, "ALTER ROLE "+d.role+" NOLOGIN")
				d.exec(t, fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%s'", d.role))
				return func() { d.exec(t, "ALTER ROLE "+d.role+" LOGIN") }
			},
		}
	})
}

func TestARecordIsInPostgreSQLOnceHoweverOftenItIsDelivered(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	s := openPostgres(t, d)
	for range 3 {
		if err := s.Write(t.Context(), append(sinktest.Records(0, 5), sinktest.Records(0, 1)...)); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := d.QueryRow(t.Context(), "SELECT count(*) FROM decision_log WHERE outcome = 'deny' AND decision_id LIKE 'd-%' AND decided_at >= '2026-03-03 12:00+00'").Scan(&n); err != nil || n != 5 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestWhatPostgreSQLCannotHoldIsReplacedOrRejected(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	s := openPostgres(t, d)
	const head = `{"timestamp":"2026-03-03T12:00:00Z","decision_id":`
	if err := s.Write(t.Context(), [][]byte{[]byte(head + `"nul","input":"a\u0000b\\u0000\\\u0000"}`), []byte(head + `"","input":1}`), []byte(head + `"","input":2}`)}); err != nil {
		t.Fatal(err)
	}
	var text string
	if err := d.QueryRow(t.Context(), "SELECT record->>'input' FROM decision_log WHERE decision_id = 'nul'").Scan(&text); err != nil || text != "a\ufffdb\\u0000\\\ufffd" {
		t.Errorf("%q, %v", text, err)
	}
	if n := len(d.records(t)); n != 3 {
		t.Errorf("%d records", n)
	}
	const canary = "canary-value"
	for _, record := range []string{"", "[]", "{", head + `"surrogate","input":"` + canary + `\ud800"}`, head + `"` + canary + `\u0000"}`} {
		err := s.Write(t.Context(), [][]byte{[]byte(record)})
		if !errors.Is(err, decisionlog.ErrRejected) || strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", record, err)
		}
	}
	if err := s.Write(t.Context(), sinktest.Records(0, 1)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAPostgreSQLThatIsNotPreparedSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	s := openPostgres(t, d)
	d.exec(t, "REVOKE INSERT ON decision_log FROM "+d.role)
	if err := s.Write(t.Context(), sinktest.Records(0, 1)); err == nil || errors.Is(err, decisionlog.ErrRejected) || !strings.Contains(err.Error(), "may not insert") {
		t.Errorf("%v", err)
	}
	d.exec(t, "DROP TABLE decision_log")
	if err := s.Write(t.Context(), sinktest.Records(0, 1)); err == nil || errors.Is(err, decisionlog.ErrRejected) || !strings.Contains(err.Error(), "no table decision_log") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"postgres://user:secret-password@host:notaport/x", "host=x sslmode=perhaps password=secret-password"} {
		if _, err := sink.OpenPostgres(telemetry.Secret(bad)); err == nil || strings.Contains(err.Error(), "secret-password") {
			t.Errorf("%v", err)
		}
	}
}

func TestASlowPostgreSQLIsGivenUpWithTheContext(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	s := openPostgres(t, d)
	if err := s.Write(t.Context(), sinktest.Records(0, 1)); err != nil {
		t.Fatal(err)
	}
	lock, err := d.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), "LOCK TABLE decision_log IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Write(ctx, sinktest.Records(1, 2)); err == nil {
		t.Error("it wrote past a lock")
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), sinktest.Records(1, 2)); err != nil || len(d.records(t)) != 2 {
		t.Errorf("afterwards: %v", err)
	}
}
