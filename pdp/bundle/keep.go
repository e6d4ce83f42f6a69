package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// saved is what is known of a kept bundle. It names the archive, so that writing it is what makes a new one count.
type saved struct {
	Digest    string    `json:"digest"`
	ETag      string    `json:"etag,omitempty"`
	From      string    `json:"from"` // SHA-256 of the URL, which may hold a secret
	Confirmed time.Time `json:"confirmed"`
}

const maxSaved = 64 << 10 // bytes of a note

// from names the place that a bundle came from.
func (s *Source) from() string {
	sum := sha256.Sum256([]byte(s.URL))
	return hex.EncodeToString(sum[:])
}

func (s *Source) noteFile() string { return filepath.Join(s.Dir, s.Name+".json") }

func (s *Source) archiveFile(digest string) string {
	return filepath.Join(s.Dir, s.Name+"-"+digest[:16]+".tar.gz")
}

// keep saves a bundle that has begun to decide. That it could not be kept is no reason not to decide by it.
func (s *Source) keep(ctx context.Context, o *offer) {
	if s.Dir == "" {
		return
	}
	if s.kept.Digest == o.bundle.Digest {
		s.unkept = nil
		s.Sink.Stored(s.Name, nil)
		return
	}
	again := s.unkept == o
	s.unkept = o
	err := os.MkdirAll(s.Dir, 0o700)
	if err == nil {
		err = ReplaceFile(s.archiveFile(o.bundle.Digest), o.archive, 0o600)
	}
	if err != nil {
		s.Sink.Stored(s.Name, err)
		if !again { // once is enough
			s.notKept(ctx, err)
		}
		return
	}
	before := s.kept
	s.kept = saved{Digest: o.bundle.Digest, ETag: o.etag, From: s.from(), Confirmed: o.confirmed}
	if !s.note(ctx) {
		s.kept = before
		return
	}
	s.unkept = nil
	s.sweep()
}

// note writes what is known of the kept bundle.
func (s *Source) note(ctx context.Context) bool {
	text, err := json.Marshal(s.kept)
	if err == nil {
		err = ReplaceFile(s.noteFile(), text, 0o600)
	}
	if err != nil {
		s.Sink.Stored(s.Name, err)
		s.notKept(ctx, err)
	} else {
		s.Sink.Stored(s.Name, nil)
	}
	return err == nil
}

func (s *Source) notKept(ctx context.Context, err error) {
	s.Log.ErrorContext(ctx, "bundle not kept for the next start", "source", s.Name, "error", err)
}

// sweep removes archives that nothing names any more, and halves of those that a crash left.
func (s *Source) sweep() {
	for _, pattern := range []string{s.Name + "-????????????????.tar.gz", "." + s.Name + "-????????????????.tar.gz.*", "." + s.Name + ".json.*"} {
		old, _ := filepath.Glob(filepath.Join(s.Dir, pattern)) // the patterns are good
		for _, name := range old {
			if name != s.archiveFile(s.kept.Digest) {
				_ = os.Remove(name) // only room is lost
			}
		}
	}
}

// restore puts the kept bundle, checked as if it had just arrived, unless it is too old.
func (s *Source) restore(ctx context.Context) {
	if s.Dir == "" {
		return
	}
	note, archive, err := s.load()
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var b *Bundle
	if err == nil {
		b, err = s.open(ctx, archive)
	}
	if err != nil {
		s.Log.ErrorContext(ctx, "kept bundle not used", "source", s.Name, "error", err)
		return
	}
	s.Log.InfoContext(ctx, "kept bundle used", "source", s.Name, "bundle_revision", b.Revision, "confirmed", note.Confirmed)
	s.kept, s.etag, s.digest = note, note.ETag, b.Digest
	s.put(ctx, &offer{bundle: b, archive: archive, etag: note.ETag, confirmed: note.Confirmed})
}

// load reads what is kept, if it may be used.
func (s *Source) load() (note saved, archive []byte, err error) {
	text, err := readFile(s.noteFile(), maxSaved)
	if err != nil {
		return saved{}, nil, err
	}
	if err := json.Unmarshal(text, &note); err != nil || len(note.Digest) != 2*sha256.Size {
		return saved{}, nil, errors.New("its note is damaged")
	}
	if _, err := hex.DecodeString(note.Digest); err != nil {
		return saved{}, nil, errors.New("its note is damaged")
	}
	switch age := s.Now().Sub(note.Confirmed); {
	case note.From != s.from():
		return saved{}, nil, errors.New("it comes from another URL")
	case age > s.MaxAge:
		return saved{}, nil, fmt.Errorf("it was confirmed %v ago, longer than max_age %v", age.Round(time.Second), s.MaxAge)
	case age < -time.Minute:
		return saved{}, nil, errors.New("it was confirmed in the future; the clock is not to be believed")
	}
	archive, err = readFile(s.archiveFile(note.Digest), s.Limits.Compressed)
	if err != nil {
		return saved{}, nil, fmt.Errorf("its archive: %v", err) //nolint:errorlint // that the note is missing means something else
	}
	if sum := sha256.Sum256(archive); hex.EncodeToString(sum[:]) != note.Digest {
		return saved{}, nil, errors.New("its archive is damaged")
	}
	return note, archive, nil
}

// readFile reads a file that nobody else may write.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // a name of ours in the operator's folder
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("%s: others may write it", filepath.Base(name))
	}
	return readUpTo(f, limit)
}

// ReplaceFile writes a file at once or not at all, on disk before it answers.
func ReplaceFile(name string, b []byte, mode fs.FileMode) (err error) {
	dir, base := filepath.Dir(name), filepath.Base(name)
	f, err := os.CreateTemp(dir, "."+base+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // only room is lost
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir) //nolint:gosec // the operator's folder
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
