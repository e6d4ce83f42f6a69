package profile

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Service reads and changes profiles.
type Service struct {
	Store Store
	Now   func() time.Time
}

// The refusals of Patch beyond those of single fields.
var (
	ErrNoPrecondition = fault.New(fault.Invalid, "Say with If-Match which version the change is for.").Named("precondition_required")
	ErrChanged        = fault.New(fault.Conflict, "The profile has changed since you read it.").Named("precondition_failed")
	ErrNotJSON        = fault.New(fault.Invalid, "The body is not JSON, or names something twice.").Named("malformed_body")
)

// ETag is the entity tag of a profile's present version, strong (RFC 9110 section 8.8.3).
func (p Profile) ETag() string { return `"` + strconv.FormatInt(p.Version, 10) + `"` }

// Create makes the profile of a new user. One that is there already stays as it is. A name that Patch would refuse is
// left empty: the account is not to fail for it.
func (s *Service) Create(ctx context.Context, userID, name string) error {
	if checkName(name) != nil {
		name = ""
	}
	now := s.Now()
	return s.Store.Create(ctx, Profile{
		ID: userID, Name: name, Preferences: json.RawMessage(`{}`), Version: 1, CreatedAt: now, UpdatedAt: now,
	})
}

// Get answers a user's profile.
func (s *Service) Get(ctx context.Context, userID string) (Profile, error) {
	return s.Store.ByID(ctx, userID)
}

// Patch applies a JSON merge patch (RFC 7396) to name, avatar_url and preferences, if ifMatch (the value of If-Match, RFC
// 9110 section 13.1.1) names the present version. Nothing is changed unless all of it can be.
func (s *Service) Patch(ctx context.Context, userID string, patch []byte, ifMatch string) (Profile, error) {
	if strings.TrimSpace(ifMatch) == "" {
		return Profile{}, ErrNoPrecondition
	}
	change, err := parsePatch(patch)
	if err != nil {
		return Profile{}, err
	}
	return s.Store.Update(ctx, userID, func(p *Profile) error {
		if !matches(ifMatch, p.ETag()) {
			return ErrChanged
		}
		if err := change.apply(p); err != nil {
			return err
		}
		p.UpdatedAt = s.Now()
		return nil
	})
}

// matches compares strongly: a weak tag matches nothing.
func matches(ifMatch, etag string) bool {
	tags := strings.Split(ifMatch, ",")
	return slices.ContainsFunc(tags, func(t string) bool {
		t = strings.TrimSpace(t)
		return t == "*" || t == etag
	})
}
