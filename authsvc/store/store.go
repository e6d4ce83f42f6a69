// Package store keeps what authsvc knows, in PostgreSQL or in SQLite, by the same statements over database/sql. Every
// method is one atomic step: it commits whole, with the jobs that it causes, or leaves nothing. Races are decided by
// compare-and-swap (UPDATE … WHERE what was read still holds) and by constraints, never by a lock held between two calls,
// since SQLite has no SELECT … FOR UPDATE. Times are stored in UTC with microseconds.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/gatehouse-auth/gatehouse/authsvc/work"
)

const (
	connectTimeout = 2 * time.Second
	stepTimeout    = 5 * time.Second // bounds one method, so that a database that hangs is one that is away
	maxConnections = 16
	maxReaders     = 4 // of an SQLite file, beside its writer
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	db       *sql.DB
	reader   *sql.DB       // for reading at length; db itself on PostgreSQL
	listener *pgxpool.Pool // nil on SQLite
	dialect  dialect
	queue    *work.Queue
	changes  changes
}

// Open prepares the database of a DSN: "postgres://…" or "sqlite:" and a path. PostgreSQL need not be there yet; a method
// answers fault.Unavailable while it is not. An SQLite file is made for its owner alone if it is missing; its folder is not
// made. An error may name that file, and never holds the DSN of PostgreSQL, which may bear a password.
func Open(ctx context.Context, dsn string) (*DB, error) {
	scheme, rest, _ := strings.Cut(dsn, ":")
	switch scheme {
	case "postgres", "postgresql":
		return openPostgres(ctx, dsn)
	case "sqlite":
		return openSQLite(ctx, rest)
	}
	return nil, errors.New("database: a DSN begins with postgres:// or sqlite: and this one does not")
}

func openPostgres(ctx context.Context, dsn string) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("database: the DSN is no valid PostgreSQL URL")
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	db := stdlib.OpenDB(*cfg.ConnConfig)
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	cfg.MinConns, cfg.MaxConns = 0, 1
	listener, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database: %w", err), db.Close())
	}
	queue, err := work.OnPostgres(db, listener)
	if err != nil {
		listener.Close()
		return nil, errors.Join(err, db.Close())
	}
	return &DB{db: db, reader: db, listener: listener, dialect: postgres, queue: queue}, nil
}

func openSQLite(ctx context.Context, path string) (*DB, error) {
	if path == "" || strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///") { // sqlite://host/…
		return nil, errors.New("database: the DSN names no SQLite file; it is sqlite: and a path")
	}
	if err := createFile(path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_txlock":      {"immediate"}, // a transaction that writes later cannot lose its snapshot halfway
		"_time_format": {"sqlite"},
		"_pragma":      {"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)"},
	}.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	u.RawQuery = url.Values{"_time_format": {"sqlite"}, "_pragma": {"busy_timeout(5000)", "query_only(1)"}}.Encode()
	reader, err := sql.Open("sqlite", u.String()) // connects when it is used
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database: %w", err), db.Close())
	}
	reader.SetMaxOpenConns(maxReaders)
	// SQLite has one writer. Waiting for it in database/sql's queue is fair and costs nothing; waiting in SQLite is neither.
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("database: open %s: %w", path, err), db.Close(), reader.Close())
	}
	queue, err := work.OnSQLite(db)
	if err != nil {
		return nil, errors.Join(err, db.Close(), reader.Close())
	}
	return &DB{db: db, reader: reader, dialect: sqlite, queue: queue}, nil
}

// createFile makes a database file for its owner alone, before SQLite makes one for everybody; SQLite gives the files beside
// it the same mode. One that exists is not even opened: closing it would drop the locks that this process has on it.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator says where
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// Migrate brings the schema and the job queue to the version that this program needs. On PostgreSQL several instances may
// call it at the same moment.
func (d *DB) Migrate(ctx context.Context) error {
	unlock, err := d.dialect.lockMigrations(ctx, d.db)
	if err != nil {
		return d.failed("migrate", err)
	}
	defer unlock()
	steps, err := d.dialect.migrations()
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	p, err := goose.NewProvider(d.dialect.goose(), d.db, steps, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return d.failed("migrate", err)
	}
	return d.failed("migrate", d.queue.Migrate(ctx))
}

// Ready answers nil if the database answers.
func (d *DB) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return d.failed("ping", d.db.PingContext(ctx))
}

// Queue answers the queue of the jobs that the methods insert.
func (d *DB) Queue() *work.Queue { return d.queue }

// Accounts answers the users and their codes.
func (d *DB) Accounts() Accounts { return Accounts{d} }

// Sessions answers the sessions, refresh tokens and revocations.
func (d *DB) Sessions() Sessions { return Sessions{d} }

// Keys answers the signing keys.
func (d *DB) Keys() Keys { return Keys{d} }

// Profiles answers the profiles.
func (d *DB) Profiles() Profiles { return Profiles{d} }

// Roles answers the roles, who holds them, and the audit of both.
func (d *DB) Roles() Roles { return Roles{d} }

// Directory answers what decision points are told of roles and subjects.
func (d *DB) Directory() Directory { return Directory{d} }

// Close closes every connection. Workers on the queue must have ended.
func (d *DB) Close() error {
	if d.listener != nil {
		d.listener.Close()
	}
	if d.reader != d.db {
		return errors.Join(d.reader.Close(), d.db.Close())
	}
	return d.db.Close()
}
