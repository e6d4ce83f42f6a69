// Package revision keeps policies on disk, so that a candidate can be put in force and taken back without whoever delivers the policy
// folder.
//
// What was promoted stands in for the policy folder as long as the folder holds what it held then, also after a restart. A folder that
// comes to hold something else decides again: the newer delivery wins, and nobody is surprised by an old promotion. Bundles does the
// same for what sources of bundles send.
package revision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

const (
	stateFile = "state.json"
	most      = 10 // revisions that are kept, beside the one that decides
)

// state is what is known after a restart.
type state struct {
	Promoted string  `json:"promoted,omitempty"` // the revision that stands in for the folder; "" for none
	Over     string  `json:"over,omitempty"`     // the folder's revision when it was promoted
	History  []Entry `json:"history"`            // the oldest first
}

// Entry is a revision that decided.
type Entry struct {
	Revision string    `json:"revision"`
	At       time.Time `json:"at"` // since when
	By       string    `json:"by"` // who promoted or rolled back; "delivery" for the folder's own
}

// Delivery is the By of what the folder itself brought.
const Delivery = "delivery"

// Store is the folder of kept revisions. One process uses it at a time.
type Store struct {
	dir    string
	folder fs.FS
	now    func() time.Time
	log    *slog.Logger

	mu     sync.Mutex
	state  state
	seen   string // print of the folder when it was last looked at
	acting sync.Mutex
}

// Open opens the folder dir, and makes it if it is not there. folder is the policy folder.
func Open(dir string, folder fs.FS, now func() time.Time, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("revisions: %w", err)
	}
	s := &Store{dir: dir, folder: folder, now: now, log: log}
	text, err := os.ReadFile(filepath.Join(dir, stateFile)) //nolint:gosec // the operator named the folder
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s.state)
	}
	if err == nil && s.state.Promoted != "" {
		_, err = os.Stat(filepath.Join(dir, filepath.Base(s.state.Promoted)))
	}
	if err != nil {
		return nil, fmt.Errorf("revisions: %s: %w", filepath.Join(dir, stateFile), err)
	}
	return s, nil
}

// Open implements fs.FS: the policies that are to decide.
func (s *Store) Open(name string) (fs.File, error) {
	s.mu.Lock()
	if name == "." && s.state.Promoted != "" {
		s.look()
	}
	promoted := s.state.Promoted
	s.mu.Unlock()
	if promoted == "" {
		return s.folder.Open(name)
	}
	return os.DirFS(filepath.Join(s.dir, filepath.Base(promoted))).Open(name)
}

// look ends a promotion over a folder that is another by now.
func (s *Store) look() {
	print, err := printOf(s.folder)
	if err != nil || print == s.seen {
		return // what cannot be read is not another
	}
	revision, err := revisionOf(s.folder)
	if err != nil {
		return
	}
	if s.seen = print; revision == s.state.Over {
		return
	}
	s.log.Warn("the policy folder has changed, and decides in place of what was promoted", "promoted", s.state.Promoted, "folder", revision)
	s.state.Promoted, s.state.Over = "", ""
	if err := s.save(); err != nil {
		s.log.Error("revisions could not be written", "error", err)
	}
}

func printOf(folder fs.FS) (string, error) {
	var b strings.Builder
	err := fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
		switch hidden := err == nil && name != "." && strings.HasPrefix(d.Name(), "."); {
		case err != nil:
			return err
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden || d.IsDir():
			return nil
		}
		info, err := fs.Stat(folder, name)
		if err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	return b.String(), err
}

func revisionOf(folder fs.FS) (string, error) {
	part, err := engine.ReadFolder(folder)
	if err != nil {
		return "", err
	}
	return part.Digest(), nil
}

func (s *Store) save() error {
	text, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return err
	}
	return bundle.ReplaceFile(filepath.Join(s.dir, stateFile), text, 0o600)
}

