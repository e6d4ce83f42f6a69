package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestInstancesMayMigrateAtTheSameMoment(t *testing.T) {
	t.Parallel()
	dsn := testenv.Postgres(t)
	instances := []*store.DB{open(t, dsn), open(t, dsn), open(t, dsn)}
	gate := make(chan struct{})
	var done []<-chan error
	for _, db := range instances {
		done = append(done, later(func() error {
			<-gate
			return db.Migrate(t.Context())
		}))
	}
	close(gate)
	for _, err := range done {
		if err := <-err; err != nil {
			t.Error(err)
		}
	}
	usable(t, instances[0])
}

func TestAMigrationWaitsForAnotherInstance(t *testing.T) {
	t.Parallel()
	dsn := testenv.Postgres(t)
	db, raw := open(t, dsn), past(t, dsn)
	release := hold(t, raw, `SELECT pg_advisory_xact_lock(4720616531)`)
	migrated := later(func() error { return db.Migrate(t.Context()) })
	waitForBlocked(t, raw, 1)
	if tables := tablesOf(t, raw, "PostgreSQL"); len(tables) > 0 {
		t.Errorf("it has not waited: %v", tables)
	}
	release()
	if err := <-migrated; err != nil {
		t.Error(err)
	}
	var held int
	if err := raw.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&held); err != nil || held != 0 {
		t.Errorf("%d locks are left, error %v", held, err)
	}
}

func TestMigratingAgainKeepsWhatIsStored(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *store.DB, _ *sql.DB) {
		usable(t, db)
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Accounts().ByID(t.Context(), "u1"); err != nil {
			t.Error(err)
		}
	})
}

// usable needs the tables of accounts and those of the job queue.
func usable(t *testing.T, db *store.DB) {
	t.Helper()
	u := account.User{ID: "u1", Email: "ada@x.test", CreatedAt: noon(), UpdatedAt: noon()}
	if err := db.Accounts().Create(t.Context(), u, nil, job.CreateProfile(job.Profile{UserID: "u1"})); err != nil {
		t.Error(err)
	}
}

func TestBothDatabasesHaveTheSameTables(t *testing.T) {
	t.Parallel()
	schema := map[string][]string{}
	for name, empty := range databases() {
		dsn := empty(t)
		migrated(t, dsn)
		schema[name] = append(tablesOf(t, past(t, dsn), name), indexesOf(t, past(t, dsn), name)...)
	}
	if len(schema["SQLite"]) < 40 {
		t.Errorf("that cannot be all: %v", schema["SQLite"])
	}
	if diff := cmp.Diff(schema["PostgreSQL"], schema["SQLite"]); diff != "" {
		t.Errorf("-PostgreSQL +SQLite:\n%s", diff)
	}
}

