package revision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

const mostHeld = 40 // bundles of a source that are held back

// Bundles stands between the sources of bundles and who decides. It keeps the archives that decided, so that one of them can be put in
// force again, and holds back what the source goes on sending in place of it: a source is pinned until it sends something that was
// never taken back, or until it is released. An archive is checked like one that has just come whenever it is used.
type Bundles struct {
	dir     string
	next    bundle.Sink
	decides func() string // the revision that does
	open    map[string]Opener
	now     func() time.Time
	log     *slog.Logger

	mu     sync.Mutex // held while anything is put
	state  pinned
	newest map[string]*bundle.Bundle // of each source, as it said last
	heard  map[string]time.Time      // of each source

	begun  sync.Mutex // for whoever holds others' locks
	active map[string]*bundle.Bundle

	told atomic.Pointer[told] // for those who must not wait
}

// told is how things were when they last changed.
type told struct {
	history []Entry
	pins    map[string]Pin
	said    string
}

// Opener reads and checks an archive as its source does, and says how old it may be.
type Opener struct {
	Open   func([]byte) (*bundle.Bundle, error)
	Limit  int64 // bytes of an archive
	MaxAge time.Duration
}

// pinned is what is known after a restart.
type pinned struct {
	Sources map[string]*Pin `json:"sources"`
	History []Decided       `json:"history"` // the oldest first
}

// Pin is what an operator has decided of a source.
type Pin struct {
	Bundle    *Kept     `json:"bundle,omitempty"` // decides in place of what is held; nil for none
	Held      []string  `json:"held"`             // digests of archives that do not decide, whoever sends them
	By        string    `json:"by"`
	At        time.Time `json:"at"`
	Confirmed time.Time `json:"confirmed"` // when the source last sent nothing but what is held
}

// Kept names an archive.
type Kept struct {
	Digest   string `json:"digest"`
	Revision string `json:"revision"` // as its manifest says
}

// Decided is what decided together.
type Decided struct {
	Entry
	Parts map[string]Kept `json:"parts"`
}

