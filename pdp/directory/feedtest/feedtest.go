// Package feedtest is the contract of package feed as a test, which every sender must pass, and a sender for the tests of readers.
package feedtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// Sender is a sender that holds nothing yet, and the ways to change what it holds. Each is one change, done when the method
// returns; whatever fails ends the test.
type Sender interface {
	// URL is where feed's paths begin, without a slash at its end.
	URL() string
	// Client is a reader that may read; its requests bear whatever the sender asks of readers.
	Client() *http.Client
	// PutRole makes a role or replaces it. Roles that it inherits are there.
	PutRole(t *testing.T, role feed.Role)
	// DropRole takes away a role that nobody holds or inherits.
	DropRole(t *testing.T, name string)
	// Bind gives a role, which is there, to a subject. A binding of the same role and tenant is replaced.
	Bind(t *testing.T, subject string, b feed.Binding)
	// Unbind takes a binding away.
	Unbind(t *testing.T, subject, role, tenant string)
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// Run checks that what start answers keeps the contract. start is called for each test and cleans up by t.
func Run(t *testing.T, start func(t *testing.T) Sender) {
	t.Helper()
	clerk := feed.Role{Name: "clerk", Permissions: []feed.Permission{{Action: "read", Resource: "order", Conditions: []string{"department"}}}}
	chief := feed.Role{Name: "chief", Inherits: []string{"clerk"}, Permissions: []feed.Permission{{Action: "delete", Resource: "order"}}}

	t.Run("nothing is a snapshot too", func(t *testing.T) {
		a := snapshot(t, start(t))
		if len(a.roles) > 0 || len(a.subjects) > 0 || a.begin.Epoch == "" || a.begin.At.IsZero() {
			t.Errorf("begins with %+v and holds roles %v, subjects %v", a.begin, a.roles, a.subjects)
		}
	})
	t.Run("a snapshot has each role and subject once", func(t *testing.T) {
		s := start(t)
		s.PutRole(t, clerk)
		s.PutRole(t, chief)
		end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		s.Bind(t, "alice", feed.Binding{Role: "clerk"})
		s.Bind(t, "alice", feed.Binding{Role: "chief", Tenant: "t1", Until: &end})
		s.Bind(t, "bob", feed.Binding{Role: "clerk", Tenant: "t2"})
		a := snapshot(t, s)
		a.wantRoles(t, clerk, chief)
		a.wantBindings(t, map[string][]feed.Binding{
			"alice": {{Role: "chief", Tenant: "t1", Until: &end}, {Role: "clerk"}},
			"bob":   {{Role: "clerk", Tenant: "t2"}},
		})
	})
	t.Run("changes follow a snapshot in their order", func(t *testing.T) {
		s := start(t)
		s.PutRole(t, clerk)
		a := snapshot(t, s)
		s.PutRole(t, chief)
		s.Bind(t, "alice", feed.Binding{Role: "clerk"})
		s.Bind(t, "alice", feed.Binding{Role: "chief"})
		s.Unbind(t, "alice", "clerk", "")
		s.Bind(t, "bob", feed.Binding{Role: "clerk"})
		s.Unbind(t, "bob", "clerk", "")
		changed := clerk
		changed.Permissions = nil
		s.PutRole(t, changed)
		s.PutRole(t, feed.Role{Name: "short"})
		s.DropRole(t, "short")
		a.follow(t, s, 0)
		a.wantRoles(t, changed, chief)
		a.wantBindings(t, map[string][]feed.Binding{"alice": {{Role: "chief"}}})
		if now := snapshot(t, s); now.begin.Revision != a.begin.Revision || now.begin.Epoch != a.begin.Epoch {
			t.Errorf("a snapshot is of %s/%d, but the changes lead to %s/%d", now.begin.Epoch, now.begin.Revision, a.begin.Epoch, a.begin.Revision)
		} else {
			now.wantRoles(t, changed, chief)
			now.wantBindings(t, map[string][]feed.Binding{"alice": {{Role: "chief"}}})
		}
	})
	t.Run("a binding that is replaced ends when the new one does", func(t *testing.T) {
		s := start(t)
		s.PutRole(t, clerk)
		soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		late := soon.Add(time.Hour)
		s.Bind(t, "alice", feed.Binding{Role: "clerk", Until: &soon})
		a := snapshot(t, s)
		s.Bind(t, "alice", feed.Binding{Role: "clerk", Until: &late})
		a.follow(t, s, 0)
		a.wantBindings(t, map[string][]feed.Binding{"alice": {{Role: "clerk", Until: &late}}})
	})
	t.Run("without changes the answer is empty", func(t *testing.T) {
		s := start(t)
		s.PutRole(t, clerk)
		a := snapshot(t, s)
		before := a.begin.Revision
		for _, wait := range []int{0, 1} {
			if n := a.follow(t, s, wait); n != 0 || a.begin.Revision != before {
				t.Errorf("%d lines, and revision %d after %d", n, a.begin.Revision, before)
			}
		}
	})
	t.Run("a question is held until something changes", func(t *testing.T) {
		s := start(t)
		s.PutRole(t, clerk)
		a := snapshot(t, s)
		lines := make(chan int, 1)
		began := time.Now()
		go func() { // it may come before or after the change; both must see it
			defer close(lines)
			if n, err := a.followed(s, 25); err != nil {
				t.Errorf("changes: %v", err)
			} else {
				lines <- n
			}
		}()
		s.Bind(t, "alice", feed.Binding{Role: "clerk"})
		if n := <-lines; n != 1 || time.Since(began) > patience {
			t.Errorf("%d lines after %v", n, time.Since(began))
		}
		a.wantBindings(t, map[string][]feed.Binding{"alice": {{Role: "clerk"}}})
	})
	t.Run("who cannot go on is told so", func(t *testing.T) {
		s := start(t)
		s.PutRole(t, clerk)
		a := snapshot(t, s)
		for name, q := range map[string]url.Values{
			"another epoch": query("another", a.begin.Revision, 0),
			"ahead":         query(a.begin.Epoch, a.begin.Revision+1000, 0),
		} {
			res, err := get(s, feed.ChangesPath, q)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusGone {
				t.Errorf("%s: %s, want 410", name, res.Status)
			}
		}
	})
}

// answer is what a reader knows.
type answer struct {
	begin    feed.Begin
	roles    map[string]feed.Role
	subjects map[string]feed.Subject
}

func snapshot(t *testing.T, s Sender) *answer {
	t.Helper()
	a := &answer{roles: map[string]feed.Role{}, subjects: map[string]feed.Subject{}}
	lines, err := ask(s, feed.SnapshotPath, nil, &a.begin)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	for _, l := range lines {
		switch {
		case l.Role != nil && (l.Role.Gone || a.roles[l.Role.Name].Name != ""):
			t.Errorf("snapshot: role %q is gone or there twice", l.Role.Name)
		case l.Subject != nil && (l.Subject.Gone || a.subjects[l.Subject.ID].ID != ""):
			t.Errorf("snapshot: subject %q is gone or there twice", l.Subject.ID)
		}
		a.take(l)
	}
	return a
}

func (a *answer) take(l feed.Line) {
	switch {
	case l.Role != nil && l.Role.Gone:
		delete(a.roles, l.Role.Name)
	case l.Role != nil:
		a.roles[l.Role.Name] = *l.Role
	case l.Subject.Gone:
		delete(a.subjects, l.Subject.ID)
	default:
		a.subjects[l.Subject.ID] = *l.Subject
	}
}

func (a *answer) follow(t *testing.T, s Sender, wait int) (lines int) {
	t.Helper()
	n, err := a.followed(s, wait)
	if err != nil {
		t.Fatalf("changes: %v", err)
	}
	return n
}

func (a *answer) followed(s Sender, wait int) (int, error) {
	since := a.begin
	lines, err := ask(s, feed.ChangesPath, query(since.Epoch, since.Revision, wait), &a.begin)
	if err != nil {
		return 0, err
	}
	at := since.Revision
	for _, l := range lines {
		revision := uint64(0)
		if l.Role != nil {
			revision = l.Role.Revision
		} else {
			revision = l.Subject.Revision
		}
		if revision != at && revision != at+1 || revision == since.Revision {
			return 0, fmt.Errorf("revision %d comes after %d; they count up by one", revision, at)
		}
		at = revision
		a.take(l)
	}
	if a.begin.Revision != at || a.begin.Epoch != since.Epoch {
		return 0, fmt.Errorf("the answer is of %s/%d, its last change of %s/%d", a.begin.Epoch, a.begin.Revision, since.Epoch, at)
	}
	return len(lines), nil
}

func query(epoch string, since uint64, wait int) url.Values {
	q := url.Values{"epoch": {epoch}, "since": {fmt.Sprint(since)}}
	if wait > 0 {
		q.Set("wait", fmt.Sprint(wait))
	}
	return q
}

func get(s Sender, path string, q url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.URL()+path+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return s.Client().Do(req)
}

// ask answers the lines between Begin and End, and checks their form.
func ask(s Sender, path string, q url.Values, begin *feed.Begin) ([]feed.Line, error) {
	res, err := get(s, path, q)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); res.StatusCode != http.StatusOK || kind != feed.MediaType {
		return nil, fmt.Errorf("%s, %q", res.Status, res.Header.Get("Content-Type"))
	}
	var lines []feed.Line
	scan := bufio.NewScanner(res.Body)
	scan.Buffer(nil, 1<<20)
	begun, ended := false, false
	for scan.Scan() {
		var members map[string]json.RawMessage
		var l feed.Line
		if err := json.Unmarshal(scan.Bytes(), &members); err != nil || len(members) != 1 {
			return nil, fmt.Errorf("not a line with one member: %s", scan.Bytes())
		}
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			return nil, err
		}
		switch {
		case ended || begun == (l.Begin != nil):
			return nil, fmt.Errorf("out of place: %s", scan.Bytes())
		case l.Begin != nil:
			begun, *begin = true, *l.Begin
		case l.End != nil:
			if ended = true; l.End.Lines != len(lines) {
				return nil, fmt.Errorf("it ends after %[2]d lines, and says %[1]d", l.End.Lines, len(lines))
			}
		case l.Role == nil && l.Subject == nil:
			return nil, fmt.Errorf("unknown: %s", scan.Bytes())
		default:
			lines = append(lines, l)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, err
	}
	if !ended {
		return nil, io.ErrUnexpectedEOF
	}
	return lines, nil
}

func (a *answer) wantRoles(t *testing.T, want ...feed.Role) {
	t.Helper()
	got := slices.SortedFunc(maps.Values(a.roles), func(a, b feed.Role) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(want, func(a, b feed.Role) int { return strings.Compare(a.Name, b.Name) })
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(feed.Role{}, "Revision")); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
}

// wantBindings compares who holds what; a subject without bindings may be left out or not.
func (a *answer) wantBindings(t *testing.T, want map[string][]feed.Binding) {
	t.Helper()
	got := map[string][]feed.Binding{}
	for id, s := range a.subjects {
		if len(s.Bindings) > 0 {
			got[id] = slices.SortedFunc(slices.Values(s.Bindings), func(a, b feed.Binding) int { return strings.Compare(a.Role+"/"+a.Tenant, b.Role+"/"+b.Tenant) })
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bindings (-want +got):\n%s", diff)
	}
}
