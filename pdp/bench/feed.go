package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// roleFeed sends the scenario's bindings as who administers roles does: a snapshot, and the changes after it. The subject "edition"
// has a number that tells how far a decision point is.
type roleFeed struct {
	net.Listener
	server *http.Server
	rest   []byte // lines of all subjects but that one
	lines  int

	mu       sync.Mutex
	epoch    int
	revision uint64
	changed  chan struct{}
}

func sendRoles(ctx context.Context, users int) (*roleFeed, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &roleFeed{Listener: l, revision: 1, changed: make(chan struct{}), lines: users + 1}
	var all bytes.Buffer
	for u := range users {
		s := feed.Subject{ID: userName(u)}
		for _, r := range rolesOf(u) {
			s.Bindings = append(s.Bindings, feed.Binding{Role: roleName(r)})
		}
		writeLine(&all, feed.Line{Subject: &s})
	}
	f.rest = all.Bytes()
	f.server = &http.Server{ReadHeaderTimeout: time.Second, Handler: f}
	go func() {
		if err := f.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "roles:", err)
		}
	}()
	return f, nil
}

func writeLine(to *bytes.Buffer, l feed.Line) { _ = json.NewEncoder(to).Encode(l) } // strings alone, to memory

func (f *roleFeed) url() string { return "http://" + f.Addr().String() }

// next makes another edition: one subject changes, or all are to be read anew.
func (f *roleFeed) next(anew bool) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.revision++; anew {
		f.epoch++
	}
	close(f.changed)
	f.changed = make(chan struct{})
	return int(f.revision) //nolint:gosec // small
}

func (f *roleFeed) now() (epoch string, revision uint64, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint("e", f.epoch), f.revision, f.changed
}

func edition(revision uint64) *feed.Subject {
	return &feed.Subject{ID: "edition", Revision: revision, Attributes: map[string]any{"n": revision}, Bindings: []feed.Binding{{Role: roleName(0)}}}
}

// ServeHTTP implements http.Handler by the contract of package feed.
func (f *roleFeed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	epoch, revision, changed := f.now()
	var out bytes.Buffer
	w.Header().Set("Content-Type", feed.MediaType)
	if r.URL.Path == feed.SnapshotPath {
		writeLine(&out, feed.Line{Begin: &feed.Begin{Epoch: epoch, Revision: revision, At: time.Now()}})
		writeLine(&out, feed.Line{Subject: edition(revision)})
		_, _ = w.Write(out.Bytes()) // who reads it notices
		_, _ = w.Write(f.rest)
		out.Reset()
		writeLine(&out, feed.Line{End: &feed.End{Lines: f.lines}})
		_, _ = w.Write(out.Bytes())
		return
	}
	since, _ := strconv.ParseUint(r.FormValue("since"), 10, 64)
	wait, _ := strconv.Atoi(r.FormValue("wait"))
	if r.FormValue("epoch") == epoch && since == revision {
		select {
		case <-changed:
		case <-r.Context().Done():
		case <-time.After(time.Duration(min(wait, 30)) * time.Second):
		}
		epoch, revision, _ = f.now()
	}
	if r.FormValue("epoch") != epoch {
		w.WriteHeader(http.StatusGone)
		return
	}
	writeLine(&out, feed.Line{Begin: &feed.Begin{Epoch: epoch, Revision: revision, At: time.Now()}})
	for n := since + 1; n <= revision; n++ {
		writeLine(&out, feed.Line{Subject: edition(n)})
	}
	writeLine(&out, feed.Line{End: &feed.End{Lines: int(revision - since)}}) //nolint:gosec // small
	_, _ = w.Write(out.Bytes())
}

// directoryEditions are of a decision point that knows bindings from a directory, in a folder that it is to be started from.
func (b *bench) directoryEditions(f *roleFeed) (dir string, all []published, err error) {
	if dir, err = b.write("directory", indexed, 1, false); err != nil {
		return "", nil, err
	}
	text := bytes.ReplaceAll([]byte(policyOf(indexed)), []byte("data.rbac.user_roles[input.subject.id]"), []byte("data.directory.subjects[input.subject.id].roles"))
	text = append(text, "\npublished := data.directory.subjects.edition.attributes.n\n"...)
	for _, anew := range []bool{false, true} {
		name := "a binding in the directory"
		if anew {
			name = "the directory anew"
		}
		all = append(all, published{name, "authz/published", func(int) (func() (int, error), error) {
			return func() (int, error) { return f.next(anew), nil }, nil
		}})
	}
	return dir, all, os.WriteFile(filepath.Join(dir, "authz/policy.rego"), text, 0o600)
}
