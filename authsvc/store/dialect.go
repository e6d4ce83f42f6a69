package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	sqlite3 "modernc.org/sqlite"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/migrations"
)

// dialect is all in which the two databases differ here.
type dialect int

const (
	postgres dialect = iota
	sqlite
)

func (l dialect) goose() goose.Dialect {
	if l == sqlite {
		return goose.DialectSQLite3
	}
	return goose.DialectPostgres
}

func (l dialect) migrations() (fs.FS, error) {
	if l == sqlite {
		return migrations.SQLite()
	}
	return migrations.Postgres()
}

// snapshot is the isolation in which a transaction sees one moment. SQLite knows no other.
func (l dialect) snapshot() sql.IsolationLevel {
	if l == sqlite {
		return sql.LevelDefault
	}
	return sql.LevelRepeatableRead
}

// lockMigrations waits until no other instance migrates the same database, and answers what ends that.
func (l dialect) lockMigrations(ctx context.Context, db *sql.DB) (unlock func(), err error) {
	if l == sqlite {
		return func() {}, nil
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	const lock, release = `SELECT pg_advisory_lock(4720616531)`, `SELECT pg_advisory_unlock(4720616531)`
	if _, err := conn.ExecContext(ctx, lock); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return func() {
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), release); err != nil {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // closing the connection releases it too
		}
		_ = conn.Close()
	}, nil
}

// The result codes of SQLite (https://www.sqlite.org/rescode.html) and PostgreSQL (appendix A) that mean something here.
const (
	sqlitePrimaryKey = 1555 // SQLITE_CONSTRAINT_PRIMARYKEY
	sqliteUnique     = 2067 // SQLITE_CONSTRAINT_UNIQUE
	postgresUnique   = "23505"
)

// violated reports whether err says that the unique constraint of this name was broken. SQLite only tells a primary key
// (named …_pkey) from another constraint, so a statement may break no more than one of each kind.
func (l dialect) violated(err error, constraint string) bool {
	if l == sqlite {
		code := sqliteUnique
		if strings.HasSuffix(constraint, "_pkey") {
			code = sqlitePrimaryKey
		}
		var e *sqlite3.Error
		return errors.As(err, &e) && e.Code() == code
	}
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == postgresUnique && e.ConstraintName == constraint
}

// failed wraps an error of the database. A fault stays what it is, and so does the caller's own cancellation. A database
// that is away, full or too busy is fault.Unavailable; what it refuses to store because of its form is fault.Invalid.
func (d *DB) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, is := fault.As(err); is {
		return err
	}
	err = fmt.Errorf("%s: %w", what, err)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case away(err):
		return fault.New(fault.Unavailable, "The service cannot answer at the moment.").Named("database_unavailable").Because(err)
	case malformed(err):
		return fault.New(fault.Invalid, "A value has a form that cannot be stored.").Because(err)
	}
	return err
}

func away(err error) bool {
	var lite *sqlite3.Error
	if errors.As(err, &lite) {
		switch lite.Code() & 0xff { // the primary code
		case 5, 6, 10, 13, 14: // BUSY, LOCKED, IOERR, FULL, CANTOPEN
			return true
		}
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch class := pg.Code[:min(2, len(pg.Code))]; class {
		case "08", "53", "57", "58": // connection, resources, operator intervention, system
			return true
		}
		return pg.Code == "40001" || pg.Code == "40P01" // serialization failure, deadlock: nothing was changed
	}
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) ||
		pgconn.SafeToRetry(err) || // the connection was found closed before anything was sent
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// malformed is a value that a column does not take, as text that holds a zero byte.
func malformed(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "22")
}
