package storetest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/directory"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// copied is what a reader of the feed knows.
type copied struct {
	roles    map[string]feed.Role
	subjects map[string]feed.Subject
}

func (c *copied) take(l feed.Line) {
	if r := l.Role; r != nil {
		r.Revision = 0
		if c.roles[r.Name] = *r; r.Gone {
			delete(c.roles, r.Name)
		}
	}
	if n := l.Subject; n != nil {
		n.Revision = 0
		if c.subjects[n.ID] = *n; n.Gone {
			delete(c.subjects, n.ID)
		}
	}
}

func empty() *copied { return &copied{map[string]feed.Role{}, map[string]feed.Subject{}} }

// follow takes the changes after since, by pages of limit, and answers where that ends.
func (c *copied) follow(t *testing.T, s Set, epoch string, since uint64, limit int) uint64 {
	t.Helper()
	for {
		begin, lines, err := s.Directory.Changes(t.Context(), epoch, since, limit)
		must(t, err)
		if len(lines) == 0 {
			if begin.Revision != since {
				t.Fatalf("no changes lead from %d to %d", since, begin.Revision)
			}
			return since
		}
		for _, raw := range lines {
			var l feed.Line
			must(t, json.Unmarshal(raw, &l))
			if since++; (l.Role == nil || l.Role.Revision != since) && (l.Subject == nil || l.Subject.Revision != since) {
				t.Fatalf("the change after revision %d is %s", since-1, raw)
			}
			c.take(l)
		}
		if begin.Revision != since {
			t.Fatalf("an answer to %d says that it leads to %d", since, begin.Revision)
		}
	}
}

func snapshot(t *testing.T, s Set) (feed.Begin, *copied) {
	t.Helper()
	c := empty()
	var at feed.Begin
	must(t, s.Directory.Snapshot(t.Context(), func(b feed.Begin) error { at = b; return nil }, func(l feed.Line) error {
		if l.Role != nil && len(c.subjects) > 0 {
			t.Error("a role comes after a subject")
		}
		if l.Subject != nil {
			if _, twice := c.subjects[l.Subject.ID]; twice {
				t.Errorf("%s comes twice", l.Subject.ID)
			}
		}
		c.take(l)
		return nil
	}))
	return at, c
}

