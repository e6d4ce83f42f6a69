package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
)

// Profiles is the profile.Store.
type Profiles struct{ *DB }

const insertProfile = `
	INSERT INTO profiles (user_id, name, avatar_url, preferences, version, created_at, updated_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (user_id) DO NOTHING`

// Create adds a profile; one that is there stays.
func (s Profiles) Create(ctx context.Context, p profile.Profile) error {
	return s.read(ctx, "create profile", func(ctx context.Context) error {
		_, err := s.db.ExecContext(ctx, insertProfile, p.ID, p.Name, p.AvatarURL, preferences(p), max(p.Version, 1),
			stamp(p.CreatedAt), stamp(p.UpdatedAt))
		return err
	})
}

const selectProfile = `
	SELECT user_id, name, avatar_url, preferences, version, created_at, updated_at
	FROM profiles WHERE user_id = $1`

// ByID finds a user's profile.
func (s Profiles) ByID(ctx context.Context, id string) (profile.Profile, error) {
	var p profile.Profile
	err := s.read(ctx, "find profile", func(ctx context.Context) error {
		err := s.db.QueryRowContext(ctx, selectProfile, id).Scan(&p.ID, &p.Name, &p.AvatarURL, fromJSON{&p.Preferences},
			&p.Version, &p.CreatedAt, &p.UpdatedAt)
		if errors.Is(err, sql.ErrNoRows) {
			return profile.ErrNotFound
		}
		p.CreatedAt, p.UpdatedAt = p.CreatedAt.UTC(), p.UpdatedAt.UTC()
		return err
	})
	if err != nil {
		return profile.Profile{}, err
	}
	return p, nil
}

const updateProfile = `
	UPDATE profiles SET name = $3, avatar_url = $4, preferences = $5, version = version + 1, updated_at = $6
	WHERE user_id = $1 AND version = $2
	RETURNING version`

// Update saves what fn makes of a profile; id, version and time of creation are not fn's to change.
func (s Profiles) Update(ctx context.Context, id string, fn func(*profile.Profile) error) (profile.Profile, error) {
	for {
		was, err := s.ByID(ctx, id)
		if err != nil {
			return profile.Profile{}, err
		}
		p := was
		p.Preferences = bytes.Clone(was.Preferences)
		if err := fn(&p); err != nil {
			return profile.Profile{}, err
		}
		p.ID, p.CreatedAt, p.UpdatedAt = was.ID, was.CreatedAt, stamp(p.UpdatedAt)
		p.Preferences = json.RawMessage(preferences(p))
		lost := false
		err = s.read(ctx, "update profile", func(ctx context.Context) error {
			err := s.db.QueryRowContext(ctx, updateProfile, id, was.Version, p.Name, p.AvatarURL, preferences(p),
				p.UpdatedAt).Scan(&p.Version)
			lost = errors.Is(err, sql.ErrNoRows)
			if lost {
				return nil
			}
			return err
		})
		if err != nil {
			return profile.Profile{}, err
		}
		if !lost {
			return p, nil
		}
	}
}

func preferences(p profile.Profile) string {
	if len(p.Preferences) == 0 {
		return "{}"
	}
	return string(p.Preferences)
}
