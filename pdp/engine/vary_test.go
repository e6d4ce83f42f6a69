package engine_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/policies"
)

func monday() time.Time { return time.Date(2026, time.March, 2, 9, 30, 0, 250e6, time.UTC) }

// S58: an answer says which other requests have it, and no others do.
func TestAnAnswerNamesWhatThePolicyLooksAt(t *testing.T) {
	t.Parallel()
	for body, want := range map[string][]string{
		`decision := {"allow": true} if input.subject.id == "alice"`:                                     {"/subject/id"},
		`decision := {"allow": true} if "admin" in input.subject.roles`:                                  {"/subject/properties/roles"},
		`decision := {"allow": true} if input.subject.properties["a/b~c"] == 1`:                          {"/subject/properties/a~1b~0c"},
		`decision := {"allow": true} if input.resource.params.id == input.subject.id`:                    {"/resource/properties/params/id", "/subject/id"},
		`decision := {"allow": true} if input.resource.properties.owner == "x"`:                          {"/resource/properties/owner"},
		`decision := {"allow": true} if input.context.ip == "10.0.0.1"`:                                  {"/context/ip"},
		`decision := {"allow": true} if startswith(input.context.time, "2026")`:                          nil,
		"decision := {\"allow\": true} if {\n\tsome name\n\tinput.context[name] == \"x\"\n}":             {"/context"},
		"decision := {\"allow\": true} if {\n\tx := input\n\tx.action.name == \"GET\"\n}":                {"/action/name"},
		"decision := {\"allow\": true} if f(input.action)\n\nf(a) if a.name == \"GET\"":                  {"/action"},
		"decision := {\"allow\": true} if count(input) == 5":                                             {"/action", "/context", "/resource", "/subject"},
		"decision := {\"allow\": true} if data.gatehouse.more.ok":                                        {"/subject/type"},
		"decision := {\"allow\": true} if {\n\tsome name\n\tdata.gatehouse.more[name]\n}":                {"/action/properties/x", "/subject/type"},
		"decision := {\"allow\": true} if g == 1\n\ng := 1 if input.action.name == \"PUT\"\n\nelse := 2": {"/action/name"},
	} {
		files := module(body).(fstest.MapFS)
		files["gatehouse/more.rego"] = &fstest.MapFile{Data: []byte("package gatehouse.more\n\nok if input.subject.type == \"user\"\n\nother if input.action.properties.x == 1\n")}
		e := open(t, engine.Options{Policies: files, Now: monday})
		res, err := e.Evaluate(t.Context(), ask("order", "17"))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		var got []string
		if res.Context.Cache != nil {
			got = res.Context.Cache.Vary
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s\n varies by %q, want %q", body, got, want)
		}
	}
}

// each change of a request, by the pointer to what it changes.
func changes() map[string]func(*authzen.Request) {
	set := func(m *map[string]any, name string, v any) {
		*m = maps.Clone(*m)
		if *m == nil {
			*m = map[string]any{}
		}
		(*m)[name] = v
	}
	return map[string]func(*authzen.Request){
		"/subject/id":                    func(r *authzen.Request) { r.Subject.ID = "bob" },
		"/subject/type":                  func(r *authzen.Request) { r.Subject.Type = "anonymous" },
		"/subject/properties/roles":      func(r *authzen.Request) { set(&r.Subject.Properties, "roles", []string{"admin"}) },
		"/subject/properties/attributes": func(r *authzen.Request) { set(&r.Subject.Properties, "attributes", map[string]any{"department": "it"}) },
		"/subject/properties/plan":       func(r *authzen.Request) { set(&r.Subject.Properties, "plan", "gold") },
		"/action/name":                   func(r *authzen.Request) { r.Action.Name = "DELETE" },
		"/action/properties/x":           func(r *authzen.Request) { set(&r.Action.Properties, "x", 1) },
		"/resource/id":                   func(r *authzen.Request) { r.Resource.ID = "18" },
		"/resource/type":                 func(r *authzen.Request) { r.Resource.Type = "invoice" },
		"/resource/properties/params":    func(r *authzen.Request) { set(&r.Resource.Properties, "params", map[string]any{"id": "18"}) },
		"/resource/properties/owner":     func(r *authzen.Request) { set(&r.Resource.Properties, "owner", "alice") },
		"/context/ip":                    func(r *authzen.Request) { set(&r.Context, "ip", "192.0.2.7") },
		"/context/acr":                   func(r *authzen.Request) { set(&r.Context, "acr", "aal2") },
	}
}

