package revision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// Back puts in force what decided before what does now, and pins the sources whose bundles that makes others. It answers the revision.
func (s *Bundles) Back(ctx context.Context, by string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(ctx, Delivery)
	var entries []Entry
	for _, d := range s.state.History {
		entries = append(entries, d.Entry)
	}
	revision, err := before(entries, s.decides())
	if err != nil {
		return "", err
	}
	var to Decided
	for _, d := range s.state.History {
		if d.Revision == revision {
			to = d
		}
	}
	want := map[string]*bundle.Bundle{}
	for source, b := range s.deciding() {
		if k, ok := to.Parts[source]; ok && k.Digest != b.Digest {
			if want[source], err = s.load(source, k); err != nil {
				return revision, err
			}
		}
	}
	if len(want) == 0 {
		return revision, errors.New("the policy folder is what has changed since; it is taken back where it is delivered")
	}
	return revision, s.turn(ctx, want, revision, rolledBack+by)
}

// Promote puts in force what was compared: candidates, by the source that each is for, which together with what else decides are of
// this revision.
func (s *Bundles) Promote(ctx context.Context, candidates map[string]*bundle.Bundle, revision, by string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(ctx, Delivery)
	if revision == s.decides() {
		return fmt.Errorf("revision %s decides already", revision)
	}
	want, active := map[string]*bundle.Bundle{}, s.deciding()
	for source, b := range candidates {
		if active[source] == nil {
			return fmt.Errorf("nothing of source %s decides yet", source)
		}
		if b.Digest == active[source].Digest {
			continue
		}
		checked, err := s.open[source].Open(b.Archive) // by what its source is checked by
		if err != nil {
			return fmt.Errorf("the candidate for source %s: %w", source, err)
		}
		if err := s.keep(source, checked); err != nil {
			return err
		}
		want[source] = checked
	}
	return s.turn(ctx, want, revision, by)
}

// turn makes these bundles decide, and all that the sources send instead not. If the revision does not come of it, all is as before.
func (s *Bundles) turn(ctx context.Context, want map[string]*bundle.Bundle, revision, by string) error {
	active, before := s.deciding(), s.state.Sources
	s.state.Sources = maps.Clone(before)
	for source, b := range want {
		pin := &Pin{By: by, At: s.now().UTC(), Confirmed: s.heard[source]}
		var held []string
		if old := before[source]; old != nil {
			held = slices.Clone(old.Held)
		}
		for _, d := range s.state.History { // what decided before is not newer, whoever sends it
			held = append(held, d.Parts[source].Digest)
		}
		if newest := s.newest[source]; newest == nil || newest.Digest != b.Digest { // else it sends what is wanted
			pin.Bundle = &Kept{b.Digest, b.Revision}
			if newest != nil {
				held = append(held, newest.Digest)
			}
		}
		for _, digest := range append(held, active[source].Digest) {
			pin.Held = slices.DeleteFunc(pin.Held, func(d string) bool { return d == digest })
			if digest != "" && digest != b.Digest {
				pin.Held = append(pin.Held, digest)
			}
		}
		pin.Held = pin.Held[max(0, len(pin.Held)-mostHeld):]
		s.state.Sources[source] = pin
	}
	err := s.save()
	if err == nil {
		for _, source := range slices.Sorted(maps.Keys(want)) {
			err = errors.Join(err, s.put(ctx, source, want[source], s.heard[source]))
		}
		if s.decides() == revision {
			err = nil
		} else if err == nil {
			err = fmt.Errorf("revision %s would decide, for something else has changed meanwhile", s.decides())
		}
	}
	if err != nil {
		s.state.Sources = before
		errs := []error{err, s.save()}
		for _, source := range slices.Sorted(maps.Keys(want)) {
			if s.deciding()[source] != active[source] {
				errs = append(errs, s.put(ctx, source, active[source], s.heard[source]))
			}
		}
		return errors.Join(errs...)
	}
	for _, source := range slices.Sorted(maps.Keys(want)) {
		if s.state.Sources[source].Bundle != nil {
			s.log.WarnContext(ctx, "a source is pinned", "source", source, "bundle_revision", want[source].Revision, "by", by)
		}
	}
	s.settle(ctx, by)
	return nil
}

// Release ends all pins, and forgets what is held back: each source's newest decides, if it can.
func (s *Bundles) Release(ctx context.Context, by string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.state.Sources) == 0 {
		return errors.New("no source is pinned, and nothing is held back")
	}
	before := s.state.Sources
	s.state.Sources = map[string]*Pin{}
	if err := s.save(); err != nil {
		s.state.Sources = before
		return err
	}
	var errs []error
	for _, source := range slices.Sorted(maps.Keys(before)) {
		if b := s.newest[source]; b != nil && s.deciding()[source] != b {
			errs = append(errs, s.put(ctx, source, b, s.heard[source]))
		}
	}
	s.settle(ctx, "release by "+by)
	return errors.Join(errs...)
}
