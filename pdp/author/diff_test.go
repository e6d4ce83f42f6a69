package author_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/policies"
)

// few is the shipped policies without their matrices and without what only they ask about: fewer requests to decide.
func few(t *testing.T) *author.Policy {
	return changedTo(t, "cases/orders.yaml", "# Left out:", "# Left out,")
}

// changedTo is few with something in one of the files replaced.
func changedTo(t *testing.T, file, old, new string) *author.Policy {
	t.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(policies.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".matrix.yaml") {
			return err
		}
		b, err := fs.ReadFile(policies.FS, name)
		if name == file {
			changed := strings.Replace(string(b), old, new, 1)
			if changed == string(b) {
				t.Fatalf("%q is not in %s", old, file)
			}
			b = []byte(changed)
		}
		orders, _, _ := strings.Cut(string(b), "\n  # With the modules")
		files[name] = &fstest.MapFile{Data: []byte(orders)}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return read(t, files)
}

func compare(t *testing.T, before, after *author.Policy, logged ...author.Question) author.Diff {
	t.Helper()
	d, err := author.Compare(t.Context(), before, after, logged)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const roles = "gatehouse/roles.yaml"

func TestTheSamePolicyChangesNothing(t *testing.T) {
	t.Parallel()
	d := compare(t, few(t), few(t))
	if len(d.Changes) != 0 || d.OtherReasons != 0 || d.Requests < 300 {
		t.Errorf("%+v", d)
	}
}

func TestAWidenedGrantIsSeen(t *testing.T) {
	t.Parallel()
	d := compare(t, few(t), changedTo(t, roles, "admin: [office_hours, trusted_network]", "admin: [office_hours]"))
	if len(d.Changes) != 1 || len(d.Gained()) != 1 {
		t.Fatalf("changes %+v", d.Changes)
	}
	c := d.Changes[0]
	if c.Who != "admin" || c.Action != "DELETE" || c.Resource != "order" || c.Before != "deny not_owner untrusted_network" || c.After != "allow granted_to_admin" ||
		!slices.ContainsFunc(c.When, func(w string) bool { return strings.HasSuffix(w, "from 203.0.113.9") }) {
		t.Errorf("change %+v", c)
	}
}

// Rules may name people; what a case asks is compared as it stands.
func TestWhatOnePersonGainsIsSeen(t *testing.T) {
	t.Parallel()
	another := folder()
	another["gatehouse/authz.rego"] = &fstest.MapFile{Data: []byte(rules + "\ndecision := {\"allow\": true, \"reasons\": [\"bob\"]} if {\n\tinput.subject.id == \"bob\"\n\tnot input.resource.properties.owner == \"bob\"\n}\n")}
	d := compare(t, read(t, folder()), read(t, another))
	if len(d.Gained()) != 1 || d.Changes[0].After != "allow bob" {
		t.Errorf("changes %+v", d.Changes)
	}
}

func TestALostGrantIsSeen(t *testing.T) {
	t.Parallel()
	d := compare(t, few(t), changedTo(t, roles, "support: [clerk]", "support: []"))
	if len(d.Gained()) != 0 || len(d.Changes) == 0 {
		t.Fatalf("changes %+v", d.Changes)
	}
	i := slices.IndexFunc(d.Changes, func(c author.Change) bool { return c.Who == "support" && c.Resource == "/orders" && c.Action == "GET" })
	if i < 0 || d.Changes[i].Direction != author.Loses || d.Changes[i].When != nil || d.Changes[i].Unless != nil {
		t.Errorf("changes %+v", d.Changes)
	}
}

// A role that no case speaks of gains and loses like any other.
func TestRolesOfTheTablesAreCompared(t *testing.T) {
	t.Parallel()
	d := compare(t, few(t), changedTo(t, roles, "inherits:\n", "inherits:\n  auditor: [clerk]\n"))
	if gained := d.Gained(); len(gained) == 0 || gained[0].Who != "auditor" {
		t.Errorf("changes %+v", d.Changes)
	}
}

// S56: what cannot be decided any more is lost.
func TestNoDecisionIsALoss(t *testing.T) {
	t.Parallel()
	d := compare(t, few(t), changedTo(t, "gatehouse/authz.rego", `{"allow": true, "reasons"`, `{"allow": true, "reason"`))
	if len(d.Gained()) != 0 || len(d.Changes) == 0 || !strings.HasPrefix(d.Changes[0].After, "no decision") {
		t.Errorf("changes %+v", d.Changes)
	}
}

func TestLoggedRequestsAreCounted(t *testing.T) {
	t.Parallel()
	ask := func(roles string) author.Question {
		q, err := author.ParseQuestion("log:1", []byte(asking("sam", roles, "DELETE", `"owner": "bob", "department": "mars"`)), noon)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	after := changedTo(t, roles, "admin: [office_hours, trusted_network]", "admin: [owner]")
	d := compare(t, few(t), after, ask(`"admin"`), ask(`"admin"`), ask(`"clerk"`))
	lost := 0
	for _, c := range d.Changes {
		if c.Who == "admin" && c.Direction == author.Loses {
			lost += c.Logged
		}
	}
	if d.Logged != 3 || lost != 2 || len(d.Gained()) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	d, err := few(t).Access(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	find := func(who, action, resource string) author.Change {
		i := slices.IndexFunc(d.Changes, func(c author.Change) bool { return c.Who == who && c.Action == action && c.Resource == resource })
		if i < 0 {
			return author.Change{}
		}
		return d.Changes[i]
	}
	if c := find("customer", "GET", "/orders"); c.Requests == 0 || c.When != nil || c.Unless != nil {
		t.Errorf("lists %+v", c)
	}
	if c := find("customer", "GET", "order"); len(c.When) != 1 || !strings.HasPrefix(c.When[0], "owner {who.id}") {
		t.Errorf("reads %+v", c)
	}
	if c := find("customer", "PATCH", "order"); c.Requests != 0 {
		t.Errorf("changes %+v", c)
	}
	if c := find("anonymous", "GET", "/orders"); c.Requests != 0 {
		t.Errorf("anonymous lists %+v", c)
	}
}
