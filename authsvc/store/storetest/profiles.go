package storetest

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
)

func profiles(t *testing.T, open func(*testing.T) Set) {
	first := func() profile.Profile {
		return profile.Profile{
			ID: "u1", Name: "Ada", AvatarURL: "https://example.com/a.png", Preferences: json.RawMessage(`{"a":1}`), Version: 1,
			CreatedAt: noon(), UpdatedAt: noon(),
		}
	}
	// PostgreSQL keeps JSON by its meaning, not by its spelling.
	same := cmp.Transformer("JSON", func(raw json.RawMessage) (v any) {
		if json.Unmarshal(raw, &v) != nil {
			return string(raw)
		}
		return v
	})
	t.Run("a profile is made once", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		must(t, s.Profiles.Create(ctx, first()))
		other := first()
		other.Name = "Somebody else"
		must(t, s.Profiles.Create(ctx, other))
		got, err := s.Profiles.ByID(ctx, "u1")
		must(t, err)
		if diff := cmp.Diff(first(), got, same); diff != "" {
			t.Error(diff)
		}
		_, err = s.Profiles.ByID(ctx, "u2")
		wantErr(t, err, profile.ErrNotFound)
	})
	t.Run("an update counts, and keeps what is not its own to change", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		must(t, s.Profiles.Create(ctx, first()))
		at := noon().Add(time.Hour)
		got, err := s.Profiles.Update(ctx, "u1", func(p *profile.Profile) error {
			p.ID, p.Version, p.CreatedAt = "u9", 99, time.Time{}
			p.Name, p.AvatarURL, p.Preferences, p.UpdatedAt = "Ada L.", "", json.RawMessage(`{"b":[2]}`), at
			return nil
		})
		must(t, err)
		want := profile.Profile{ID: "u1", Name: "Ada L.", Preferences: json.RawMessage(`{"b":[2]}`), Version: 2, CreatedAt: noon(), UpdatedAt: at}
		stored, err := s.Profiles.ByID(ctx, "u1")
		must(t, err)
		for _, p := range []profile.Profile{got, stored} {
			if diff := cmp.Diff(want, p, same); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("an update that fails changes nothing", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		must(t, s.Profiles.Create(ctx, first()))
		broken := errors.New("broken")
		_, err := s.Profiles.Update(ctx, "u1", func(p *profile.Profile) error { p.Name = "x"; return broken })
		wantErr(t, err, broken)
		got, err := s.Profiles.ByID(ctx, "u1")
		must(t, err)
		if diff := cmp.Diff(first(), got, same); diff != "" {
			t.Error(diff)
		}
		_, err = s.Profiles.Update(ctx, "u2", func(*profile.Profile) error { return nil })
		wantErr(t, err, profile.ErrNotFound)
	})
	t.Run("racing updates all count", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		must(t, s.Profiles.Create(ctx, first()))
		const n = 20
		_, errs := race(n, func(int) (profile.Profile, error) {
			return s.Profiles.Update(ctx, "u1", func(p *profile.Profile) error { p.Name += "!"; return nil })
		})
		for _, err := range errs {
			must(t, err)
		}
		got, err := s.Profiles.ByID(ctx, "u1")
		must(t, err)
		if want := len(first().Name) + n; len(got.Name) != want || got.Version != n+1 {
			t.Errorf("%q at version %d, want %d characters and %d", got.Name, got.Version, want, n+1)
		}
	})
}
