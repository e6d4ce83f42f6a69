package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/storetest"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// databases are the kinds of database, each as what answers the DSN of a new, empty one.
func databases() map[string]func(*testing.T) string {
	return map[string]func(*testing.T) string{
		"PostgreSQL": func(t *testing.T) string { return testenv.Postgres(t) },
		"SQLite":     func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "authsvc.db") },
	}
}

// onBoth runs a test on an open and migrated database of each kind, and gives it a second way in, past the store.
func onBoth(t *testing.T, test func(t *testing.T, db *store.DB, raw *sql.DB)) {
	for name, dsn := range dbtest.DSNs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dsn(t)
			test(t, open(t, dsn), past(t, dsn))
		})
	}
}

func open(t *testing.T, dsn string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func migrated(t *testing.T, dsn string) *store.DB {
	t.Helper()
	db := open(t, dsn)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// past opens a database without the store.
func past(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	driver := "pgx"
	if path, is := strings.CutPrefix(dsn, "sqlite:"); is {
		driver, dsn = "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_time_format=sqlite"
	}
	raw, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return raw
}

func TestStoresKeepTheirContract(t *testing.T) {
	t.Parallel()
	args := map[string]string{"PostgreSQL": "args::text", "SQLite": "json(args)"}
	for name, dsn := range dbtest.DSNs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Even to copy a database takes a tenth of a second, to empty one a few milliseconds.
			pool := make(chan database, min(4, runtime.GOMAXPROCS(0)))
			for range cap(pool) {
				dsn := dsn(t)
				pool <- database{open(t, dsn), past(t, dsn), args[name]}
			}
			storetest.Run(t, func(t *testing.T) storetest.Set {
				one := <-pool
				t.Cleanup(func() { pool <- one })
				one.clear(t)
				return one.set()
			})
		})
	}
}

// database is one, open by the store and past it.
type database struct {
	db   *store.DB
	raw  *sql.DB
	args string // how it says the arguments of a job as text
}

func (d database) clear(t *testing.T) {
	t.Helper()
	statements := []string{`UPDATE directory_state SET revision = 0`}
	for _, table := range []string{ // the rest goes with users
		"users", "revocations", "signing_keys", "profiles", "river_job", "role_bindings", "roles", "subjects", "role_audit", "directory_changes",
	} {
		statements = append(statements, "DELETE FROM "+table)
	}
	for _, s := range statements {
		if _, err := d.raw.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

func (d database) set() storetest.Set {
	return storetest.Set{
		Accounts: d.db.Accounts(), Sessions: d.db.Sessions(), Keys: d.db.Keys(), Profiles: d.db.Profiles(),
		Roles: d.db.Roles(), Directory: d.db.Directory(),
		Jobs:        func(ctx context.Context) ([]job.Job, error) { return waiting(ctx, d.raw, d.args) },
		Revocations: func(ctx context.Context) ([]session.Revocation, error) { return revoked(ctx, d.raw) },
	}
}

// waiting reads the jobs from River's own table.
func waiting(ctx context.Context, raw *sql.DB, args string) ([]job.Job, error) {
	return list(ctx, raw, "SELECT kind, "+args+" FROM river_job ORDER BY id", func(rows *sql.Rows) (j job.Job, err error) {
		var raw string
		err = rows.Scan(&j.Kind, &raw)
		j.Args = json.RawMessage(raw)
		return j, err
	})
}

func revoked(ctx context.Context, raw *sql.DB) ([]session.Revocation, error) {
	const all = `SELECT id, kind, value, not_before, created_at, expires_at FROM revocations ORDER BY id`
	return list(ctx, raw, all, func(rows *sql.Rows) (r session.Revocation, err error) {
		var notBefore sql.NullTime
		err = rows.Scan(&r.ID, &r.Kind, &r.Value, &notBefore, &r.CreatedAt, &r.ExpiresAt)
		r.CreatedAt, r.ExpiresAt = r.CreatedAt.UTC(), r.ExpiresAt.UTC()
		if notBefore.Valid {
			r.NotBefore = notBefore.Time.UTC()
		}
		return r, err
	})
}

func list[T any](ctx context.Context, raw *sql.DB, query string, scan func(*sql.Rows) (T, error), args ...any) ([]T, error) {
	rows, err := raw.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		all = append(all, one)
	}
	return all, rows.Err()
}
