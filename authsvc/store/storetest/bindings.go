package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
)

// bound is a binding as a store answers it.
func bound(id, subject, name, tenant string) role.Binding {
	return role.Binding{
		ID: id, Subject: subject, Role: name, Tenant: tenant, Reason: "because ü", Ticket: "T-1", GrantedBy: "boss", GrantedAt: kept(noon()),
	}
}

func until(b role.Binding, at time.Time) role.Binding {
	b.Until = &at
	return b
}

func grant(t *testing.T, s Set, id, subject, name, tenant string) error {
	_, err := s.Roles.Grant(t.Context(), because("grant"), bound(id, subject, name, tenant), nil)
	return err
}

func give(t *testing.T, s Set, all ...role.Binding) {
	t.Helper()
	for _, b := range all {
		_, err := s.Roles.Grant(t.Context(), because("grant"), b, nil)
		must(t, err)
	}
}

func bindings(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "a binding is found as it was granted, with its jobs", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		b := until(bound("b1", "ada", "a", "acme"), kept(noon().Add(time.Hour)))
		b.BreakGlass = true
		given := b
		given.GrantedAt = noon()
		given.Until = pointer(noon().Add(time.Hour))
		expiry := job.ExpireRoles(*given.Until)
		revision, err := s.Roles.Grant(t.Context(), because("x"), given, nil, expiry)
		must(t, err)
		same(t, "the binding", got[role.Binding](t)(s.Roles.Binding(t.Context(), "b1")), b)
		same(t, "what is held", got[role.Held](t)(s.Roles.Held(t.Context(), "ada")), role.Held{Bindings: []role.Binding{b}})
		if revision != 2 {
			t.Errorf("its revision is %d", revision)
		}
		wantJobs(t, s, expiry)
		_, err = s.Roles.Binding(t.Context(), "b2")
		want(t, err, role.ErrBindingNotFound)
		same(t, "what nobody holds", got[role.Held](t)(s.Roles.Held(t.Context(), "bob")), role.Held{})
	})

	check(t, open, "a role is held once in a tenant, and once everywhere", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b"))
		give(t, s, bound("b1", "ada", "a", ""), bound("b2", "ada", "a", "acme"), bound("b3", "ada", "b", ""), bound("b4", "bob", "a", ""))
		want(t, grant(t, s, "b5", "ada", "a", "acme"), role.ErrBindingExists)
		want(t, grant(t, s, "b5", "ada", "a", ""), role.ErrBindingExists)
		want(t, grant(t, s, "b5", "ada", "none", ""), role.ErrRoleNotFound)
		wantState(t, s, 6)
	})

	check(t, open, "what has ended gives way to a new grant", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		give(t, s, until(bound("b1", "ada", "a", ""), noon().Add(time.Hour)))
		c := because("again")
		for at, answer := range map[time.Duration]error{time.Hour - tick: role.ErrBindingExists} {
			c.At = noon().Add(at)
			_, err := s.Roles.Grant(t.Context(), c, bound("b2", "ada", "a", ""), nil)
			want(t, err, answer)
		}
		c.At = noon().Add(time.Hour)
		_, err := s.Roles.Grant(t.Context(), c, bound("b2", "ada", "a", ""), nil)
		must(t, err)
		same(t, "what is held", got[role.Held](t)(s.Roles.Held(t.Context(), "ada")).Bindings, []role.Binding{bound("b2", "ada", "a", "")})
		wantState(t, s, 3)
	})

	check(t, open, "a guard sees the roles and what the actor holds, the account's roles too", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b", "a"))
		boss := ada()
		boss.ID, boss.Roles = "boss", []string{"admin"}
		must(t, s.Accounts.Create(t.Context(), boss, nil))
		give(t, s, bound("b1", "boss", "b", "acme"))
		asked := 0
		_, err := s.Roles.Grant(t.Context(), because("x"), bound("b2", "ada", "a", ""), func(g role.Graph, held role.Held) error {
			asked++
			same(t, "the graph", g, role.Graph{"a": {Inherits: []string{}}, "b": {Inherits: []string{"a"}}})
			same(t, "what the actor holds", held, role.Held{Bindings: []role.Binding{bound("b1", "boss", "b", "acme")}, Account: []string{"admin"}})
			return nil
		})
		must(t, err)
		if asked == 0 {
			t.Error("it was not asked")
		}
	})

	check(t, open, "a disabled account holds nothing", func(t *testing.T, s Set) {
		u := ada()
		u.Roles, u.DisabledAt = []string{"admin"}, pointer(kept(noon()))
		must(t, s.Accounts.Create(t.Context(), u, nil))
		same(t, "what is held", got[role.Held](t)(s.Roles.Held(t.Context(), u.ID)), role.Held{})
	})

	check(t, open, "parallel grants count one by one, without a gap (S72)", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		revisions := race(racers, func(i int) uint64 {
			revision, err := s.Roles.Grant(t.Context(), because("race"), bound(fmt.Sprintf("b%02d", i), fmt.Sprint("u", i), "a", ""), nil)
			if err != nil {
				t.Error(err)
			}
			return revision
		})
		seen := map[uint64]bool{}
		for _, r := range revisions {
			seen[r] = true
		}
		for r := uint64(2); r < 2+racers; r++ {
			if !seen[r] {
				t.Errorf("no grant has revision %d", r)
			}
		}
		wantState(t, s, 1+racers)
	})

	check(t, open, "of parallel grants of one thing one counts (S72)", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		errs := race(racers, func(i int) error { return grant(t, s, fmt.Sprint("b", i), "ada", "a", "") })
		same(t, "won, lost", tally(t, errs, nil, role.ErrBindingExists), []int{1, racers - 1})
		wantState(t, s, 2)
	})

	check(t, open, "bindings are listed by subject, role and tenant, by pages", func(t *testing.T, s Set) {
		create(t, s, named("a"), named("b"))
		give(t, s, bound("b1", "ada", "a", ""), bound("b2", "ada", "a", "acme"), bound("b3", "bob", "b", "acme"), bound("b4", "ada", "b", ""))
		for what, c := range map[string]struct {
			filter role.BindingFilter
			page   role.Page
			want   []string
		}{
			"all":        {role.BindingFilter{}, role.Page{Limit: 9}, []string{"b1", "b2", "b3", "b4"}},
			"a page":     {role.BindingFilter{}, role.Page{After: "b1", Limit: 2}, []string{"b2", "b3"}},
			"a subject":  {role.BindingFilter{Subject: "ada"}, role.Page{Limit: 9}, []string{"b1", "b2", "b4"}},
			"a role":     {role.BindingFilter{Role: "b"}, role.Page{Limit: 9}, []string{"b3", "b4"}},
			"everywhere": {role.BindingFilter{Tenant: pointer("")}, role.Page{Limit: 9}, []string{"b1", "b4"}},
			"a tenant":   {role.BindingFilter{Tenant: pointer("acme")}, role.Page{Limit: 9}, []string{"b2", "b3"}},
			"all three":  {role.BindingFilter{Subject: "ada", Role: "a", Tenant: pointer("acme")}, role.Page{After: "b1", Limit: 9}, []string{"b2"}},
			"nobody":     {role.BindingFilter{Subject: "eve"}, role.Page{Limit: 9}, nil},
		} {
			var ids []string
			for _, b := range got[[]role.Binding](t)(s.Roles.Bindings(t.Context(), c.filter, c.page)) {
				ids = append(ids, b.ID)
			}
			same(t, what, ids, c.want)
		}
	})

	revoking(t, open)
}