// covers reports whether one of the pointers stands for p or for something that p is part of, or the other way round.
func covers(pointers []string, p string) bool {
	return slices.ContainsFunc(pointers, func(q string) bool {
		return p == q || strings.HasPrefix(p, q+"/") || strings.HasPrefix(q, p+"/")
	})
}

// What an answer does not name may change, and the decision is the same: for rules written in many ways, and for the policies
// that are built in.
func TestWhatIsNotNamedChangesNoDecision(t *testing.T) {
	t.Parallel()
	tricky := map[string]string{
		"walk":          "decision := {\"allow\": true} if {\n\twalk(input.subject, [_, v])\n\tv == \"bob\"\n}",
		"comprehension": `decision := {"allow": true} if count({r | some r in input.subject.roles; r == "admin"}) == 1`,
		"every":         "decision := {\"allow\": true} if {\n\tinput.subject.type == \"user\"\n\tevery k, v in input.context {\n\t\tk != \"acr\"\n\t\tv != \"192.0.2.7\"\n\t}\n}",
		"with":          "decision := {\"allow\": true} if ok with input.action as {\"name\": input.resource.type}\n\nok if input.action.name == \"invoice\"",
		"negation":      "decision := {\"allow\": true} if {\n\tinput.subject.type == \"user\"\n\tnot input.subject.properties.plan == \"gold\"\n}",
		"object.get":    `decision := {"allow": true} if object.get(input, ["resource", "id"], "") == "18"`,
		"computed name": "decision := {\"allow\": true} if {\n\tk := concat(\"\", [\"i\", \"p\"])\n\tinput.context[k] == \"192.0.2.7\"\n}",
		"partial set":   "decision := {\"allow\": true} if \"x\" in names\n\nnames contains \"x\" if input.resource.params.id == \"18\"",
		"function":      "decision := {\"allow\": true} if same(input.subject.id, \"bob\")\n\nsame(a, b) if a == b\n\nsame(a, _) if {\n\ta == \"nobody\"\n\tinput.resource.properties.owner == \"alice\"\n}",
		"value":         `decision := {"allow": false, "reasons": [input.action.name]}`,
		"default":       "decision := {\"allow\": x}\n\ndefault x := false\n\nx if input.context.acr == \"aal2\"",
		"object rule":   "decision := {\"allow\": true} if table[input.action.name] == \"yes\"\n\ntable[k] := v if {\n\tsome k in [\"GET\", \"DELETE\"]\n\tv := {true: \"yes\", false: \"no\"}[input.subject.type == \"anonymous\"]\n}",
	}
	engines := map[string]*engine.Engine{"built in": open(t, engine.Options{Policies: policies.FS, Now: monday, Services: map[string][]string{"orders": {"http://127.0.0.1:1"}}})}
	for name, body := range tricky {
		files := module(body).(fstest.MapFS)
		if name == "value" || name == "default" { // these decide always
			files["gatehouse/authz.rego"] = &fstest.MapFile{Data: []byte("package gatehouse.authz\n\n" + body)}
		}
		engines[name] = open(t, engine.Options{Policies: files, Now: monday})
	}
	for name, e := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := ask("order", "/orders")
			if name != "built in" {
				first = ask("order", "17")
			}
			before, err := e.Evaluate(t.Context(), first)
			if err != nil || before.Context.Cache == nil {
				t.Fatalf("%+v, %v", before.Context, err)
			}
			changed := 0
			for pointer, change := range changes() {
				r := ask("order", first.Resource.ID)
				change(&r)
				after, err := e.Evaluate(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				differ := after.Decision != before.Decision || !reflect.DeepEqual(after.Context.Reasons, before.Context.Reasons)
				if differ {
					changed++
				}
				if differ && !covers(before.Context.Cache.Vary, pointer) {
					t.Errorf("%s changes the decision, but the answer varies by %q", pointer, before.Context.Cache.Vary)
				}
			}
			if changed == 0 {
				t.Error("nothing changed the decision; this proves nothing")
			}
		})
	}
}