func directories(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "a snapshot says everything as it is", func(t *testing.T, s Set) {
		at, c := snapshot(t, s)
		same(t, "the first revision", at.Revision, 0)
		same(t, "the subjects", len(c.subjects)+len(c.roles), 0)
		if at.Epoch == "" {
			t.Error("it has no epoch")
		}
		create(t, s, named("a"), editors(), named("b", "a", "editor"))
		end := kept(noon().Add(time.Hour))
		give(t, s, bound("b1", "ada", "b", "acme"), until(bound("b2", "ada", "a", ""), end), bound("b3", "bob", "a", ""))
		_, _, err := s.Roles.SetSubject(t.Context(), because("x"), "ada", func(n *role.Subject) error {
			n.Tenant, n.Groups, n.Attributes = "acme", []string{"g"}, map[string]any{"level": 3.0}
			return nil
		})
		must(t, err)
		at, c = snapshot(t, s)
		same(t, "the revision", at.Revision, 7)
		same(t, "the roles", c.roles, map[string]feed.Role{
			"a": {Name: "a", Inherits: []string{}}, "b": {Name: "b", Inherits: []string{"a", "editor"}},
			"editor": {Name: "editor", Inherits: []string{}, Permissions: []feed.Permission{
				{Action: "orders.edit", Resource: "order", Conditions: []string{"own", "open"}}, {Action: "x", Resource: "*"},
			}},
		})
		same(t, "the subjects", c.subjects, map[string]feed.Subject{
			"ada": {
				ID: "ada", Tenant: "acme", Groups: []string{"g"}, Attributes: map[string]any{"level": 3.0},
				Bindings: []feed.Binding{{Role: "a", Until: &end}, {Role: "b", Tenant: "acme"}},
			},
			"bob": {ID: "bob", Bindings: []feed.Binding{{Role: "a"}}},
		})
	})

	check(t, open, "whoever follows the changes knows what a snapshot says", func(t *testing.T, s Set) {
		random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
		for _, id := range []string{"ada", "zoe"} {
			u := ada()
			u.ID, u.Email, u.Roles = id, id+"@x.test", []string{"a", "b", "customer"}
			must(t, s.Accounts.Create(t.Context(), u, nil))
		}
		at, _ := snapshot(t, s)
		follower := empty()
		since := at.Revision
		for range 20 {
			for range 10 {
				anything(t, s, random)
			}
			since = follower.follow(t, s, at.Epoch, since, 1+random.IntN(12))
			now, all := snapshot(t, s)
			if now.Revision != since {
				t.Fatalf("the changes end at %d, the snapshot is of %d", since, now.Revision)
			}
			sortBindings(follower)
			sortBindings(all)
			same(t, "the roles", follower.roles, all.roles)
			same(t, "the subjects", follower.subjects, all.subjects)
		}
		if since < 50 {
			t.Errorf("only %d changes", since)
		}
		wantState(t, s, since)
	})

	check(t, open, "who is told of is told of with what the account carries into its tokens", func(t *testing.T, s Set) {
		for _, id := range []string{"u1", "u2"} {
			u := ada()
			u.ID, u.Email, u.Roles, u.Attributes = id, id+"@x.test", []string{"a", "customer"}, map[string]string{"department": "sales", "floor": "3"}
			must(t, s.Accounts.Create(t.Context(), u, nil))
		}
		create(t, s, named("a"), named("b"))
		give(t, s, until(bound("b1", "u1", "a", ""), noon().Add(time.Hour)), bound("b2", "u1", "b", "acme"))
		expected := map[string]feed.Subject{"u1": {
			ID: "u1", Attributes: map[string]any{"department": "sales", "floor": "3"},
			Bindings: []feed.Binding{{Role: "a"}, {Role: "b", Tenant: "acme"}, {Role: "customer"}},
		}}
		follower := empty()
		at, all := snapshot(t, s)
		follower.follow(t, s, at.Epoch, 0, 10)
		for _, c := range []*copied{all, follower} {
			sortBindings(c)
			same(t, "the subjects", c.subjects, expected)
		}
		_, _, err := s.Roles.SetSubject(t.Context(), because("x"), "u1", func(n *role.Subject) error {
			n.Attributes = map[string]any{"department": "it"}
			return nil
		})
		must(t, err)
		_, all = snapshot(t, s)
		same(t, "the attributes", all.subjects["u1"].Attributes, map[string]any{"department": "it", "floor": "3"})
	})

	check(t, open, "a snapshot is of one moment, and holds nobody up", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		give(t, s, bound("b1", "ada", "a", ""))
		seen := empty()
		must(t, s.Directory.Snapshot(t.Context(), func(b feed.Begin) error {
			same(t, "the revision", b.Revision, 2)
			create(t, s, named("b"))
			give(t, s, bound("b2", "bob", "a", ""), bound("b3", "ada", "b", ""))
			return nil
		}, func(l feed.Line) error { seen.take(l); return nil }))
		same(t, "the roles", len(seen.roles), 1)
		same(t, "the subjects", seen.subjects, map[string]feed.Subject{"ada": {ID: "ada", Bindings: []feed.Binding{{Role: "a"}}}})
	})

	check(t, open, "a snapshot ends with the first error of whoever takes it", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b"))
		enough, n := errors.New("enough"), 0
		want(t, s.Directory.Snapshot(t.Context(), func(feed.Begin) error { return enough }, nil), enough)
		want(t, s.Directory.Snapshot(t.Context(), func(feed.Begin) error { return nil }, func(feed.Line) error { n++; return enough }), enough)
		same(t, "how many lines", n, 1)
		create(t, s, named("c")) // nothing is held
	})

	check(t, open, "who cannot go on from where they are begins again", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b"))
		at, err := s.Directory.At(t.Context())
		must(t, err)
		for what, c := range map[string]struct {
			epoch string
			since uint64
		}{"another epoch": {"other", 1}, "no epoch": {"", 0}, "ahead of the data": {at.Epoch, 3}} {
			t.Log(what)
			_, _, err := s.Directory.Changes(t.Context(), c.epoch, c.since, 10)
			want(t, err, directory.ErrGone)
		}
		later := because("a week later")
		later.At = noon().Add(8 * 24 * time.Hour)
		_, _, err = s.Roles.CreateRole(t.Context(), later, named("c"), nil)
		must(t, err)
		for since, answer := range map[uint64]error{0: directory.ErrGone, 1: directory.ErrGone, 2: nil, 3: nil} {
			_, _, err := s.Directory.Changes(t.Context(), at.Epoch, since, 10)
			want(t, err, answer)
		}
		epoch := got[string](t)(s.Roles.NewEpoch(t.Context()))
		_, _, err = s.Directory.Changes(t.Context(), at.Epoch, 3, 10)
		want(t, err, directory.ErrGone)
		_, _, err = s.Directory.Changes(t.Context(), epoch, 2, 10)
		want(t, err, directory.ErrGone)
		_, lines, err := s.Directory.Changes(t.Context(), epoch, 3, 10)
		must(t, err)
		same(t, "the changes", len(lines), 0)
	})

	check(t, open, "who waits in this process is woken by a commit, and by nothing else", func(t *testing.T, s Set) {
		changed := s.Directory.Changed()
		_, _, err := s.Roles.CreateRole(t.Context(), because("x"), named("a", "none"), nil)
		want(t, err, role.ErrParentUnknown)
		select {
		case <-changed:
			t.Error("woken by a refusal")
		default:
		}
		create(t, s, named("a"))
		select {
		case <-changed:
		default:
			t.Error("not woken")
		}
	})
}

