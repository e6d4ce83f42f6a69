package feedtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// Fake is a sender over real HTTP that keeps what it sends in memory, and can be made to fail.
type Fake struct {
	server *httptest.Server

	mu       sync.Mutex
	changed  chan struct{} // closed by the next change
	epoch    string
	revision uint64
	oldest   uint64 // changes begin after it
	roles    map[string]feed.Role
	subjects map[string]feed.Subject
	log      []feed.Line

	token     string
	status    int // answered in place of everything, unless 0
	cut       int // lines after which an answer breaks off, unless 0
	snapshots int
	asked     int
}

// NewFake starts a sender that ends with t.
func NewFake(t testing.TB) *Fake {
	f := &Fake{changed: make(chan struct{}), epoch: "e1", roles: map[string]feed.Role{}, subjects: map[string]feed.Subject{}}
	f.server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
	})
	return f
}

// URL implements Sender.
func (f *Fake) URL() string { return f.server.URL }

// Client implements Sender.
func (f *Fake) Client() *http.Client { return f.server.Client() }

// PutRole implements Sender.
func (f *Fake) PutRole(_ *testing.T, r feed.Role) {
	f.change(func(revision uint64) feed.Line {
		r.Revision = revision
		f.roles[r.Name] = r
		return feed.Line{Role: &r}
	})
}

// DropRole implements Sender.
func (f *Fake) DropRole(_ *testing.T, name string) {
	f.change(func(revision uint64) feed.Line {
		delete(f.roles, name)
		return feed.Line{Role: &feed.Role{Revision: revision, Name: name, Gone: true}}
	})
}

// Bind implements Sender.
func (f *Fake) Bind(_ *testing.T, subject string, b feed.Binding) {
	f.Change(subject, func(s *feed.Subject) {
		s.Bindings = append(without(s.Bindings, b.Role, b.Tenant), b)
	})
}

// Unbind implements Sender.
func (f *Fake) Unbind(_ *testing.T, subject, role, tenant string) {
	f.Change(subject, func(s *feed.Subject) { s.Bindings = without(s.Bindings, role, tenant) })
}

func without(bs []feed.Binding, role, tenant string) []feed.Binding {
	return slices.DeleteFunc(slices.Clone(bs), func(b feed.Binding) bool { return b.Role == role && b.Tenant == tenant })
}

// Change changes a subject, which is made if there is none. Set Gone to take it away.
func (f *Fake) Change(id string, change func(*feed.Subject)) {
	f.change(func(revision uint64) feed.Line {
		s := f.subjects[id]
		s.ID = id
		change(&s)
		s.Revision = revision
		if s.Gone {
			delete(f.subjects, id)
			return feed.Line{Subject: &feed.Subject{Revision: revision, ID: id, Gone: true}}
		}
		f.subjects[id] = s
		return feed.Line{Subject: &s}
	})
}

// NewEpoch is a restore from a backup: revisions begin anew.
func (f *Fake) NewEpoch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch, f.revision, f.oldest, f.log = f.epoch+"x", 0, 0, nil
	f.wake()
}

// Forget forgets the changes so far, so that nobody can go on from before.
func (f *Fake) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oldest, f.log = f.revision, nil
	f.wake()
}

// Fail answers a status in place of everything, 0 for no more.
func (f *Fake) Fail(status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = status
	f.wake()
}

// Cut breaks answers off after so many lines, 0 for no more.
func (f *Fake) Cut(lines int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = lines
	f.wake()
}

// Require asks readers for a bearer token.
func (f *Fake) Require(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token = token
}

// Asked answers how many requests came, and how many of them for a snapshot.
func (f *Fake) Asked() (all, snapshots int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked, f.snapshots
}

// Revision is that of the last change.
func (f *Fake) Revision() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.revision
}

func (f *Fake) change(make func(revision uint64) feed.Line) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision++
	f.log = append(f.log, make(f.revision))
	f.wake()
}

func (f *Fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked++
	if r.URL.Path == feed.SnapshotPath {
		f.snapshots++
	}
	status, token := f.status, f.token
	f.mu.Unlock()
	switch {
	case status != 0:
		w.WriteHeader(status)
	case token != "" && r.Header.Get("Authorization") != "Bearer "+token:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == feed.SnapshotPath:
		f.snapshot(w)
	case r.URL.Path == feed.ChangesPath:
		f.changes(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (f *Fake) snapshot(w http.ResponseWriter) {
	f.mu.Lock()
	begin := feed.Begin{Epoch: f.epoch, Revision: f.revision, At: time.Now().UTC()}
	var lines []feed.Line
	for _, name := range slices.Sorted(maps.Keys(f.roles)) {
		r := f.roles[name]
		lines = append(lines, feed.Line{Role: &r})
	}
	for _, id := range slices.Sorted(maps.Keys(f.subjects)) {
		s := f.subjects[id]
		lines = append(lines, feed.Line{Subject: &s})
	}
	cut := f.cut
	f.mu.Unlock()
	write(w, begin, lines, cut)
}

func (f *Fake) changes(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	since, err := strconv.ParseUint(q.Get("since"), 10, 64)
	seconds, _ := strconv.Atoi(q.Get("wait")) // none is 0
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	over := time.After(min(time.Duration(seconds)*time.Second, feed.MaxWait))
	for waiting := seconds > 0; ; {
		f.mu.Lock()
		if q.Get("epoch") != f.epoch || since < f.oldest || since > f.revision {
			f.mu.Unlock()
			w.WriteHeader(http.StatusGone)
			return
		}
		changed, status, cut := f.changed, f.status, f.cut
		lines := slices.Clone(f.log[since-f.oldest:])
		begin := feed.Begin{Epoch: f.epoch, Revision: f.revision, At: time.Now().UTC()}
		f.mu.Unlock()
		switch {
		case status != 0:
			w.WriteHeader(status)
			return
		case len(lines) > 0 || !waiting:
			write(w, begin, lines, cut)
			return
		}
		select {
		case <-changed:
		case <-over:
			waiting = false
		case <-r.Context().Done():
			return
		}
	}
}

// write writes an answer, or the beginning of one.
func write(w http.ResponseWriter, begin feed.Begin, lines []feed.Line, cut int) {
	w.Header().Set("Content-Type", feed.MediaType)
	all := append([]feed.Line{{Begin: &begin}}, lines...)
	all = append(all, feed.Line{End: &feed.End{Lines: len(lines)}})
	enc := json.NewEncoder(w)
	for i, l := range all {
		if cut > 0 && i >= cut {
			panic(http.ErrAbortHandler)
		}
		if err := enc.Encode(l); err != nil {
			panic(fmt.Errorf("feedtest: %w", err))
		}
	}
}