// OpenBundles opens the folder dir, and makes it if it is not there.
func OpenBundles(dir string, next bundle.Sink, decides func() string, open map[string]Opener, now func() time.Time, log *slog.Logger) (*Bundles, error) {
	s := &Bundles{dir: dir, next: next, decides: decides, open: open, now: now, log: log, newest: map[string]*bundle.Bundle{}, heard: map[string]time.Time{}, active: map[string]*bundle.Bundle{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("revisions: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, bundlesFile)) //nolint:gosec // the operator named the folder
	if err == nil {
		err = json.Unmarshal(text, &s.state)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("revisions: %s: %w", filepath.Join(dir, bundlesFile), err)
	}
	if s.state.Sources == nil {
		s.state.Sources = map[string]*Pin{}
	}
	s.tell()
	return s, nil
}

const bundlesFile = "bundles.json"

// Restore puts what a source is pinned to, if it may be used without having heard the source.
func (s *Bundles) Restore(ctx context.Context, source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pin := s.state.Sources[source]
	if pin == nil || pin.Bundle == nil {
		return
	}
	s.log.WarnContext(ctx, "a source is pinned", "source", source, "bundle_revision", pin.Bundle.Revision, "by", pin.By, "since", pin.At)
	if age := s.now().Sub(pin.Confirmed); age > s.open[source].MaxAge || age < -time.Minute {
		s.log.WarnContext(ctx, "what a source is pinned to waits until the source is heard of", "source", source, "confirmed", pin.Confirmed)
		return
	}
	s.insist(ctx, source, pin.Confirmed)
}

// insist puts what a source is pinned to. For those who hold mu.
func (s *Bundles) insist(ctx context.Context, source string, confirmed time.Time) {
	pin := s.state.Sources[source]
	b, err := s.load(source, *pin.Bundle)
	if err == nil {
		err = s.put(ctx, source, b, confirmed)
	}
	if err != nil { // nothing else decides in place of it: it may be what was taken back
		s.next.Refuse(ctx, source, fmt.Errorf("what it is pinned to cannot be used: %w", err))
	}
}

func (s *Bundles) put(ctx context.Context, source string, b *bundle.Bundle, confirmed time.Time) error {
	return s.next.Put(ctx, source, b, confirmed, func() { s.began(source, b) })
}

// began notes what decides. It may be called under the locks of whoever decides.
func (s *Bundles) began(source string, b *bundle.Bundle) {
	s.begun.Lock()
	defer s.begun.Unlock()
	s.active[source] = b
}

func (s *Bundles) deciding() map[string]*bundle.Bundle {
	s.begun.Lock()
	defer s.begun.Unlock()
	return maps.Clone(s.active)
}

// Put implements bundle.Sink. What is held back does not decide, and that is no failure of the source's.
func (s *Bundles) Put(ctx context.Context, source string, b *bundle.Bundle, confirmed time.Time, decides func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest[source], s.heard[source] = b, confirmed
	defer s.tell()
	if pin := s.state.Sources[source]; pin != nil && slices.Contains(pin.Held, b.Digest) {
		s.log.WarnContext(ctx, "a bundle is held back, since it was taken back", "source", source, "bundle_revision", b.Revision, "digest", b.Digest)
		switch {
		case pin.Bundle != nil:
			s.insist(ctx, source, confirmed)
		case s.deciding()[source] != nil:
			s.next.Confirm(source, confirmed) // it has nothing that may decide in place of what does
		default:
			s.next.Refuse(ctx, source, errors.New("it was taken back, and nothing else is known of this source; gatehouse-pdp release takes it all the same"))
		}
		return nil
	}
	err := s.next.Put(ctx, source, b, confirmed, func() {
		s.began(source, b)
		decides()
	})
	if pin := s.state.Sources[source]; err == nil && pin != nil && pin.Bundle != nil && alike(b, s.deciding()[source]) {
		s.began(source, b) // its source sends what it is pinned to, perhaps signed anew
		pin.Bundle = nil
		_ = s.save() // it logs
	}
	s.settle(ctx, Delivery)
	return err
}

// alike reports whether two bundles are the same to whoever decides.
func alike(a, b *bundle.Bundle) bool {
	return b != nil && slices.Equal(a.Roots, b.Roots) && maps.EqualFunc(a.Files, b.Files, bytes.Equal)
}

// Confirm implements bundle.Sink.
func (s *Bundles) Confirm(source string, at time.Time) {
	s.next.Confirm(source, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard[source] = at
	s.settle(context.Background(), Delivery)
	if pin := s.state.Sources[source]; pin != nil && pin.Bundle != nil && at.Sub(pin.Confirmed) >= min(time.Minute, s.open[source].MaxAge/10) {
		pin.Confirmed = at
		_ = s.save() // it logs
	}
}

// Refuse implements bundle.Sink.
func (s *Bundles) Refuse(ctx context.Context, source string, err error) {
	s.next.Refuse(ctx, source, err)
}

// Away implements bundle.Sink.
func (s *Bundles) Away(ctx context.Context, source string, err error) {
	s.next.Away(ctx, source, err)
}

// Stored implements bundle.Sink.
func (s *Bundles) Stored(source string, err error) { s.next.Stored(source, err) }

// settle notes what has come to decide, and ends pins that something newer has taken the place of. For those who hold mu.
func (s *Bundles) settle(ctx context.Context, by string) {
	active, changed := s.deciding(), false
	for source, pin := range s.state.Sources {
		if b := active[source]; b != nil && pin.Bundle != nil && b.Digest != pin.Bundle.Digest && !slices.Contains(pin.Held, b.Digest) {
			s.log.WarnContext(ctx, "a newer bundle decides in place of what a source was pinned to", "source", source, "bundle_revision", b.Revision, "pinned_to", pin.Bundle.Revision)
			pin.Bundle, changed = nil, true
		}
	}
	revision := s.decides()
	if n := len(s.state.History); revision != "" && (n == 0 || s.state.History[n-1].Revision != revision) {
		d := Decided{Entry{revision, s.now().UTC(), by}, map[string]Kept{}}
		for source, b := range active {
			d.Parts[source] = Kept{b.Digest, b.Revision}
			if err := s.keep(source, b); err != nil {
				s.log.ErrorContext(ctx, "the policies that decide could not be kept, and there is no way back to them", "revision", revision, "error", err)
			}
		}
		s.state.History = append(s.state.History, d)
		if over := len(s.state.History) - most - 1; over > 0 {
			s.state.History = slices.Delete(s.state.History, 0, over)
		}
		changed = true
	}
	if changed && s.save() == nil {
		s.sweep()
	}
}

func (s *Bundles) file(source, digest string) string {
	return filepath.Join(s.dir, source+"-"+filepath.Base(digest)+".tar.gz")
}

func (s *Bundles) keep(source string, b *bundle.Bundle) error {
	name := s.file(source, b.Digest)
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	return bundle.ReplaceFile(name, b.Archive, 0o600)
}

// load reads an archive that was kept, and checks it.
func (s *Bundles) load(source string, k Kept) (*bundle.Bundle, error) {
	open, ok := s.open[source]
	if !ok {
		return nil, fmt.Errorf("there is no source %s any more", source)
	}
	f, err := os.Open(s.file(source, k.Digest)) //nolint:gosec // a name of ours in the operator's folder
	if err != nil {
		return nil, fmt.Errorf("bundle %s of source %s is not kept: %w", k.Revision, source, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	archive, err := io.ReadAll(io.LimitReader(f, open.Limit+1))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(archive); hex.EncodeToString(sum[:]) != k.Digest {
		return nil, fmt.Errorf("the kept bundle %s of source %s is damaged", k.Revision, source)
	}
	b, err := open.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("the kept bundle %s of source %s: %w", k.Revision, source, err)
	}
	return b, nil
}

// save writes what must outlive a restart. For those who hold mu.
func (s *Bundles) save() error {
	text, err := json.MarshalIndent(s.state, "", "  ")
	if err == nil {
		err = bundle.ReplaceFile(filepath.Join(s.dir, bundlesFile), text, 0o600)
	}
	if err != nil {
		s.log.Error("revisions could not be written", "error", err)
	}
	s.tell()
	return err
}

// sweep removes archives that nothing names any more.
func (s *Bundles) sweep() {
	wanted := map[string]bool{}
	for _, d := range s.state.History {
		for source, k := range d.Parts {
			wanted[s.file(source, k.Digest)] = true
		}
	}
	for source, pin := range s.state.Sources {
		if pin.Bundle != nil {
			wanted[s.file(source, pin.Bundle.Digest)] = true
		}
	}
	old, _ := filepath.Glob(filepath.Join(s.dir, "*.tar.gz")) // the pattern is good
	for _, name := range old {
		if !wanted[name] {
			_ = os.Remove(name) // only room is lost
		}
	}
}

// tell says how things are. For those who hold mu.
func (s *Bundles) tell() {
	t := &told{pins: map[string]Pin{}}
	for _, d := range s.state.History {
		t.history = append(t.history, d.Entry)
	}
	var all []string
	for _, source := range slices.Sorted(maps.Keys(s.state.Sources)) {
		pin, newest := s.state.Sources[source], s.newest[source]
		switch {
		case pin.Bundle != nil:
			t.pins[source] = *pin
			all = append(all, fmt.Sprintf("Source %s is pinned to %s (%.16s) since %s, by %s.", source, nameOf(pin.Bundle.Revision), pin.Bundle.Digest, pin.At.Format(time.RFC3339), pin.By))
		case newest != nil && slices.Contains(pin.Held, newest.Digest):
			all = append(all, fmt.Sprintf("Source %s sends %s (%.16s), which was taken back.", source, nameOf(newest.Revision), newest.Digest))
		}
	}
	t.said = strings.Join(all, " ")
	s.told.Store(t)
}

// History is what decided, the oldest first, and whether a source is pinned.
func (s *Bundles) History() (all []Entry, pinned bool) {
	t := s.told.Load()
	return t.history, len(t.pins) > 0
}

// Pins are the sources that are pinned now.
func (s *Bundles) Pins() map[string]Pin { return s.told.Load().pins }

// Said tells people of what is pinned and held back; "" where there is nothing.
func (s *Bundles) Said() string { return s.told.Load().said }

func nameOf(revision string) string {
	if revision == "" {
		return "a bundle without a revision"
	}
	return "bundle " + revision
}
