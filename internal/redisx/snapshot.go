package redisx

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RevocationSnapshot is the Redis hash that holds all revocations which still matter, so that a reader need not read a long
// stream, and loses nothing where the stream was trimmed before it was read. It is optional: the stream alone is enough for
// whoever reads all of it.
//
// A field is "kind:value" and holds "exp", or "exp:nbf" for a subject, in milliseconds since 1970. The fields "cursor" and
// "added" say where in the stream it was made, see Cursor; a reader goes on in the stream from there. Whoever
// writes the snapshot fills RevocationSnapshot + ":new" and renames it, so that a reader sees an old or a new one, whole.
const (
	RevocationSnapshot    = "gatehouse:revocations:{snapshot}" // the braces keep both keys in one slot of a cluster
	newRevocationSnapshot = RevocationSnapshot + ":new"
)

const (
	cursorField  = "cursor"
	addedField   = "added"
	snapshotPage = 1000 // fields in one command
)

// ErrSnapshot says that what lies at RevocationSnapshot is none.
var ErrSnapshot = errors.New("revocations: not a snapshot")

// Cursor is a place in the stream of revocations.
type Cursor struct {
	ID    string // the newest entry before it
	Added int64  // how many entries the stream had had by then (XINFO STREAM, entries-added)
}

// RevocationCursor answers the end of the stream. Ask before gathering what a snapshot shall hold: whatever is published in
// between is then read from the stream.
func RevocationCursor(ctx context.Context, c redis.Cmdable) (Cursor, error) {
	info, err := c.XInfoStream(ctx, RevocationStream).Result()
	switch {
	case NoSuchKey(err):
		return Cursor{ID: "0-0"}, nil
	case err != nil:
		return Cursor{}, fmt.Errorf("revocation cursor: %w", err)
	}
	return Cursor{info.LastGeneratedID, info.EntriesAdded}, nil
}

// WriteRevocationSnapshot replaces the snapshot by all, which must hold every revocation that was published before cursor and
// still matters; of several with the same kind and value, one that ends what any of them does. Only one may write at a time.
func WriteRevocationSnapshot(ctx context.Context, c redis.Cmdable, cursor Cursor, all iter.Seq[Revocation]) error {
	if err := writeSnapshot(ctx, c, cursor, all); err != nil {
		return fmt.Errorf("write revocation snapshot: %w", err)
	}
	return nil
}

func writeSnapshot(ctx context.Context, c redis.Cmdable, cursor Cursor, all iter.Seq[Revocation]) error {
	if err := c.Del(ctx, newRevocationSnapshot).Err(); err != nil {
		return err
	}
	fields := []any{cursorField, cursor.ID, addedField, cursor.Added}
	for r := range all {
		fields = append(fields, r.Kind+":"+r.Value, r.snapshot())
		if len(fields) >= 2*snapshotPage {
			if err := c.HSet(ctx, newRevocationSnapshot, fields...).Err(); err != nil {
				return err
			}
			fields = fields[:0]
		}
	}
	if len(fields) > 0 {
		if err := c.HSet(ctx, newRevocationSnapshot, fields...).Err(); err != nil {
			return err
		}
	}
	// One that nobody renews ends, rather than be believed for ever.
	if err := c.Expire(ctx, newRevocationSnapshot, keep).Err(); err != nil {
		return err
	}
	return c.Rename(ctx, newRevocationSnapshot, RevocationSnapshot).Err()
}

func (r Revocation) snapshot() string {
	s := strconv.FormatInt(r.ExpiresAt.UnixMilli(), 10)
	if r.Kind == KindSubject {
		s += ":" + strconv.FormatInt(r.NotBefore.UnixMilli(), 10)
	}
	return s
}

// ReadRevocationSnapshot gives every entry of the snapshot to take, some maybe twice, and answers where it was made: no id
// where there is no snapshot, or where it was replaced while it was read (then read again). Each command ends within patience. Entries
// that cannot be read go to bad.
func ReadRevocationSnapshot(ctx context.Context, c redis.Cmdable, patience time.Duration, take func(Revocation), bad func(error)) (Cursor, error) {
	before, err := snapshotCursor(ctx, c, patience)
	if before.ID == "" || err != nil {
		return Cursor{}, err
	}
	for at := uint64(0); ; {
		var fields []string
		if fields, at, err = scanSnapshot(ctx, c, patience, at); err != nil {
			return Cursor{}, fmt.Errorf("read revocation snapshot: %w", err)
		}
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == cursorField || fields[i] == addedField {
				continue
			}
			r, err := ParseSnapshotField(fields[i], fields[i+1])
			if err != nil {
				bad(err)
				continue
			}
			take(r)
		}
		if at == 0 {
			break
		}
	}
	after, err := snapshotCursor(ctx, c, patience)
	if err != nil || after != before {
		return Cursor{}, err
	}
	return before, nil
}

func scanSnapshot(ctx context.Context, c redis.Cmdable, patience time.Duration, at uint64) ([]string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.HScan(ctx, RevocationSnapshot, at, "", snapshotPage).Result()
}

func snapshotCursor(ctx context.Context, c redis.Cmdable, patience time.Duration) (Cursor, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := c.HMGet(ctx, RevocationSnapshot, cursorField, addedField).Result()
	switch {
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return Cursor{}, ErrSnapshot
	case err != nil:
		return Cursor{}, fmt.Errorf("read revocation snapshot: %w", err)
	case len(found) != 2:
		return Cursor{}, ErrSnapshot
	case found[0] == nil && found[1] == nil:
		return Cursor{}, nil
	}
	return ParseCursor(found[0], found[1])
}

// ParseCursor reads the fields "cursor" and "added" of a snapshot.
func ParseCursor(id, added any) (Cursor, error) {
	text, _ := id.(string)
	if m, n := splitStreamID(text); m == 0 && n == 0 && text != "0-0" {
		return Cursor{}, ErrSnapshot
	}
	count, _ := added.(string)
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 0 {
		return Cursor{}, ErrSnapshot
	}
	return Cursor{text, n}, nil
}

// ParseSnapshotField reads one field of a snapshot.
func ParseSnapshotField(field, value string) (Revocation, error) {
	kind, name, _ := strings.Cut(field, ":")
	exp, nbf, given := strings.Cut(value, ":")
	v := map[string]any{"kind": kind, "value": name, "exp": exp}
	if given {
		v["nbf"] = nbf
	}
	return ParseRevocation(v)
}
