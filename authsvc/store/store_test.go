package store_test

import (
	"context"
	"database/sql"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/storetest"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPostgreSQLKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Set {
		dsn := testenv.Postgres(t)
		return set(t, dsn, "pgx", dsn)
	})
}

func TestSQLiteKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Set {
		file := filepath.Join(t.TempDir(), "a b?c#d.db") // a path that is no URL
		return set(t, "sqlite:"+file, "sqlite", file2dsn(file))
	})
}

func file2dsn(file string) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: "_pragma=busy_timeout(10000)"}).String()
}

// open answers a migrated database that is closed when the test ends.
func open(t *testing.T, dsn string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// set opens the stores, and beside them a connection of the test's own that looks at the tables.
func set(t *testing.T, dsn, driver, direct string) storetest.Set {
	t.Helper()
	db := open(t, dsn)
	look, err := sql.Open(driver, direct)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { look.Close() })
	return storetest.Set{
		Accounts: db.Accounts(), Sessions: db.Sessions(), Keys: db.Keys(), Profiles: db.Profiles(),
		Jobs: func(ctx context.Context) (jobs []storetest.Job, err error) {
			rows, err := look.QueryContext(ctx, `SELECT kind, args FROM river_job ORDER BY id`)
			if err != nil {
				return nil, err
			}
			defer rows.Close()
			for rows.Next() {
				var j storetest.Job
				var args []byte
				if err := rows.Scan(&j.Kind, &args); err != nil {
					return nil, err
				}
				j.Args = args
				jobs = append(jobs, j)
			}
			return jobs, rows.Err()
		},
		Revocations: func(ctx context.Context, value string) (n int, err error) {
			err = look.QueryRowContext(ctx, `SELECT count(*) FROM revocations WHERE value = $1`, value).Scan(&n)
			return n, err
		},
	}
}

// columns answers table.column of everything that is ours.
func columns(t *testing.T, driver, dsn, query string) []string {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(table, "river_") && !strings.HasPrefix(table, "goose_") && !strings.HasPrefix(table, "sqlite_") {
			all = append(all, table+"."+column)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func TestBothDatabasesHaveTheSameTables(t *testing.T) {
	t.Parallel()
	pg, file := testenv.Postgres(t), filepath.Join(t.TempDir(), "x.db")
	open(t, pg)
	open(t, "sqlite:"+file)
	a := columns(t, "pgx", pg, `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'`)
	b := columns(t, "sqlite", file2dsn(file), `SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'`)
	if diff := cmp.Diff(a, b); diff != "" || len(a) < 20 {
		t.Errorf("%d columns: %s", len(a), diff)
	}
}

func TestInstancesMayMigrateAtOnce(t *testing.T) {
	t.Parallel()
	dsn := testenv.Postgres(t)
	var wg sync.WaitGroup
	for range 3 {
		db, err := store.Open(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer db.Close()
			for range 2 { // a second time changes nothing
				if err := db.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// S69: a DSN bears a password; no error shows it.
func TestABadDSNIsRefusedWithoutBeingShown(t *testing.T) {
	t.Parallel()
	const canary = "canary-5c1d"
	for _, dsn := range []string{"", "mysql://u:" + canary + "@h/d", "postgres://u:" + canary + "@h:port/d", "sqlite:", "sqlite:/nowhere/at/all/x.db"} {
		db, err := store.Open(t.Context(), dsn)
		if err == nil {
			db.Close()
			t.Errorf("%q is taken", dsn)
			continue
		}
		if strings.Contains(err.Error(), canary) || !strings.HasPrefix(err.Error(), "database: ") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

// A database that is away is fault.Unavailable; when it is back, so are its stores.
func TestADatabaseThatIsAwayIsUnavailableUntilItIsBack(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	p := testenv.NewProxy(t, u.Host)
	u.Host = p.Address
	db := open(t, u.String())
	find := func() error {
		_, err := db.Accounts().ByID(t.Context(), "nobody")
		return err
	}
	if err := find(); !isNotFound(err) {
		t.Fatal(err)
	}
	p.Stop()
	for _, err := range []error{find(), db.Ready(t.Context()), db.Accounts().Create(t.Context(), account.User{ID: "u"}, nil)} {
		if f, ok := fault.As(err); !ok || f.Code != fault.Unavailable || f.Reason != "database_unavailable" {
			t.Errorf("away: %v", err)
		}
	}
	p.Start(t)
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err := find(); !isNotFound(err); err = find() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("back: %v", err)
		}
	}
}

func isNotFound(err error) bool { return fault.CodeOf(err) == fault.NotFound }