func revoking(t *testing.T, open func(*testing.T) Set) {
	r := role.Revocation{ID: "r1", Subject: "u1", At: noon(), ExpiresAt: noon().Add(time.Hour)}
	stored := session.Revocation{
		ID: "r1", Kind: "sub", Value: "u1", NotBefore: kept(noon()), CreatedAt: kept(noon()), ExpiresAt: kept(noon().Add(time.Hour)),
	}
	take := func(t *testing.T, s Set, tenant string) (bool, error) {
		t.Helper()
		_, ended, err := s.Roles.Revoke(t.Context(), because("enough"), "u1", "customer", tenant, r, mail("told@x.test"))
		return ended, err
	}
	set := func(t *testing.T, s Set, account bool, tenants ...string) {
		t.Helper()
		create(t, s, named("customer"))
		if account {
			u := ada()
			u.Roles = []string{"auditor", "customer"}
			must(t, s.Accounts.Create(t.Context(), u, nil))
		}
		for _, tenant := range tenants {
			must(t, grant(t, s, "b-"+tenant, "u1", "customer", tenant))
		}
	}

	check(t, open, "a binding that is taken away is gone, and no token is revoked for it", func(t *testing.T, s Set) {
		set(t, s, false, "", "acme")
		for _, tenant := range []string{"acme", ""} {
			ended, err := take(t, s, tenant)
			must(t, err)
			same(t, "whether tokens end", ended, false)
			_, err = take(t, s, tenant)
			want(t, err, role.ErrBindingNotFound)
		}
		wantRevocations(t, s)
		wantJobs(t, s)
		wantState(t, s, 5)
	})

	// S58: the tokens that are out say what is no longer true.
	for _, bindings := range [][]string{nil, {""}} {
		name := fmt.Sprintf("a role that the account carries is taken from it, with %d bindings and with the tokens that are out", len(bindings))
		check(t, open, name, func(t *testing.T, s Set) {
			set(t, s, true, bindings...)
			ended, err := take(t, s, "")
			must(t, err)
			same(t, "whether tokens end", ended, true)
			held := got[role.Held](t)(s.Roles.Held(t.Context(), "u1"))
			same(t, "what is held", held, role.Held{Account: []string{"auditor"}})
			wantRevocations(t, s, stored)
			wantJobs(t, s, mail("told@x.test"))
			_, err = take(t, s, "")
			want(t, err, role.ErrBindingNotFound)
			wantState(t, s, uint64(2+len(bindings)))
		})
	}

	check(t, open, "taking a role away in a tenant leaves the account alone", func(t *testing.T, s Set) {
		set(t, s, true, "acme")
		ended, err := take(t, s, "acme")
		must(t, err)
		same(t, "whether tokens end", ended, false)
		same(t, "what is held", got[role.Held](t)(s.Roles.Held(t.Context(), "u1")), role.Held{Account: []string{"auditor", "customer"}})
		wantRevocations(t, s)
	})

	check(t, open, "of parallel revocations one counts (S72)", func(t *testing.T, s Set) {
		set(t, s, true, "")
		errs := race(racers, func(int) error { _, err := take(t, s, ""); return err })
		same(t, "won, lost", tally(t, errs, nil, role.ErrBindingNotFound), []int{1, racers - 1})
		wantRevocations(t, s, stored)
		wantJobs(t, s, mail("told@x.test"))
	})
}

