// Package token owns the signing keys and what is signed with them: access tokens as of RFC 9068. It mints, publishes the
// key set, and verifies what this service itself has minted.
package token

import (
	"context"
	"time"
)

// State is where a key is on its way.
type State string

// The states of a key: a next key is published before it signs, so that every verifier knows it in time.
const (
	Next     State = "next"
	Active   State = "active"
	Retiring State = "retiring"
)

// Key is a stored signing key.
type Key struct {
	ID        string // kid
	Algorithm string
	State     State
	Sealed    []byte // the private key: PKCS #8 DER, sealed; the kid is its associated data
	CreatedAt time.Time
}

// Store keeps signing keys. Each method is one atomic step; storetest.Run is its contract.
type Store interface {
	// Keys answers all keys, oldest first; none is no error.
	Keys(ctx context.Context) ([]Key, error)
	// Init adds the keys if there are none at all, and does nothing otherwise: of several instances that start at the
	// same moment, one decides. One key is active and at most one is next; anything else is refused whole. It answers the
	// keys that are then stored, oldest first.
	Init(ctx context.Context, keys []Key) ([]Key, error)
}
