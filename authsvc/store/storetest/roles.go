package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

// because is a cause of the tests.
func because(reason string) role.Cause {
	return role.Cause{Actor: "boss", At: noon(), Reason: reason, Ticket: "T-1", RequestID: "trace"}
}

func named(name string, inherits ...string) role.Role {
	return role.Role{Name: name, Inherits: append([]string{}, inherits...), Permissions: []role.Permission{}, CreatedAt: noon(), UpdatedAt: noon()}
}

// editors is a role as a store answers it.
func editors() role.Role {
	r := named("editor")
	r.Description, r.Protected, r.Version = "edits ü \u2028", true, 1
	r.Permissions = []role.Permission{{Action: "orders.edit", Resource: "order", Conditions: []string{"own", "open"}}, {Action: "x", Resource: "*"}}
	r.CreatedAt, r.UpdatedAt = kept(noon()), kept(noon())
	return r
}

func create(t *testing.T, s Set, all ...role.Role) {
	t.Helper()
	for _, r := range all {
		_, _, err := s.Roles.CreateRole(t.Context(), because("set up"), r, nil)
		must(t, err)
	}
}

func inherit(parents ...string) func(*role.Role) error {
	return func(r *role.Role) error {
		r.Inherits = parents
		return nil
	}
}

// wantState compares the revision, and that the audit has a line for each up to it.
func wantState(t *testing.T, s Set, revision uint64) {
	t.Helper()
	at, err := s.Directory.At(t.Context())
	must(t, err)
	if at.Revision != revision {
		t.Errorf("the revision is %d, want %d", at.Revision, revision)
	}
	all := got[[]role.Audit](t)(s.Roles.Audits(t.Context(), role.AuditFilter{}, 0, 1000))
	slices.Reverse(all)
	for i, line := range all {
		if line.Revision != uint64(i+1) {
			t.Fatalf("line %d of the audit has revision %d", i, line.Revision)
		}
	}
	if uint64(len(all)) != revision {
		t.Errorf("the audit has %d lines, want %d", len(all), revision)
	}
	if revision > 0 {
		_, lines, err := s.Directory.Changes(t.Context(), at.Epoch, 0, 1000)
		must(t, err)
		if uint64(len(lines)) != revision {
			t.Errorf("there are %d changes, want %d", len(lines), revision)
		}
	}
}

