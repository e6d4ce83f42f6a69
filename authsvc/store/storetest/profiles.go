package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
)

// adas is a profile as a store answers it.
func adas() profile.Profile {
	return profile.Profile{
		ID: "u1", Name: "Ada Löwe \U0001F981", AvatarURL: "https://x.test/a.png", Preferences: json.RawMessage(`{"b":[1,null],"a":"ü"}`),
		Version: 1, CreatedAt: kept(noon()), UpdatedAt: kept(noon().Add(time.Second)),
	}
}

func rename(to string) func(*profile.Profile) error {
	return func(p *profile.Profile) error {
		p.Name = to
		return nil
	}
}

func profiles(t *testing.T, open func(*testing.T) Set) {
	find := func(t *testing.T, s Set) profile.Profile {
		t.Helper()
		return got[profile.Profile](t)(s.Profiles.ByID(t.Context(), "u1"))
	}

	check(t, open, "a profile is found as it was created, and needs no account", func(t *testing.T, s Set) {
		given := adas()
		given.CreatedAt, given.UpdatedAt = noon(), noon().Add(time.Second)
		must(t, s.Profiles.Create(t.Context(), given))
		same(t, "the profile", find(t, s), adas())
	})

	check(t, open, "a profile that is there stays as it is", func(t *testing.T, s Set) {
		must(t, s.Profiles.Create(t.Context(), adas()))
		got[profile.Profile](t)(s.Profiles.Update(t.Context(), "u1", rename("Countess")))
		changed := find(t, s)
		must(t, s.Profiles.Create(t.Context(), adas()))
		same(t, "the profile", find(t, s), changed)
	})

	check(t, open, "of parallel creates one counts and none fails", func(t *testing.T, s Set) {
		for _, err := range race(racers, func(i int) error {
			p := adas()
			p.Name = fmt.Sprint("Ada ", i)
			return s.Profiles.Create(t.Context(), p)
		}) {
			must(t, err)
		}
		if p := find(t, s); p.Version != 1 {
			t.Errorf("it has version %d", p.Version)
		}
	})

	check(t, open, "who has no profile is not found", func(t *testing.T, s Set) {
		must(t, s.Profiles.Create(t.Context(), adas()))
		_, err := s.Profiles.ByID(t.Context(), "u2")
		want(t, err, profile.ErrNotFound)
		_, err = s.Profiles.Update(t.Context(), "u2", rename("nobody"))
		want(t, err, profile.ErrNotFound)
	})

	check(t, open, "an update saves what was made of the profile, one version on", func(t *testing.T, s Set) {
		must(t, s.Profiles.Create(t.Context(), adas()))
		expected := adas()
		expected.Name, expected.AvatarURL, expected.Preferences = "", "https://x.test/b.png", json.RawMessage(`{"theme":"dark"}`)
		expected.Version, expected.UpdatedAt = 2, kept(noon().Add(time.Hour))
		answer := got[profile.Profile](t)(s.Profiles.Update(t.Context(), "u1", func(p *profile.Profile) error {
			same(t, "the profile as it is", *p, adas())
			p.Name, p.AvatarURL, p.Preferences = expected.Name, expected.AvatarURL, expected.Preferences
			p.UpdatedAt = noon().Add(time.Hour)
			return nil
		}))
		same(t, "the answer", answer, expected)
		same(t, "the profile", find(t, s), expected)
	})

	check(t, open, "id, version and creation are not an update's to change", func(t *testing.T, s Set) {
		must(t, s.Profiles.Create(t.Context(), adas()))
		answer := got[profile.Profile](t)(s.Profiles.Update(t.Context(), "u1", func(p *profile.Profile) error {
			p.ID, p.Version, p.CreatedAt = "u2", 40, time.Time{}
			return nil
		}))
		expected := adas()
		expected.Version = 2
		same(t, "the answer", answer, expected)
		same(t, "the profile", find(t, s), expected)
	})

	check(t, open, "no preferences are an empty object", func(t *testing.T, s Set) {
		bare := adas()
		bare.Preferences, bare.Version = nil, 0
		must(t, s.Profiles.Create(t.Context(), bare))
		expected := adas()
		expected.Preferences = json.RawMessage(`{}`)
		same(t, "the profile", find(t, s), expected)
		answer := got[profile.Profile](t)(s.Profiles.Update(t.Context(), "u1", func(p *profile.Profile) error {
			p.Preferences = nil
			return nil
		}))
		expected.Version = 2
		same(t, "the answer", answer, expected)
		same(t, "the profile", find(t, s), expected)
	})

	check(t, open, "an update that fails changes nothing and tells why", func(t *testing.T, s Set) {
		must(t, s.Profiles.Create(t.Context(), adas()))
		refusal := errors.New("not like this")
		answer, err := s.Profiles.Update(t.Context(), "u1", func(p *profile.Profile) error {
			p.Name = "Eve"
			p.Preferences[0] = 'x'
			return refusal
		})
		want(t, err, refusal)
		same(t, "the answer", answer.ID, "")
		same(t, "the profile", find(t, s), adas())
	})

	check(t, open, "parallel updates all count (S72)", func(t *testing.T, s Set) {
		start := adas()
		start.Name = "0"
		must(t, s.Profiles.Create(t.Context(), start))
		errs := make([]error, racers)
		versions := race(racers, func(i int) int64 {
			var p profile.Profile
			p, errs[i] = s.Profiles.Update(t.Context(), "u1", func(p *profile.Profile) error {
				n, err := strconv.Atoi(p.Name)
				p.Name = strconv.Itoa(n + 1)
				return err
			})
			if p.Name != strconv.FormatInt(p.Version-1, 10) {
				t.Errorf("version %d has %s updates", p.Version, p.Name)
			}
			return p.Version
		})
		must(t, errors.Join(errs...))
		seen := map[int64]bool{}
		for _, v := range versions {
			seen[v] = true
		}
		if p := find(t, s); len(seen) != racers || p.Version != racers+1 || p.Name != strconv.Itoa(racers) {
			t.Errorf("%d updates made %d versions, the last is %d and counts %s", racers, len(seen), p.Version, p.Name)
		}
	})
}
