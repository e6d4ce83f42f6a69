package revision_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/revision"
)

// point decides by what it is given, unless that is among what it refuses.
type point struct {
	decides string
	refuses map[string]bool
	told    []string // of refusals that are not its own
}

func (p *point) Put(_ context.Context, _ string, b *bundle.Bundle, _ time.Time, decides func()) error {
	if p.refuses[b.Revision] {
		return fmt.Errorf("%s does not load", b.Revision)
	}
	if p.decides = b.Revision; decides != nil {
		decides()
	}
	return nil
}

func (*point) Confirm(string, time.Time)                       {}
func (*point) Away(context.Context, string, error)             {}
func (*point) Stored(string, error)                            {}
func (p *point) Refuse(_ context.Context, _ string, err error) { p.told = append(p.told, err.Error()) }

// kept is a source "a" whose bundles come from made, before a point.
type kept struct {
	*revision.Bundles
	*point
	dir      string
	verified error // why archives are not, whatever they are
}

func made(t *testing.T, name string) *bundle.Bundle {
	t.Helper()
	archive, err := bundle.Write(map[string][]byte{".manifest": fmt.Appendf(nil, `{"revision":%q,"roots":["a"]}`, name), "a/data.json": fmt.Appendf(nil, `{"is":%q}`, name)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(archive, bundle.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func opened(t *testing.T, dir string) *kept {
	t.Helper()
	k := &kept{point: &point{refuses: map[string]bool{}}, dir: dir}
	open := map[string]revision.Opener{"a": {MaxAge: time.Hour, Limit: 1 << 20, Open: func(archive []byte) (*bundle.Bundle, error) {
		if k.verified != nil {
			return nil, k.verified
		}
		return bundle.Open(archive, bundle.Limits{}, nil)
	}}}
	var err error
	k.Bundles, err = revision.OpenBundles(dir, k.point, func() string { return k.decides }, open, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sends is what the source comes to send.
func (k *kept) sends(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := k.Bundles.Put(t.Context(), "a", made(t, name), time.Now(), func() {}); err != nil {
			t.Fatal(err)
		}
	}
}

func (k *kept) wants(t *testing.T, decides string, pinned bool) {
	t.Helper()
	if _, is := k.Pins()["a"]; k.decides != decides || is != pinned {
		t.Errorf("%s decides, pinned %t; want %s, %t", k.decides, is, decides, pinned)
	}
}

// S62: what cannot be put in force, because it is not signed as it must be by now, does not load any more, or could not be remembered,
// is not, and what decides goes on, without a pin.
func TestABundleThatCannotBeTakenBackChangesNothing(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, *kept){
		"not signed as it must be": func(_ *testing.T, k *kept) { k.verified = errors.New("signed by a key that is not one of ours") },
		"does not load any more":   func(_ *testing.T, k *kept) { k.refuses["r1"] = true },
		"no room to remember it": func(t *testing.T, k *kept) {
			file := filepath.Join(k.dir, "bundles.json")
			if err := errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "in the way"), 0o700)); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, k *kept) {
			all, err := filepath.Glob(filepath.Join(k.dir, "*.tar.gz"))
			for _, file := range all {
				err = errors.Join(err, os.Remove(file))
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := opened(t, t.TempDir())
			k.sends(t, "r1", "r2")
			spoil(t, k)
			if _, err := k.Back(t.Context(), "somebody"); err == nil {
				t.Error("it is said to be taken back")
			}
			k.wants(t, "r2", false)
			k.sends(t, "r2")
			k.wants(t, "r2", false)
		})
	}
}

// A pin whose archive is not verified any more does not give way to what was taken back.
func TestAPinThatCannotBeUsedDoesNotLetTheBadOneIn(t *testing.T) {
	t.Parallel()
	k := opened(t, t.TempDir())
	k.sends(t, "r1", "r2")
	if to, err := k.Back(t.Context(), "somebody"); err != nil || to != "r1" {
		t.Fatal(to, err)
	}
	k.wants(t, "r1", true)
	k = opened(t, k.dir) // after a restart, with other keys
	k.verified = errors.New("signed by a key that is not one of ours")
	k.Restore(t.Context(), "a")
	k.sends(t, "r2")
	k.wants(t, "", true)
	if len(k.told) == 0 || !strings.Contains(k.told[0], "what it is pinned to cannot be used: the kept bundle r1 of source a: signed by") {
		t.Errorf("told %q", k.told)
	}
	k.sends(t, "r3")
	k.wants(t, "r3", false)
}

// The way back leads past what was taken back, to what decided before, as far as that is kept; and a release undoes it all.
func TestTheWayBackLeadsFurther(t *testing.T) {
	t.Parallel()
	k := opened(t, t.TempDir())
	k.sends(t, "r1", "r2", "r3")
	for _, want := range []string{"r2", "r1"} {
		if to, err := k.Back(t.Context(), "somebody"); err != nil || to != want {
			t.Fatalf("%s, %v", to, err)
		}
		k.wants(t, want, true)
		k.sends(t, "r3")
		k.wants(t, want, true)
	}
	if _, err := k.Back(t.Context(), "somebody"); err == nil {
		t.Error("there is something before the first")
	}
	k.sends(t, "r3")
	if err := k.Release(t.Context(), "somebody"); err != nil {
		t.Error(err)
	}
	k.wants(t, "r3", false)
	if err := k.Release(t.Context(), "somebody"); err == nil {
		t.Error("there is something left to release")
	}
	k = opened(t, k.dir)
	k.sends(t, "r3")
	k.wants(t, "r3", false)
}