// anything changes something, or is refused.
func anything(t *testing.T, s Set, random *rand.Rand) {
	t.Helper()
	names, people, tenants := []string{"a", "b", "c", "d"}, []string{"ada", "bob", "eve"}, []string{"", "acme"}
	one := func(list []string) string { return list[random.IntN(len(list))] }
	c := because("anything")
	c.At = noon().Add(time.Duration(random.IntN(100)) * time.Minute)
	var err error
	switch random.IntN(8) {
	case 0:
		_, _, err = s.Roles.CreateRole(t.Context(), c, named(one(names)), nil)
	case 1:
		_, _, err = s.Roles.UpdateRole(t.Context(), c, one(names), func(r *role.Role) error {
			r.Inherits = []string{one(names)}
			r.Permissions = []role.Permission{{Action: one(names), Resource: one(names)}}
			return nil
		}, nil)
	case 2:
		_, err = s.Roles.DeleteRole(t.Context(), c, one(names), func(role.Role) error { return nil }, nil)
	case 3, 4:
		b := bound(fmt.Sprint(random.Uint64()), one(people), one(names), one(tenants))
		if random.IntN(2) == 0 {
			b = until(b, noon().Add(time.Duration(random.IntN(100))*time.Minute))
		}
		_, err = s.Roles.Grant(t.Context(), c, b, nil)
	case 5:
		_, _, err = s.Roles.Revoke(t.Context(), c, one(people), one(names), one(tenants), role.Revocation{ID: fmt.Sprint(random.Uint64())})
	case 6:
		_, err = s.Roles.Expire(t.Context(), c, 2)
	case 7:
		if random.IntN(2) == 0 {
			_, err = s.Roles.DeleteSubject(t.Context(), c, one(people), func(role.Subject) error { return nil })
			break
		}
		_, _, err = s.Roles.SetSubject(t.Context(), c, one(people), func(n *role.Subject) error {
			n.Tenant, n.Groups, n.Attributes = one(tenants), []string{one(names)}, map[string]any{"a": one(names), "n": float64(random.IntN(9))}
			return nil
		})
	}
	for _, refusal := range []error{
		role.ErrRoleExists, role.ErrRoleNotFound, role.ErrCycle, role.ErrParentUnknown, role.ErrRoleInUse, role.ErrBindingExists,
		role.ErrBindingNotFound, role.ErrSubjectInUse, role.ErrSubjectNotFound,
	} {
		if errors.Is(err, refusal) {
			return
		}
	}
	must(t, err)
}

// sortBindings gives bindings, and what is empty, one form: neither has an order or a form in the feed.
func sortBindings(c *copied) {
	for id, n := range c.subjects {
		slices.SortFunc(n.Bindings, func(a, b feed.Binding) int {
			return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Tenant, b.Tenant))
		})
		if len(n.Groups) == 0 {
			n.Groups = nil
		}
		if len(n.Attributes) == 0 {
			n.Attributes = nil
		}
		c.subjects[id] = n
	}
	for name, r := range c.roles {
		if len(r.Inherits) == 0 {
			r.Inherits = nil
		}
		c.roles[name] = r
	}
}
