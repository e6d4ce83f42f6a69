package redisx

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// RevocationStream is the Redis stream that authsvc writes and every plugin process reads.
const RevocationStream = "gatehouse:revocations"

// keep is how long an entry stays in the stream: far longer than any access token lives.
const keep = 24 * time.Hour

// The kinds of a revocation, by the claim that they match.
const (
	KindSession = "sid"
	KindSubject = "sub" // together with NotBefore
	KindToken   = "jti"
	KindClient  = "client_id"
	KindKey     = "kid"
)

// maxValue bounds what a reader takes into its memory, in bytes.
const maxValue = 512

// Revocation ends tokens before they expire. Entries may be published and read more than once.
type Revocation struct {
	Kind      string
	Value     string
	NotBefore time.Time // kind sub: tokens issued at or before this are dead; in milliseconds
	ExpiresAt time.Time // from here on no such token can be alive, so the entry may be forgotten
}

// Values is the entry's form in the stream; times are milliseconds since 1970.
func (r Revocation) Values() map[string]any {
	v := map[string]any{"kind": r.Kind, "value": r.Value, "exp": r.ExpiresAt.UnixMilli()}
	if !r.NotBefore.IsZero() {
		v["nbf"] = r.NotBefore.UnixMilli()
	}
	return v
}

// ParseRevocation reads an entry of the stream.
func ParseRevocation(v map[string]any) (Revocation, error) {
	r := Revocation{}
	r.Kind, _ = v["kind"].(string)
	r.Value, _ = v["value"].(string)
	switch r.Kind {
	case KindSession, KindSubject, KindToken, KindClient, KindKey:
	default:
		return Revocation{}, errors.New("revocation: unknown kind")
	}
	if r.Value == "" || len(r.Value) > maxValue {
		return Revocation{}, errors.New("revocation: value is empty or too long")
	}
	var err error
	if r.ExpiresAt, err = milliseconds(v["exp"]); err != nil {
		return Revocation{}, fmt.Errorf("revocation: exp: %w", err)
	}
	if _, given := v["nbf"]; given || r.Kind == KindSubject {
		if r.NotBefore, err = milliseconds(v["nbf"]); err != nil {
			return Revocation{}, fmt.Errorf("revocation: nbf: %w", err)
		}
	}
	return r, nil
}

func milliseconds(v any) (time.Time, error) {
	s, _ := v.(string)
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}, errors.New("not a time in milliseconds")
	}
	return time.UnixMilli(n), nil
}

// PublishRevocation appends r to the stream and lets entries older than a day go.
func PublishRevocation(ctx context.Context, c redis.Cmdable, r Revocation, now time.Time) error {
	err := c.XAdd(ctx, &redis.XAddArgs{
		Stream: RevocationStream,
		MinID:  strconv.FormatInt(now.Add(-keep).UnixMilli(), 10),
		Approx: true,
		Values: r.Values(),
	}).Err()
	if err != nil {
		return fmt.Errorf("publish revocation: %w", err)
	}
	return nil
}