// Loaded notes a revision that has come to decide, and keeps its files. The engine's OnLoad calls it.
func (s *Store) Loaded(revision string) {
	part, err := engine.ReadFolder(s)
	if err == nil && part.Digest() == revision { // else it has changed since, and is loaded again
		err = s.keep(revision, part.Files)
	}
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.state.History); n > 0 && s.state.History[n-1].Revision == revision {
			return
		}
		err = s.note(revision, Delivery)
	}
	if err != nil {
		s.log.Error("the policies that decide could not be kept, and there is no way back to them", "revision", revision, "error", err)
	}
}

// note adds to the history, and forgets what is too old. For those who hold mu.
func (s *Store) note(revision, by string) error {
	s.state.History = append(s.state.History, Entry{revision, s.now().UTC(), by})
	if over := len(s.state.History) - most - 1; over > 0 {
		s.state.History = slices.Delete(s.state.History, 0, over)
	}
	if err := s.save(); err != nil {
		return err
	}
	kept, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, d := range kept {
		if d.IsDir() && d.Name() != s.state.Promoted && !slices.ContainsFunc(s.state.History, func(e Entry) bool { return e.Revision == d.Name() }) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, d.Name())))
		}
	}
	return err
}

// keep writes files, all or none.
func (s *Store) keep(revision string, files map[string][]byte) error {
	to := filepath.Join(s.dir, revision)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(s.dir, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // it is not there any more if all went well
	for name, text := range files {
		file := filepath.Join(tmp, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return err
		}
	}
	return os.Rename(tmp, to)
}

// Promote puts a candidate's files in force, by all the steps of loading, or keeps what decides and answers why.
func (s *Store) Promote(ctx context.Context, e *engine.Engine, candidate engine.Part, by string) error {
	s.acting.Lock()
	defer s.acting.Unlock()
	revision := candidate.Digest()
	if revision == e.Revision() {
		return fmt.Errorf("revision %s decides already", revision)
	}
	if err := s.keep(revision, candidate.Files); err != nil {
		return err
	}
	return s.turn(ctx, e, revision, by)
}

// Back puts the revision in force that decided before the one that does now, and answers which.
func (s *Store) Back(ctx context.Context, e *engine.Engine, by string) (string, error) {
	s.acting.Lock()
	defer s.acting.Unlock()
	s.mu.Lock()
	history := slices.Clone(s.state.History)
	s.mu.Unlock()
	to, err := before(history, e.Revision())
	if err != nil {
		return "", err
	}
	return to, s.turn(ctx, e, to, rolledBack+by)
}

// before answers what decided before now does.
func before(history []Entry, now string) (string, error) {
	var way []string // what led to what decides; a way back that was taken is none
	for _, entry := range history {
		if strings.HasPrefix(entry.By, rolledBack) {
			if at := slices.Index(way, entry.Revision); at >= 0 {
				way = way[:at]
			}
		}
		way = append(way, entry.Revision)
	}
	n := len(way)
	switch {
	case n == 0 || way[n-1] != now:
		return "", fmt.Errorf("revision %s decides, and what led to it is not known", now)
	case n == 1:
		return "", fmt.Errorf("nothing is known to have decided before revision %s", way[0])
	}
	return way[n-2], nil
}

// rolledBack begins By of what a rollback put in force.
const rolledBack = "rollback by "

// turn makes a kept revision the one that decides.
func (s *Store) turn(ctx context.Context, e *engine.Engine, revision, by string) error {
	over, err := revisionOf(s.folder)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before := s.state
	before.History = slices.Clone(before.History)
	if s.state.Promoted, s.state.Over = revision, over; revision == over {
		s.state.Promoted, s.state.Over = "", "" // the folder's own
	}
	err = s.note(revision, by)
	s.mu.Unlock()
	if err == nil {
		err = e.Reload(ctx)
	}
	if err == nil && e.Revision() != revision {
		err = fmt.Errorf("revision %s decides, for the folder has changed meanwhile", e.Revision())
	}
	if err == nil {
		return nil
	}
	s.mu.Lock()
	s.state = before
	saved := s.save()
	s.mu.Unlock()
	return errors.Join(err, saved, e.Reload(ctx))
}

// History is what decided, the oldest first, and whether what decides was promoted.
func (s *Store) History() (all []Entry, promoted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.state.History), s.state.Promoted != ""
}