func expiry(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "what has ended is taken away, each as a change of its own", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		give(t, s, bound("b0", "u0", "a", ""), until(bound("b1", "u1", "a", ""), noon().Add(time.Hour)),
			until(bound("b2", "u2", "a", ""), noon().Add(2*time.Hour)), until(bound("b3", "u1", "a", "acme"), noon().Add(2*time.Hour+tick)))
		c := because("its time was over")
		for _, step := range []struct {
			at   time.Duration
			n    int
			left []string
		}{
			{time.Hour - tick, 0, []string{"b0", "b1", "b2", "b3"}},
			{time.Hour, 1, []string{"b0", "b2", "b3"}},
			{2 * time.Hour, 1, []string{"b0", "b3"}},
			{2 * time.Hour, 0, []string{"b0", "b3"}},
		} {
			c.At = noon().Add(step.at)
			n, err := s.Roles.Expire(t.Context(), c, 10)
			must(t, err)
			same(t, "how many", n, step.n)
			var ids []string
			for _, b := range got[[]role.Binding](t)(s.Roles.Bindings(t.Context(), role.BindingFilter{}, role.Page{Limit: 9})) {
				ids = append(ids, b.ID)
			}
			same(t, "what is left", ids, step.left)
		}
		wantState(t, s, 7)
		newest := got[[]role.Audit](t)(s.Roles.Audits(t.Context(), role.AuditFilter{}, 0, 1))[0]
		same(t, "action and target", newest.Action+" "+newest.Target, role.Expired+" u2")
	})

	check(t, open, "parallel sweeps take each once, as many as they may at a time (S72)", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		for i := range 30 {
			give(t, s, until(bound(fmt.Sprintf("b%02d", i), fmt.Sprint("u", i), "a", ""), noon().Add(time.Hour)))
		}
		c := because("over")
		c.At = noon().Add(time.Hour)
		n, err := s.Roles.Expire(t.Context(), c, 3)
		must(t, err)
		same(t, "the first", n, 3)
		total := 0
		for _, n := range race(8, func(int) int {
			n, err := s.Roles.Expire(t.Context(), c, 100)
			if err != nil {
				t.Error(err)
			}
			return n
		}) {
			total += n
		}
		same(t, "all others", total, 27)
		wantState(t, s, 1+30+30)
	})
}

