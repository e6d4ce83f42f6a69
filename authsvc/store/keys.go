package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/gatehouse-auth/gatehouse/authsvc/token"
)

// Keys is the token.Store.
type Keys struct{ *DB }

const selectKeys = `
	SELECT id, algorithm, state, sealed, created_at
	FROM signing_keys ORDER BY created_at, id`

// Keys answers all signing keys, oldest first.
func (k Keys) Keys(ctx context.Context) ([]token.Key, error) {
	var keys []token.Key
	err := k.read(ctx, "list signing keys", func(ctx context.Context) error {
		rows, err := k.db.QueryContext(ctx, selectKeys)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key token.Key
			if err := rows.Scan(&key.ID, &key.Algorithm, &key.State, &key.Sealed, &key.CreatedAt); err != nil {
				return err
			}
			key.CreatedAt = key.CreatedAt.UTC()
			keys = append(keys, key)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

const countKeys = `SELECT count(*) FROM signing_keys`

// A table has at most one active key. An instance that comes second waits here for the first and then inserts nothing.
const insertKey = `
	INSERT INTO signing_keys (id, algorithm, state, sealed, created_at) VALUES ($1, $2, $3, $4, $5)
	ON CONFLICT DO NOTHING`

// Init adds the first keys, one of them active, unless there are keys already.
func (k Keys) Init(ctx context.Context, keys []token.Key) ([]token.Key, error) {
	// The active key goes first: who inserts it decides.
	first := slices.IndexFunc(keys, func(key token.Key) bool { return key.State == token.Active })
	if first < 0 {
		return nil, errors.New("initialise signing keys: none of them is active")
	}
	ordered := append([]token.Key{keys[first]}, slices.Delete(slices.Clone(keys), first, first+1)...)
	err := k.step(ctx, "initialise signing keys", func(ctx context.Context, tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, countKeys).Scan(&n); err != nil || n > 0 {
			return err
		}
		for i, key := range ordered {
			done, err := tx.ExecContext(ctx, insertKey, key.ID, key.Algorithm, string(key.State), key.Sealed, stamp(key.CreatedAt))
			if err != nil {
				return err
			}
			inserted, err := done.RowsAffected()
			if err != nil {
				return err
			}
			switch {
			case inserted == 0 && i == 0:
				return nil // another instance was first
			case inserted == 0:
				return errors.New("two keys share an id or a state")
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return k.Keys(ctx)
}
