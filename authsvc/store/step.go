package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// step runs fn in a transaction that commits if fn answers nil and leaves nothing otherwise. Errors are wrapped by failed.
func (d *DB) step(ctx context.Context, what string, fn func(ctx context.Context, tx *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return d.failed(what, err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit this does nothing
	if err := fn(ctx, tx); err != nil {
		return d.failed(what, err)
	}
	return d.failed(what, tx.Commit())
}

// read runs fn outside a transaction: one statement, one snapshot.
func (d *DB) read(ctx context.Context, what string, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return d.failed(what, fn(ctx))
}

// row is what QueryRow and Query's cursor have in common.
type row interface{ Scan(dest ...any) error }

// stamp is a time as both databases keep it: UTC, microseconds.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// optional is stamp for a time that may be absent.
func optional(t *time.Time) any {
	if t == nil || t.IsZero() {
		return nil
	}
	return stamp(*t)
}

func pointer(t sql.NullTime) *time.Time {
	if !t.Valid {
		return nil
	}
	u := t.Time.UTC()
	return &u
}

// document makes the text of a JSON column.
func document(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode: %w", err)
	}
	return string(b), nil
}

// fromJSON reads a JSON column into to.
type fromJSON struct{ to any }

func (f fromJSON) Scan(src any) error {
	switch v := src.(type) {
	case []byte:
		return json.Unmarshal(v, f.to)
	case string:
		return json.Unmarshal([]byte(v), f.to)
	}
	return fmt.Errorf("a JSON column came as %T", src)
}
