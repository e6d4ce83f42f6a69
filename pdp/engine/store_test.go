package engine_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

func textOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func throughJSON(t *testing.T, v any) (out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(textOf(t, v)), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// manyRoles is a data.json of so many users, each with some roles.
func manyRoles(users int) []byte {
	var b strings.Builder
	b.WriteString(`{"networks":["10.0.0.0/8"],"user_roles":{`)
	for i := range users {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"u%07d":["r%02d","r%02d"]`, i, i%50, (i*7+3)%50)
	}
	b.WriteString(`}}`)
	return []byte(b.String())
}

func withRoles(users int, body string) fstest.MapFS {
	files := module(body).(fstest.MapFS)
	files["rbac/data.json"] = &fstest.MapFile{Data: manyRoles(users)}
	return files
}

func TestALargeObjectIsReadByKeyAsASmallOneIs(t *testing.T) {
	t.Parallel()
	const body = "decision := {\"allow\": true} if {\n\tsome role in data.rbac.user_roles[input.subject.id]\n\trole == \"r07\"\n}\n"
	small, large := open(t, engine.Options{Policies: withRoles(100, body)}), open(t, engine.Options{Policies: withRoles(20_001, body)})
	for i := range 110 {
		r := ask("order", "17")
		r.Subject.ID = fmt.Sprintf("u%07d", i)
		a, err := small.Evaluate(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if i >= 100 {
			r.Subject.ID = fmt.Sprintf("u%07d", 30_000+i)
		}
		b, err := large.Evaluate(t.Context(), r)
		if err != nil || a.Decision != b.Decision || a.Decision != (i < 100 && (i%50 == 7 || (i*7+3)%50 == 7)) {
			t.Errorf("%s: %v and %v, %v", r.Subject.ID, a.Decision, b.Decision, err)
		}
	}
	for _, path := range []string{"rbac/user_roles/u0000003", "rbac/user_roles/u0000003/1", "rbac/user_roles/u0000003/2", "rbac/user_roles/u0000003/x", "rbac/user_roles/none", "rbac/networks/0", "rbac/none", "none"} {
		a, err := small.Document(t.Context(), question(path, nil))
		if err != nil {
			t.Fatal(err)
		}
		b, err := large.Document(t.Context(), question(path, nil))
		if err != nil || a.Defined != b.Defined || textOf(t, a.Value) != textOf(t, b.Value) {
			t.Errorf("%s: %v and %v, %v", path, a.Value, b.Value, err)
		}
	}
	for _, path := range []string{"rbac/user_roles", "rbac", ""} {
		if doc, err := large.Document(t.Context(), question(path, nil)); err == nil || doc.Defined {
			t.Errorf("%q is told whole", path)
		}
		if doc, err := small.Document(t.Context(), question(path, nil)); err != nil || !doc.Defined {
			t.Errorf("%q is not told: %v", path, err)
		}
	}
}

func TestARuleThatGoesThroughALargeObjectIsRefused(t *testing.T) {
	t.Parallel()
	d := directory.Fixed(viewOf(t, known), directory.Options{})
	for body, want := range map[string]string{
		"x if {\n\tsome u\n\tdata.rbac.user_roles[u]\n}":                          "gatehouse/authz.rego:7: data.rbac.user_roles is read whole, or gone through: it has 101 members",
		`x if some u in data.rbac.user_roles`:                                     ":5: data.rbac.user_roles",
		"x if {\n\tsome u, roles in data.rbac.user_roles\n\tcount(roles) > u\n}":  ":6: data.rbac.user_roles",
		`x if count(data.rbac.user_roles) > 3`:                                    ":5: data.rbac.user_roles",
		`x := data.rbac.user_roles`:                                               ":5: data.rbac.user_roles",
		`x := data.rbac`:                                                          ":5: data.rbac is read whole",
		`x := [u | data.rbac.user_roles[u]]`:                                      ":5: data.rbac.user_roles",
		`x if every r in data.rbac.user_roles { count(r) > 0 }`:                   ":5: data.rbac.user_roles",
		`x if data.rbac[_][input.subject.id]`:                                     ":5: data.rbac is read whole",
		`x contains u if data.rbac.user_roles[u][_] == "r01"`:                     ":5: data.rbac.user_roles",
		`x(u) if object.get(data.rbac.user_roles, u, null) == null`:               ":5: data.rbac.user_roles",
		`x if not data.rbac.user_roles[input.subject.id] in data.rbac.user_roles`: ":5: data.rbac.user_roles",
		`x if data.directory.subjects[_]`:                                         ":5: data.directory.subjects is read whole",
		`x := data.directory`:                                                     ":5: data.directory is read whole",
		// These are read by keys.
		`x if data.rbac.user_roles[input.subject.id]`:                                    "",
		`x(u) if "r01" in data.rbac.user_roles[u]`:                                       "",
		`x if data.rbac.user_roles[input.subject.id][_] == "r01"`:                        "",
		`x if not data.rbac.user_roles[input.subject.id]`:                                "",
		`x if data.rbac.user_roles.u0000001`:                                             "",
		"x if {\n\tu := input.subject.id\n\tdata.rbac.user_roles[u]\n}":                  "",
		"x if {\n\tdata.rbac.user_roles[u]\n\tu = input.subject.id\n}":                   ":6: data.rbac.user_roles", // OPA goes through it
		"x if {\n\tsome u in input.users\n\tdata.rbac.user_roles[u]\n}":                  "",
		`x := [r | some u in input.users; some r in data.rbac.user_roles[u]]`:            "",
		`x if every u in input.users { data.rbac.user_roles[u] }`:                        "",
		"x if {\n\tsome u in input.users\n\tevery r in data.rbac.user_roles[u] { r }\n}": "",
		`x := data.rbac.networks[_]`:                                                     "",
		"x if {\n\tsome n in data.rbac.networks\n\tstartswith(n, \"1\")\n}":              "",
		`x := count(data.directory.roles)`:                                               "",
		`x if data.directory.subjects[input.subject.id].tenant`:                          "",
		`x if data.rbac.user_roles == {} with data.rbac as {"user_roles": {}}`:           "",
		`x if data.rbac[input.a][input.b]`:                                               "",
	} {
		_, err := engine.Open(t.Context(), engine.Options{Policies: withRoles(101, body), Large: 100, Directory: d, Log: slog.New(slog.DiscardHandler)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s\n %v, want %q", body, err, want)
		}
	}
}

// What the order of expressions does not tell fails when it is evaluated, and is never taken for nothing.
func TestAHiddenWalkThroughALargeObjectFails(t *testing.T) {
	t.Parallel()
	for body, fails := range map[string]bool{
		"decision := {\"allow\": true} if {\n\tinput.subject.id == \"alice\"\n\tnot data.rbac[input.resource.type][input.action.name]\n}\n": false,
		"decision := {\"allow\": true} if {\n\tinput.subject.id == \"alice\"\n\tnot data.rbac[input.resource.type]\n}\n":                    true,
	} {
		e := open(t, engine.Options{Policies: withRoles(101, body), Large: 100})
		if res, err := e.Evaluate(t.Context(), ask("user_roles", "17")); fails != (err != nil) || res.Decision == fails {
			t.Errorf("%s\n %v, %v", body, res.Decision, err)
		}
	}
}

// A million bindings in a data.json take no more than 60 MB.
func TestAMillionBindingsAreSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	files := withRoles(500_000, "decision := {\"allow\": true} if \"r07\" in data.rbac.user_roles[input.subject.id]")
	e := open(t, engine.Options{Policies: files})
	files["rbac/data.json"] = nil
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("heap %d MB", m.HeapAlloc>>20)
	if m.HeapAlloc > 60e6 {
		t.Errorf("the heap has %d bytes", m.HeapAlloc)
	}
	runtime.KeepAlive(e)
}
