// Package dbtest opens databases for the tests of what stands on the store, and shows what no Store does: the jobs that
// wait, the revocations, and whether a text is kept anywhere. Nothing works on the jobs, so they stay where they are.
package dbtest

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

// DB is an open and migrated database that ends with its test.
type DB struct {
	*store.DB
	Raw  *sql.DB // a second way in, past the store
	args string  // how it says the arguments of a job as text
}

// OnBoth runs a test on PostgreSQL and on SQLite, on a new database each.
func OnBoth(t *testing.T, test func(t *testing.T, db DB)) {
	t.Helper()
	for name, open := range map[string]func(testing.TB) DB{"PostgreSQL": Postgres, "SQLite": SQLite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// Postgres opens a new PostgreSQL database.
func Postgres(t testing.TB) DB {
	t.Helper()
	dsn := PostgresDSN(t)
	return DB{open(t, dsn), past(t, "pgx", dsn), "args::text"}
}

// Behind opens a new PostgreSQL database whose store, but not its Raw, goes through a proxy.
func Behind(t testing.TB) (DB, *testenv.Proxy) {
	t.Helper()
	direct := PostgresDSN(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p := testenv.NewProxy(t, u.Host)
	u.Host = p.Address
	return DB{open(t, u.String()), past(t, "pgx", direct), "args::text"}, p
}

// SQLite opens a new SQLite file.
func SQLite(t testing.TB) DB {
	t.Helper()
	dsn := SQLiteDSN(t)
	raw := past(t, "sqlite", "file:"+strings.TrimPrefix(dsn, "sqlite:")+"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_time_format=sqlite")
	return DB{open(t, dsn), raw, "json(args)"}
}

// DSNs makes a new database that is migrated, by its kind.
func DSNs() map[string]func(testing.TB) string {
	return map[string]func(testing.TB) string{"PostgreSQL": PostgresDSN, "SQLite": SQLiteDSN}
}

// PostgresDSN is a new PostgreSQL database that is migrated.
func PostgresDSN(t testing.TB) string {
	t.Helper()
	template, err := migratedPostgres()
	if err != nil {
		t.Fatal(err)
	}
	return testenv.PostgresLike(t, template)
}

// SQLiteDSN is a new SQLite file that is migrated.
func SQLiteDSN(t testing.TB) string {
	t.Helper()
	file, err := migratedSQLite()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "authsvc.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + path
}

// The databases are copies: the migrations took a third of the time of the tests that stand on them.
var (
	migratedPostgres = sync.OnceValues(func() (template string, err error) { return testenv.Template(migrate) })
	migratedSQLite   = sync.OnceValues(func() (file []byte, err error) {
		dir, err := os.MkdirTemp("", "dbtest")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }() // what is left is one small file of the system's temporary ones
		path := filepath.Join(dir, "authsvc.db")
		if err := migrate(context.Background(), "sqlite:"+path); err != nil {
			return nil, err
		}
		return os.ReadFile(path) //nolint:gosec // it is our own
	})
)

// migrate leaves all that it writes in the file itself, for the last connection that ends takes SQLite's log with it.
func migrate(ctx context.Context, dsn string) error {
	db, err := store.Open(ctx, dsn)
	if err != nil {
		return err
	}
	return errors.Join(db.Migrate(ctx), db.Close())
}

func open(t testing.TB, dsn string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func past(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	raw, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return raw
}

// Jobs answers the jobs that wait, oldest first. Their Args are job.Mail, job.Revocation, job.Profile or job.Expiry.
func (d DB) Jobs(t testing.TB) []job.Job {
	t.Helper()
	return list(t, d, "SELECT kind, "+d.args+" FROM river_job ORDER BY id", func(rows *sql.Rows) (j job.Job, err error) {
		var args []byte
		if err := rows.Scan(&j.Kind, &args); err != nil {
			return j, err
		}
		switch j.Kind {
		case job.KindMail:
			j.Args, err = decode[job.Mail](args)
		case job.KindRevocation:
			j.Args, err = decode[job.Revocation](args)
		case job.KindProfile:
			j.Args, err = decode[job.Profile](args)
		case job.KindExpiry:
			j.Args, err = decode[job.Expiry](args)
		default:
			err = fmt.Errorf("a job of unknown kind %q", j.Kind)
		}
		return j, err
	})
}

func decode[T any](args []byte) (v T, err error) { return v, json.Unmarshal(args, &v) }

// Forget deletes the jobs that wait.
func (d DB) Forget(t testing.TB) {
	t.Helper()
	d.Exec(t, "DELETE FROM river_job")
}

// Exec runs a statement past the store.
func (d DB) Exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := d.Raw.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// Revocations answers the revocations in the order of their ids.
func (d DB) Revocations(t testing.TB) []session.Revocation {
	t.Helper()
	const all = `SELECT id, kind, value, not_before, created_at, expires_at FROM revocations ORDER BY id`
	return list(t, d, all, func(rows *sql.Rows) (r session.Revocation, err error) {
		var notBefore sql.NullTime
		err = rows.Scan(&r.ID, &r.Kind, &r.Value, &notBefore, &r.CreatedAt, &r.ExpiresAt)
		r.CreatedAt, r.ExpiresAt, r.NotBefore = r.CreatedAt.UTC(), r.ExpiresAt.UTC(), notBefore.Time
		return r, err
	})
}

// Count answers how many rows a table of ours has.
func (d DB) Count(t testing.TB, table string) (n int) {
	t.Helper()
	if err := d.Raw.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Holds reports in which tables, the jobs' among them, a text is kept in the clear.
func (d DB) Holds(t testing.TB, text string) (tables []string) {
	t.Helper()
	for _, table := range []string{"users", "email_codes", "sessions", "refresh_tokens", "revocations", "signing_keys", "profiles", "river_job",
		"role_bindings", "roles", "subjects", "role_audit", "directory_changes"} {
		found := list(t, d, "SELECT * FROM "+table, func(rows *sql.Rows) (bool, error) {
			columns, err := rows.Columns()
			if err != nil {
				return false, err
			}
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				return false, err
			}
			for _, v := range values {
				switch v := (*v.(*any)).(type) {
				case []byte:
					if bytes.Contains(v, []byte(text)) {
						return true, nil
					}
				case string:
					if strings.Contains(v, text) {
						return true, nil
					}
				}
			}
			return false, nil
		})
		for _, yes := range found {
			if yes {
				tables = append(tables, table)
				break
			}
		}
	}
	return tables
}

func list[T any](t testing.TB, d DB, query string, scan func(*sql.Rows) (T, error)) (all []T) {
	t.Helper()
	rows, err := d.Raw.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}