// The clock that policies see counts seconds, so an answer that depends on it ends with its second.
func TestAnAnswerThatDependsOnTheClockEndsWithItsSecond(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]int{
		`decision := {"allow": true} if input.subject.id == "alice"`:                                                         2000,
		"decision := {\"allow\": true} if {\n\tinput.subject.id == \"alice\"\n\tstartswith(input.context.time, \"2026\")\n}": 750,
	} {
		res, err := open(t, engine.Options{Policies: module(body), Now: monday}).Evaluate(t.Context(), ask("order", "17"))
		if err != nil || res.Context.Cache == nil || res.Context.Cache.TTL != want {
			t.Errorf("%s: %+v, %v, want %d ms", body, res.Context.Cache, err, want)
		}
	}
}

// What a look-up found is not kept beyond the look-up's own time, and nothing is looked up that the policy does not look at.
func TestAnswersFromLookUpsAreForOneRequestAlone(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	orders := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"owner":"alice"}`))
	}))
	t.Cleanup(orders.Close)
	services := map[string][]string{"orders": {orders.URL}}
	const lookups = "lookups:\n  order:\n    url: http://orders/orders/{id}\n    properties: {owner: /owner}\n    ttl: 1s\n    deadline: 1s\n"
	evaluate := func(body, id string) authzen.Response {
		files := module(body).(fstest.MapFS)
		files["gatehouse/lookups.yaml"] = &fstest.MapFile{Data: []byte(lookups)}
		res, err := open(t, engine.Options{Policies: files, Services: services, Now: monday}).Evaluate(t.Context(), ask("order", id))
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	const owner, reader = `decision := {"allow": true} if input.resource.properties.owner == input.subject.id`, `decision := {"allow": true} if input.subject.id == "alice"`
	if res := evaluate(owner, "17"); !res.Decision || res.Context.Cache != nil || asked.Load() != 1 {
		t.Errorf("an object: %+v, %d asked", res.Context.Cache, asked.Load())
	}
	if res := evaluate(owner, "/orders"); res.Context.Cache == nil || asked.Load() != 1 {
		t.Errorf("a collection: %+v, %d asked", res.Context.Cache, asked.Load())
	}
	if res := evaluate(reader, "17"); res.Context.Cache == nil || asked.Load() != 1 {
		t.Errorf("a policy that does not look: %+v, %d asked", res.Context.Cache, asked.Load())
	}
}

// S58: what an enforcement point may remember about a collection, or about what is not looked up, does not answer for an object that
// is: to the request alone they look the same.
func TestNoAnswerMayStandForAnObjectThatIsLookedUp(t *testing.T) {
	t.Parallel()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"archived":true}`) }))
	t.Cleanup(api.Close)
	for name, directed := range map[string]*directory.Directory{"alone": nil, "with a directory": directory.Fixed(viewOf(t, staff), directory.Options{})} {
		e := open(t, engine.Options{Services: map[string][]string{"orders": {api.URL}}, Directory: directed, Policies: fstest.MapFS{
			"gatehouse/authz.rego":   {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if {\n\tinput.action.name == \"GET\"\n\tinput.subject.roles[_] != \"nobody\"\n\tnot input.resource.properties.archived\n}\n")},
			"gatehouse/lookups.yaml": {Data: []byte("lookups:\n  order:\n    url: http://orders/orders/{id}\n    properties: {archived: /archived}\n    deadline: 1s\n")},
		}})
		if res, err := e.Evaluate(t.Context(), ask("order", "17")); err != nil || res.Decision || res.Context.Cache != nil {
			t.Errorf("%s: one that is archived: %+v %+v, %v", name, res, res.Context, err)
		}
		for _, c := range []struct{ kind, id, tells string }{{"order", "/orders", "/resource/id"}, {"order", "/orders", "/resource/type"}, {"invoice", "17", "/resource/type"}} {
			res, err := e.Evaluate(t.Context(), ask(c.kind, c.id))
			if err != nil || !res.Decision || res.Context.Cache == nil || !slices.Contains(res.Context.Cache.Vary, c.tells) {
				t.Errorf("%s: %s %s: %+v %+v, %v", name, c.kind, c.id, res, res.Context.Cache, err)
			}
		}
	}
}