// tablesOf answers "table.column type null|not null" of each column, with the types under PostgreSQL's names.
func tablesOf(t *testing.T, raw *sql.DB, database string) []string {
	t.Helper()
	query := map[string]string{
		"PostgreSQL": `
			SELECT table_name, column_name, data_type, is_nullable = 'NO' FROM information_schema.columns
			WHERE table_schema = 'public' AND table_name NOT LIKE 'river%' AND table_name NOT LIKE 'goose%'`,
		"SQLite": `
			SELECT m.name, c.name, lower(c.type), c."notnull" FROM sqlite_master m JOIN pragma_table_info(m.name) c
			WHERE m.type = 'table' AND m.name NOT LIKE 'river%' AND m.name NOT LIKE 'goose%' AND m.name NOT LIKE 'sqlite%'`,
	}[database]
	alike := map[string]string{"timestamp with time zone": "timestamp", "bytea": "blob", "jsonb": "text", "bigint": "integer"}
	columns, err := list(t.Context(), raw, query, func(rows *sql.Rows) (string, error) {
		var table, column, kind string
		var required bool
		err := rows.Scan(&table, &column, &kind, &required)
		if other, is := alike[kind]; is {
			kind = other
		}
		return fmt.Sprintf("%s.%s %s required=%t", table, column, kind, required), err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(columns)
	return columns
}

// indexesOf answers the names of the indexes but those that a primary key makes.
func indexesOf(t *testing.T, raw *sql.DB, database string) []string {
	t.Helper()
	query := map[string]string{
		"PostgreSQL": `
			SELECT indexname, indexdef LIKE 'CREATE UNIQUE%' FROM pg_indexes WHERE schemaname = 'public'
			AND tablename NOT LIKE 'river%' AND tablename NOT LIKE 'goose%' AND indexname NOT LIKE '%_pkey'`,
		"SQLite": `
			SELECT name, sql LIKE 'CREATE UNIQUE%' FROM sqlite_master
			WHERE type = 'index' AND sql IS NOT NULL AND tbl_name NOT LIKE 'river%' AND tbl_name NOT LIKE 'goose%'`,
	}[database]
	indexes, err := list(t.Context(), raw, query, func(rows *sql.Rows) (string, error) {
		var name string
		var unique bool
		err := rows.Scan(&name, &unique)
		return fmt.Sprintf("index %s unique=%t", name, unique), err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(indexes)
	return indexes
}

// A revocation must not wait behind mails that a slow server holds up.
func TestRevocationsHaveAQueueOfTheirOwn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *store.DB, raw *sql.DB) {
		jobs := []job.Job{job.PublishRevocation(job.Revocation{}), job.SendMail(job.Mail{}), job.CreateProfile(job.Profile{})}
		if err := db.Accounts().Enqueue(t.Context(), jobs...); err != nil {
			t.Fatal(err)
		}
		queues, err := list(t.Context(), raw, `SELECT queue FROM river_job ORDER BY id`, func(rows *sql.Rows) (q string, err error) {
			return q, rows.Scan(&q)
		})
		if err != nil || !slices.Equal(queues, []string{"urgent", "default", "default"}) {
			t.Errorf("the queues are %v, error %v", queues, err)
		}
	})
}

// Keys that only verify still count as keys: whoever withdrew the active one is not to get it replaced by a restart.
func TestRetiringKeysAreKeysToo(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *store.DB, raw *sql.DB) {
		if _, err := raw.ExecContext(t.Context(), `INSERT INTO signing_keys (id, algorithm, state, sealed, created_at)
			VALUES ('old', 'RS256', 'retiring', $1, $2)`, []byte{1}, noon()); err != nil {
			t.Fatal(err)
		}
		keys, err := db.Keys().Init(t.Context(), []token.Key{{ID: "new", Algorithm: "RS256", State: token.Active, Sealed: []byte{2}, CreatedAt: noon()}})
		if err != nil || len(keys) != 1 || keys[0].ID != "old" {
			t.Errorf("the keys are %+v, error %v", keys, err)
		}
	})
}

// The queue takes part in any transaction, and is undone with it.
func TestAJobIsUndoneWithItsTransaction(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *store.DB, raw *sql.DB) {
		count := func() (n int) {
			if err := raw.QueryRowContext(t.Context(), `SELECT count(*) FROM river_job`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for _, commit := range []bool{false, true} {
			tx, err := raw.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Queue().Insert(t.Context(), tx, job.SendMail(job.Mail{To: "ada@x.test"})); err != nil {
				t.Fatal(err)
			}
			if err := db.Queue().Insert(t.Context(), tx, job.Job{Kind: "no.such"}); err == nil {
				t.Error("a kind that no worker knows was taken")
			}
			end := tx.Rollback
			if commit {
				end = tx.Commit
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if n := count(); (n == 1) != commit || n > 1 {
				t.Errorf("committed %t: %d jobs", commit, n)
			}
		}
	})
}

func TestATransactionThatIsOverTakesNoJob(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *store.DB, raw *sql.DB) {
		tx, err := raw.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = tx.Rollback()
		if err := db.Queue().Insert(t.Context(), tx, job.SendMail(job.Mail{})); !errors.Is(err, sql.ErrTxDone) {
			t.Errorf("got %v", err)
		}
	})
}
