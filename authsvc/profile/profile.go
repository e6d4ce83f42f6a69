// Package profile owns what users tell of themselves: name, picture, preferences. It is a service apart from accounts: it
// is keyed by the user's id and knows neither address nor password.
package profile

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Profile is one user's profile.
type Profile struct {
	ID          string // the user's id
	Name        string
	AvatarURL   string
	Preferences json.RawMessage // a JSON object; what is in it is the client's business
	Version     int64           // 1 when created, one more with each update
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// ErrNotFound is a Store's answer for a user without a profile.
var ErrNotFound = fault.New(fault.NotFound, "There is no profile, or not yet.").Named("profile_not_found")

// Store keeps profiles. Each method is one atomic step; storetest.Run is its contract. A database that cannot be reached
// is fault.Unavailable.
type Store interface {
	// Create adds p, whose Preferences are {} if empty. One that is there already stays as it is, and that is no error.
	Create(ctx context.Context, p Profile) error
	// ByID answers ErrNotFound.
	ByID(ctx context.Context, id string) (Profile, error)
	// Update saves what fn makes of the current profile, with its Version one higher, and answers it. fn may run again
	// after a lost race; its error ends the update, unchanged, and is returned. ID, Version and CreatedAt are not fn's to
	// change. It answers ErrNotFound.
	Update(ctx context.Context, id string, fn func(*Profile) error) (Profile, error)
}