func roles(t *testing.T, open func(*testing.T) Set) {
	nothing := func(role.Role) error { return nil }

	check(t, open, "a role is found as it was created", func(t *testing.T, s Set) {
		given := editors()
		given.CreatedAt, given.UpdatedAt, given.Version = noon(), noon(), 7
		made, revision, err := s.Roles.CreateRole(t.Context(), because("new"), given, nil)
		must(t, err)
		same(t, "the answer", made, editors())
		same(t, "the role", got[role.Role](t)(s.Roles.Role(t.Context(), "editor")), editors())
		if revision != 1 {
			t.Errorf("its revision is %d", revision)
		}
		_, _, err = s.Roles.CreateRole(t.Context(), because("again"), named("editor"), nil)
		want(t, err, role.ErrRoleExists)
		_, err = s.Roles.Role(t.Context(), "Editor")
		want(t, err, role.ErrRoleNotFound)
		wantState(t, s, 1)
	})

	check(t, open, "roles come in the order of their names, by pages, and as a graph", func(t *testing.T, s Set) {
		create(t, s, named("c"), named("a"), editors(), named("b", "a", "c"))
		var names []string
		for after := ""; ; {
			page := got[[]role.Role](t)(s.Roles.Roles(t.Context(), role.Page{After: after, Limit: 3}))
			for _, r := range page {
				names = append(names, r.Name)
			}
			if len(page) < 3 {
				break
			}
			after = page[2].Name
		}
		same(t, "the names", names, []string{"a", "b", "c", "editor"})
		same(t, "the graph", got[role.Graph](t)(s.Roles.Graph(t.Context())), role.Graph{
			"a": {Inherits: []string{}}, "b": {Inherits: []string{"a", "c"}}, "c": {Inherits: []string{}}, "editor": {Inherits: []string{}, Protected: true},
		})
	})

	check(t, open, "an update saves what was made of the role, one version on", func(t *testing.T, s Set) {
		create(t, s, named("reader"), editors())
		expected := editors()
		expected.Description, expected.Protected, expected.Inherits, expected.Permissions = "", false, []string{"reader"}, []role.Permission{}
		expected.Version, expected.UpdatedAt = 2, kept(noon().Add(time.Hour))
		made, revision, err := s.Roles.UpdateRole(t.Context(), because("change"), "editor", func(r *role.Role) error {
			same(t, "the role as it is", *r, editors())
			*r = expected
			r.Name, r.Version, r.CreatedAt, r.UpdatedAt = "other", 40, time.Time{}, noon().Add(time.Hour)
			return nil
		}, nil)
		must(t, err)
		same(t, "the answer", made, expected)
		same(t, "the role", got[role.Role](t)(s.Roles.Role(t.Context(), "editor")), expected)
		if revision != 3 {
			t.Errorf("its revision is %d", revision)
		}
		_, _, err = s.Roles.UpdateRole(t.Context(), because("x"), "none", inherit(), nil)
		want(t, err, role.ErrRoleNotFound)
	})

	check(t, open, "no role inherits itself, by whatever way, or what is not there", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b", "a"), named("c", "b"))
		for name, parents := range map[string][]string{"a": {"c"}, "b": {"a", "c"}, "c": {"c"}} {
			_, _, err := s.Roles.UpdateRole(t.Context(), because("x"), name, inherit(parents...), nil)
			want(t, err, role.ErrCycle)
		}
		_, _, err := s.Roles.UpdateRole(t.Context(), because("x"), "a", inherit("none"), nil)
		want(t, err, role.ErrParentUnknown)
		_, _, err = s.Roles.CreateRole(t.Context(), because("x"), named("d", "a", "none"), nil)
		want(t, err, role.ErrParentUnknown)
		_, _, err = s.Roles.CreateRole(t.Context(), because("x"), named("d", "d"), nil)
		want(t, err, role.ErrCycle)
		_, _, err = s.Roles.UpdateRole(t.Context(), because("x"), "c", inherit("a", "b"), nil) // twice the same is no circle
		must(t, err)
		wantState(t, s, 4)
	})

	check(t, open, "of two who let two roles inherit each other one wins (S72)", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b"))
		for range 10 {
			errs := race(2, func(i int) error {
				_, _, err := s.Roles.UpdateRole(t.Context(), because("race"), []string{"a", "b"}[i], inherit([]string{"b", "a"}[i]), nil)
				return err
			})
			same(t, "won, lost", tally(t, errs, nil, role.ErrCycle), []int{1, 1})
			for _, name := range []string{"a", "b"} {
				_, _, err := s.Roles.UpdateRole(t.Context(), because("undo"), name, inherit(), nil)
				must(t, err)
			}
		}
		wantState(t, s, 2+10*3)
	})

	check(t, open, "a circle of many that is made at once stays open in one place (S72)", func(t *testing.T, s Set) {
		const n = 20
		for i := range n {
			create(t, s, named(fmt.Sprint("r", i)))
		}
		errs := race(n, func(i int) error {
			_, _, err := s.Roles.UpdateRole(t.Context(), because("race"), fmt.Sprint("r", i), inherit(fmt.Sprint("r", (i+1)%n)), nil)
			return err
		})
		same(t, "won, lost", tally(t, errs, nil, role.ErrCycle), []int{n - 1, 1})
		wantState(t, s, n+n-1)
	})

	check(t, open, "of parallel creates one counts (S72)", func(t *testing.T, s Set) {
		errs := race(racers, func(int) error {
			_, _, err := s.Roles.CreateRole(t.Context(), because("race"), named("a"), nil)
			return err
		})
		same(t, "won, lost", tally(t, errs, nil, role.ErrRoleExists), []int{1, racers - 1})
		wantState(t, s, 1)
	})

	check(t, open, "a role that is held or inherited is not deleted", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b", "a"), named("c"))
		must(t, grant(t, s, "b1", "ada", "c", ""))
		for _, name := range []string{"a", "c"} {
			_, err := s.Roles.DeleteRole(t.Context(), because("x"), name, nothing, nil)
			want(t, err, role.ErrRoleInUse)
		}
		_, _, err := s.Roles.Revoke(t.Context(), because("x"), "ada", "c", "", role.Revocation{})
		must(t, err)
		for _, name := range []string{"b", "a", "c"} {
			_, err := s.Roles.DeleteRole(t.Context(), because("x"), name, nothing, nil)
			must(t, err)
			_, err = s.Roles.DeleteRole(t.Context(), because("x"), name, nothing, nil)
			want(t, err, role.ErrRoleNotFound)
		}
		wantState(t, s, 8)
	})

	check(t, open, "a role that is deleted while it is granted is either gone or held (S72)", func(t *testing.T, s Set) {
		for i := range 10 {
			create(t, s, named("a"))
			errs := race(2, func(j int) error {
				if j == 0 {
					_, err := s.Roles.DeleteRole(t.Context(), because("race"), "a", nothing, nil)
					return err
				}
				return grant(t, s, fmt.Sprint("b", i), "ada", "a", "")
			})
			if deleted := errs[0] == nil; deleted {
				want(t, errs[1], role.ErrRoleNotFound)
				continue
			}
			want(t, errs[0], role.ErrRoleInUse)
			must(t, errs[1])
			_, _, err := s.Roles.Revoke(t.Context(), because("undo"), "ada", "a", "", role.Revocation{})
			must(t, err)
			_, err = s.Roles.DeleteRole(t.Context(), because("undo"), "a", nothing, nil)
			must(t, err)
		}
	})

	check(t, open, "what is refused leaves neither revision nor audit, and tells why", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		refusal := errors.New("not like this")
		no := func(role.Graph, role.Held) error { return refusal }
		refuse := func(role.Role) error { return refusal }
		for name, fn := range map[string]func() error{
			"create": func() error {
				_, _, err := s.Roles.CreateRole(t.Context(), because("x"), named("b"), no)
				return err
			},
			"update": func() error {
				_, _, err := s.Roles.UpdateRole(t.Context(), because("x"), "a", inherit(), no)
				return err
			},
			"make": func() error {
				_, _, err := s.Roles.UpdateRole(t.Context(), because("x"), "a", func(*role.Role) error { return refusal }, nil)
				return err
			},
			"delete": func() error {
				_, err := s.Roles.DeleteRole(t.Context(), because("x"), "a", nothing, no)
				return err
			},
			"check": func() error {
				_, err := s.Roles.DeleteRole(t.Context(), because("x"), "a", refuse, nil)
				return err
			},
			"grant": func() error {
				_, err := s.Roles.Grant(t.Context(), because("x"), bound("b1", "ada", "a", ""), no, mail("a@x.test"))
				return err
			},
			"set": func() error {
				_, _, err := s.Roles.SetSubject(t.Context(), because("x"), "ada", func(*role.Subject) error { return refusal })
				return err
			},
		} {
			t.Log(name)
			want(t, fn(), refusal)
		}
		for name, jobs := range broken() {
			if _, err := s.Roles.Grant(t.Context(), because("x"), bound("b1", "ada", "a", ""), nil, jobs...); err == nil {
				t.Errorf("%s: no complaint", name)
			}
		}
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		_, _, err := s.Roles.CreateRole(gone, because("x"), named("b"), nil)
		want(t, err, context.Canceled)
		same(t, "the role", got[role.Role](t)(s.Roles.Role(t.Context(), "a")).Version, 1)
		wantJobs(t, s)
		wantState(t, s, 1)
	})
}