func subjects(t *testing.T, open func(*testing.T) Set) {
	nothing := func(role.Subject) error { return nil }
	adas := func() role.Subject {
		return role.Subject{
			ID: "ada", Tenant: "acme", Groups: []string{"a", "b"}, Version: 1, CreatedAt: kept(noon()), UpdatedAt: kept(noon()),
			Attributes: map[string]any{"department": "sales ü", "level": 3.5, "on": true, "none": nil, "list": []any{"x", map[string]any{"y": 1e15}}},
		}
	}
	put := func(t *testing.T, s Set, n role.Subject) {
		t.Helper()
		_, _, err := s.Roles.SetSubject(t.Context(), because("x"), n.ID, func(is *role.Subject) error { *is = n; return nil })
		must(t, err)
	}

	check(t, open, "a subject is found as it was set", func(t *testing.T, s Set) {
		given := adas()
		given.CreatedAt, given.UpdatedAt, given.Version = noon(), noon(), 40
		made, revision, err := s.Roles.SetSubject(t.Context(), because("x"), "ada", func(is *role.Subject) error {
			same(t, "what is known", *is, role.Subject{ID: "ada"})
			*is = given
			is.ID = "other"
			return nil
		})
		must(t, err)
		same(t, "the answer", made, adas())
		same(t, "the subject", got[role.Subject](t)(s.Roles.Subject(t.Context(), "ada")), adas())
		if revision != 1 {
			t.Errorf("its revision is %d", revision)
		}
		_, err = s.Roles.Subject(t.Context(), "bob")
		want(t, err, role.ErrSubjectNotFound)
	})

	check(t, open, "a later word replaces an earlier one whole", func(t *testing.T, s Set) {
		put(t, s, adas())
		made, _, err := s.Roles.SetSubject(t.Context(), because("x"), "ada", func(is *role.Subject) error {
			same(t, "what is known", *is, adas())
			is.Tenant, is.Groups, is.Attributes, is.CreatedAt, is.UpdatedAt = "", nil, nil, time.Time{}, noon().Add(time.Hour)
			return nil
		})
		must(t, err)
		expected := role.Subject{
			ID: "ada", Groups: []string{}, Attributes: map[string]any{}, Version: 2, CreatedAt: kept(noon()), UpdatedAt: kept(noon().Add(time.Hour)),
		}
		same(t, "the answer", made, expected)
		same(t, "the subject", got[role.Subject](t)(s.Roles.Subject(t.Context(), "ada")), expected)
		wantState(t, s, 2)
	})

	check(t, open, "subjects come by pages in the order of their ids", func(t *testing.T, s Set) {
		for _, id := range []string{"c", "a", "b"} {
			n := adas()
			n.ID = id
			put(t, s, n)
		}
		var ids []string
		for _, n := range got[[]role.Subject](t)(s.Roles.Subjects(t.Context(), role.Page{After: "a", Limit: 5})) {
			ids = append(ids, n.ID)
		}
		same(t, "the ids", ids, []string{"b", "c"})
		same(t, "the first page", len(got[[]role.Subject](t)(s.Roles.Subjects(t.Context(), role.Page{Limit: 2}))), 2)
	})

	check(t, open, "a subject that holds roles is not forgotten", func(t *testing.T, s Set) {
		create(t, s, named("a"))
		put(t, s, adas())
		must(t, grant(t, s, "b1", "ada", "a", "acme"))
		_, err := s.Roles.DeleteSubject(t.Context(), because("x"), "ada", nothing)
		want(t, err, role.ErrSubjectInUse)
		_, _, err = s.Roles.Revoke(t.Context(), because("x"), "ada", "a", "acme", role.Revocation{})
		must(t, err)
		_, err = s.Roles.DeleteSubject(t.Context(), because("x"), "ada", nothing)
		must(t, err)
		_, err = s.Roles.DeleteSubject(t.Context(), because("x"), "ada", nothing)
		want(t, err, role.ErrSubjectNotFound)
		wantState(t, s, 5)
	})
}