func audits(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "the audit says who did what, when, why, and what was before and after", func(t *testing.T, s Set) {
		create(t, s, editors())
		_, _, err := s.Roles.UpdateRole(t.Context(), because("smaller"), "editor", func(r *role.Role) error {
			r.Description, r.Permissions = "", nil
			return nil
		}, nil)
		must(t, err)
		lines := got[[]role.Audit](t)(s.Roles.Audits(t.Context(), role.AuditFilter{}, 0, 10))
		const was = `{"name":"editor","description":"edits ü \u2028","protected":true,"inherits":[],"permissions":[
			{"action":"orders.edit","resource":"order","conditions":["own","open"]},{"action":"x","resource":"*"}],"version":1}`
		cause := because("smaller")
		cause.At = kept(noon())
		same(t, "the newest line", lines[0], role.Audit{
			Revision: 2, Action: role.RoleUpdated, Target: "editor", Before: json.RawMessage(was), Cause: cause,
			After: json.RawMessage(`{"name":"editor","description":"","protected":true,"inherits":[],"permissions":[],"version":2}`),
		})
		cause.Reason = "set up"
		same(t, "the line before", lines[1], role.Audit{
			Revision: 1, Action: role.RoleCreated, Target: "editor", Before: json.RawMessage(`null`), After: json.RawMessage(was), Cause: cause,
		})
	})

	check(t, open, "the audit is read by pages, by target and by actor", func(t *testing.T, s Set) {
		for i := range 5 {
			c := because("x")
			c.Actor = []string{"eve", "bob"}[i%2]
			_, _, err := s.Roles.CreateRole(t.Context(), c, named(fmt.Sprint("r", i)), nil)
			must(t, err)
		}
		for what, c := range map[string]struct {
			filter role.AuditFilter
			before uint64
			limit  int
			want   []uint64
		}{
			"all":       {role.AuditFilter{}, 0, 10, []uint64{5, 4, 3, 2, 1}},
			"a page":    {role.AuditFilter{}, 4, 2, []uint64{3, 2}},
			"a target":  {role.AuditFilter{Target: "r3"}, 0, 10, []uint64{4}},
			"an actor":  {role.AuditFilter{Actor: "eve"}, 0, 10, []uint64{5, 3, 1}},
			"both":      {role.AuditFilter{Target: "r3", Actor: "eve"}, 0, 10, nil},
			"of it two": {role.AuditFilter{Actor: "eve"}, 5, 1, []uint64{3}},
		} {
			var revisions []uint64
			for _, line := range got[[]role.Audit](t)(s.Roles.Audits(t.Context(), c.filter, c.before, c.limit)) {
				revisions = append(revisions, line.Revision)
			}
			same(t, what, revisions, c.want)
		}
	})
}
