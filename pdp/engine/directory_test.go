package engine_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// known is a view of a directory; it has bindings of alice, who holds clerk until 12:00 UTC of monday.
const known = `{"subjects":{
	"alice":{"roles":["reader"],"tenant":"t1","groups":["g1"],"attributes":{"level":3},"bindings":[{"role":"clerk","until":"2026-03-02T12:00:00Z"},{"role":"chief","tenant":"t2"}]},
	"bob":{"bindings":[{"role":"chief","tenant":"t2"}]}},
	"roles":{"clerk":{"inherits":["reader"],"permissions":[{"action":"read","resource":"order"}]},"reader":{}}}`

func viewOf(t testing.TB, text string) *directory.View {
	t.Helper()
	v, err := directory.ReadData(strings.NewReader(text), directory.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// echo is a policy that says what it sees of the subject.
const echo = `decision := {"allow": true, "obligations": {"seen": object.filter(input.subject, ["roles", "groups", "tenant", "attributes"])}} if input.subject.id != "probe"`

func seen(t *testing.T, e *engine.Engine, s authzen.Subject) map[string]any {
	t.Helper()
	r := ask("order", "17")
	r.Subject = s
	before := maps.Clone(s.Properties)
	res, err := e.Evaluate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before, s.Properties) {
		t.Errorf("the request was changed: %v", s.Properties)
	}
	got, _ := res.Context.Obligations["seen"].(map[string]any)
	return got
}

func list(names ...string) []any {
	out := []any{}
	for _, n := range names {
		out = append(out, n)
	}
	return out
}

// S58, S59: whoever the directory knows has what it says, and nothing that only a token says.
func TestTheDirectoryKnowsBetterThanARequest(t *testing.T) {
	t.Parallel()
	claims := map[string]any{"roles": []string{"admin"}, "groups": []string{"x"}, "tenant": "t2", "attributes": map[string]any{"level": 9}, "claims": map[string]any{"iss": "https://a.test"}}
	told := map[string]any{"roles": list("admin"), "groups": list("x"), "tenant": "t2", "attributes": map[string]any{"level": 9}}
	alice := map[string]any{"roles": list("clerk", "reader"), "groups": list("g1"), "tenant": "t1", "attributes": map[string]any{"level": 3}}
	for name, c := range map[string]struct {
		options directory.Options
		subject authzen.Subject
		want    map[string]any
	}{
		"known":                          {directory.Options{}, authzen.Subject{Type: "user", ID: "alice", Properties: claims}, alice},
		"known, nothing said":            {directory.Options{}, authzen.Subject{Type: "user", ID: "alice"}, alice},
		"a tenant that a binding is for": {directory.Options{}, authzen.Subject{Type: "user", ID: "bob", Properties: claims}, map[string]any{"roles": list("chief"), "groups": list(), "tenant": "t2", "attributes": map[string]any{}}},
		"a tenant that none is for": {
			directory.Options{}, authzen.Subject{Type: "user", ID: "bob", Properties: map[string]any{"tenant": "t1"}},
			map[string]any{"roles": list(), "groups": list(), "attributes": map[string]any{}},
		},
		"unknown":             {directory.Options{}, authzen.Subject{Type: "user", ID: "carol", Properties: claims}, told},
		"unknown, forgotten":  {directory.Options{ForgetUnknown: true}, authzen.Subject{Type: "user", ID: "carol", Properties: claims}, map[string]any{}},
		"of another type":     {directory.Options{}, authzen.Subject{Type: "service", ID: "alice", Properties: claims}, told},
		"of a type besides":   {directory.Options{Types: []string{"user", "service"}}, authzen.Subject{Type: "service", ID: "alice", Properties: claims}, alice},
		"of the issuer":       {directory.Options{Issuer: "https://a.test"}, authzen.Subject{Type: "user", ID: "alice", Properties: claims}, alice},
		"of another issuer":   {directory.Options{Issuer: "https://b.test", ForgetUnknown: true}, authzen.Subject{Type: "user", ID: "alice", Properties: claims}, map[string]any{}},
		"of no issuer at all": {directory.Options{Issuer: "https://b.test"}, authzen.Subject{Type: "user", ID: "alice"}, map[string]any{}},
	} {
		e := open(t, engine.Options{Policies: module(echo), Now: monday, Directory: directory.Fixed(viewOf(t, known), c.options)})
		want := throughJSON(t, c.want)
		if got := throughJSON(t, seen(t, e, c.subject)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the policy sees %v, want %v", name, got, want)
		}
	}
}

// S58: a binding ends by itself, and no remembered answer outlives it.
func TestABindingEndsByItself(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"input": `decision := {"allow": true} if "clerk" in input.subject.roles`,
		"data":  `decision := {"allow": true} if "clerk" in data.directory.subjects[input.subject.id].roles`,
	} {
		noon := time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC)
		now := noon.Add(-300 * time.Millisecond)
		e := open(t, engine.Options{Policies: module(body), Now: func() time.Time { return now }, Directory: directory.Fixed(viewOf(t, known), directory.Options{})})
		r := ask("order", "17")
		for range 2 {
			res, err := e.Evaluate(t.Context(), r)
			if err != nil || !res.Decision || res.Context.Cache.TTL != 300 {
				t.Fatalf("%s: %+v, %v", name, res.Context, err)
			}
		}
		if hits, _ := e.Remembered(); hits != 1 {
			t.Errorf("%s: remembered %d times", name, hits)
		}
		for _, later := range []struct {
			at    time.Time
			allow bool
		}{{noon, false}, {noon.Add(time.Hour), false}, {noon.Add(-time.Second), true}} {
			now = later.at
			if res, err := e.Evaluate(t.Context(), r); err != nil || res.Decision != later.allow {
				t.Errorf("%s at %v: %v, %v", name, later.at, res.Decision, err)
			}
		}
	}
}

// S58: an answer says by which parts of the request, for how long and with which revision of the directory it holds.
func TestAnAnswerSaysThatADirectoryHadAPartInIt(t *testing.T) {
	t.Parallel()
	found := []string{"/subject/id", "/subject/properties/claims/iss", "/subject/properties/tenant", "/subject/type"}
	for body, c := range map[string]struct {
		ttl  int
		vary []string
	}{
		`decision := {"allow": true} if "reader" in input.subject.roles`:                                                        {1000, append([]string{"/subject/properties/roles"}, found...)},
		`decision := {"allow": true} if input.subject.attributes.level == 3`:                                                    {1000, append([]string{"/subject/properties/attributes/level"}, found...)},
		`decision := {"allow": true} if input.subject.id == "alice"`:                                                            {2000, []string{"/subject/id"}},
		`decision := {"allow": true} if data.directory.subjects[input.subject.id].tenant == "t1"`:                               {1000, []string{"/subject/id"}},
		`decision := {"allow": true} if {` + "\nstartswith(input.context.time, \"2026\")\n\"reader\" in input.subject.roles\n}": {750, append([]string{"/subject/properties/roles"}, found...)},
	} {
		e := open(t, engine.Options{Policies: module(body), Now: monday, Directory: directory.Fixed(viewOf(t, known), directory.Options{})})
		res, err := e.Evaluate(t.Context(), ask("order", "17"))
		slices.Sort(c.vary)
		if err != nil || !res.Decision || res.Context.DirectoryRevision == "" || res.Context.Cache.TTL != c.ttl || !slices.Equal(res.Context.Cache.Vary, c.vary) {
			t.Errorf("%s\n %+v with %+v, %v; want %v", body, res.Context, res.Context.Cache, err, c)
		}
	}
}

// S56: what is not known, or too old, decides nothing.
func TestWithoutADirectoryThatIsToBeAskedAllIsDenied(t *testing.T) {
	t.Parallel()
	d, err := directory.New(directory.Options{URL: "https://directory.test"})
	if err != nil {
		t.Fatal(err)
	}
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if input.subject.id == "alice"`), Directory: d})
	res, err := e.Evaluate(t.Context(), ask("order", "17"))
	if res.Decision || !errors.Is(err, fault.New(fault.Unavailable, "").Named("not_loaded")) {
		t.Errorf("%v, %v", res.Decision, err)
	}
	if _, err := e.Document(t.Context(), question("gatehouse/authz/decision", nil)); !errors.Is(err, fault.New(fault.Unavailable, "").Named("not_loaded")) {
		t.Error(err)
	}

	var now atomic.Pointer[time.Time]
	at := monday()
	now.Store(&at)
	clock := func() time.Time { return *now.Load() }
	for _, deny := range []bool{true, false} {
		now.Store(&at)
		d := directory.Fixed(viewOf(t, known), directory.Options{MaxStaleness: time.Minute, DenyWhenStale: deny, Now: clock})
		e = open(t, engine.Options{Policies: module(`decision := {"allow": true} if "reader" in input.subject.roles`), Directory: d, Now: clock})
		if res, err = e.Evaluate(t.Context(), ask("order", "17")); err != nil || !res.Decision {
			t.Errorf("%+v, %v", res.Context, err)
		}
		later := at.Add(time.Minute + 1)
		now.Store(&later)
		res, err = e.Evaluate(t.Context(), ask("order", "17"))
		if err != nil || res.Decision == deny || deny && (res.Context.Outcome != authzen.Indeterminate || !slices.Equal(res.Context.Reasons, []string{"directory_stale"})) {
			t.Errorf("deny %v: %+v, %v", deny, res.Context, err)
		}
	}
}

const readsData = `decision := {"allow": true} if {
	some role in data.directory.subjects[input.subject.id].roles
	some permission in data.directory.roles[role].permissions
	permission.resource == input.resource.type
}
`

// The same text reads a data.json where opa has one, and the directory where there is one.
func TestPoliciesReadTheDirectoryAsTheyReadItsFile(t *testing.T) {
	t.Parallel()
	files := module(readsData).(fstest.MapFS)
	files["gatehouse/authz_test.rego"] = &fstest.MapFile{Data: []byte(`package gatehouse.authz_test

import data.gatehouse.authz

test_alice if authz.decision.allow with input as {"subject": {"id": "alice"}, "resource": {"type": "order"}}

test_dora if authz.decision.allow with input as {"subject": {"id": "dora"}, "resource": {"type": "order"}}
	with data.directory.subjects as {"dora": {"roles": ["clerk"]}}

test_all_roles if count(data.directory.roles) == 1
`)}
	files["directory/data.json"] = &fstest.MapFile{Data: []byte(`{"subjects":{"alice":{"roles":["clerk"]},"tester":{"roles":["clerk"]}},"roles":{"clerk":{"permissions":[{"resource":"order"}]}}}`)}
	asFile := open(t, engine.Options{Policies: files, Now: monday})
	asDirectory := open(t, engine.Options{Policies: files, Now: monday, Directory: directory.Fixed(viewOf(t, known), directory.Options{})})
	for id, want := range map[string][2]bool{"alice": {true, true}, "tester": {true, false}, "bob": {false, false}, "nobody": {false, false}} {
		for i, e := range []*engine.Engine{asFile, asDirectory} {
			r := ask("order", "17")
			r.Subject.ID = id
			if res, err := e.Evaluate(t.Context(), r); err != nil || res.Decision != want[i] {
				t.Errorf("%s, %d: %v, %v", id, i, res.Decision, err)
			}
		}
	}
	for path, want := range map[string]string{
		"directory/subjects/alice":            `{"attributes":{"level":3},"groups":["g1"],"roles":["clerk","reader"],"tenant":"t1"}`,
		"directory/subjects/bob":              `{"attributes":{},"groups":[],"roles":[]}`,
		"directory/subjects/alice/roles/1":    `"reader"`,
		"directory/subjects/alice/roles/2":    ``,
		"directory/subjects/nobody":           ``,
		"directory/subjects/alice/what":       ``,
		"directory/roles/clerk/permissions/0": `{"action":"read","conditions":[],"resource":"order"}`,
		"directory/roles":                     `{"clerk":{"inherits":["reader"],"permissions":[{"action":"read","conditions":[],"resource":"order"}]},"reader":{"inherits":[],"permissions":[]}}`,
		"directory/roles/none":                ``,
		"directory/other":                     ``,
	} {
		doc, err := asDirectory.Document(t.Context(), question(path, nil))
		if got := textOf(t, doc.Value); err != nil || doc.Defined != (want != "") || doc.Defined && got != want || doc.DirectoryRevision == "" {
			t.Errorf("%s: %s, %v; want %s", path, got, err, want)
		}
	}
	// As docs/directory.md has it: who holds clerk is a reader too.
	inherits := open(t, engine.Options{Policies: module("inherits := {name: role.inherits | some name, role in data.directory.roles}\n\nheld := graph.reachable(inherits, {role | some role in input.subject.roles})\n"),
		Now: monday, Directory: directory.Fixed(viewOf(t, known), directory.Options{})})
	held, err := inherits.Document(t.Context(), question("gatehouse/authz/held", map[string]any{"subject": map[string]any{"roles": []any{"clerk"}}}))
	if err != nil || textOf(t, held.Value) != `["clerk","reader"]` {
		t.Errorf("held: %v, %v", held.Value, err)
	}
	for _, path := range []string{"directory", "directory/subjects", ""} {
		if doc, err := asDirectory.Document(t.Context(), question(path, nil)); err == nil || doc.Defined {
			t.Errorf("%q is told whole: %v", path, err)
		}
	}
}

// Whatever the directory says and whatever time it is, a decision that may be remembered is one that would be made.
func TestRememberedDecisionsAreThoseOfTheDirectory(t *testing.T) {
	t.Parallel()
	type pair struct {
		directory     *directory.Directory
		with, without *engine.Engine
	}
	now := monday()
	pairs := map[string]pair{}
	for _, body := range []string{
		`decision := {"allow": true} if "r1" in input.subject.roles`,
		`decision := {"allow": true, "reasons": input.subject.roles} if input.subject.tenant == input.resource.properties.tenant`,
		`decision := {"allow": true} if "r1" in data.directory.subjects[input.subject.id].roles`,
		`decision := {"allow": true, "obligations": input.subject.attributes} if input.subject.type == "user"`,
		"decision := {\"allow\": true} if {\n\tsome role in input.subject.roles\n\t\"r2\" in data.directory.roles[role].inherits\n}",
		`decision := {"allow": true, "obligations": {"x": [r | some r, _ in data.directory.roles]}} if input.subject.type == "user"`,
	} {
		d := directory.Fixed(viewOf(t, known), directory.Options{})
		opts := engine.Options{Policies: module(body), Now: func() time.Time { return now }, Directory: d}
		with := open(t, opts)
		opts.Memory = -1
		pairs[body] = pair{d, with, open(t, opts)}
	}
	rapid.Check(t, func(t *rapid.T) {
		p := pairs[rapid.SampledFrom(slices.Sorted(maps.Keys(pairs))).Draw(t, "policy")]
		p.directory.Replace(drawnView(t))
		for range rapid.IntRange(5, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				p.directory.Replace(drawnView(t))
			case 1:
				now = monday().Add(time.Duration(rapid.IntRange(-2, 4).Draw(t, "minutes")) * time.Minute)
			default:
				r := ask("order", "17")
				r.Subject.ID = rapid.SampledFrom([]string{"u1", "u2", "u3"}).Draw(t, "id")
				r.Subject.Properties = map[string]any{"roles": []string{rapid.SampledFrom([]string{"r1", "r3"}).Draw(t, "claims")}, "tenant": rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(t, "tenant")}
				r.Resource.Properties = map[string]any{"tenant": "t1"}
				a, err := p.with.Evaluate(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				b, err := p.without.Evaluate(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if a.Decision != b.Decision || !reflect.DeepEqual(a.Context.Reasons, b.Context.Reasons) || !reflect.DeepEqual(a.Context.Obligations, b.Context.Obligations) {
					t.Fatalf("remembered %v %+v, made %v %+v", a.Decision, a.Context, b.Decision, b.Context)
				}
			}
		}
	})
}

// drawnView is a view with few subjects and roles.
func drawnView(t *rapid.T) *directory.View {
	var subjects []string
	for _, id := range []string{"u1", "u2"} {
		if !rapid.Bool().Draw(t, id) {
			continue
		}
		var bindings []string
		for range rapid.IntRange(0, 3).Draw(t, "bindings") {
			until := ""
			if rapid.Bool().Draw(t, "ends") {
				until = fmt.Sprintf(`,"until":%q`, monday().Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at"))*time.Minute).Format(time.RFC3339Nano))
			}
			bindings = append(bindings, fmt.Sprintf(`{"role":"r%d","tenant":%q%s}`, rapid.IntRange(1, 3).Draw(t, "role"), rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(t, "in"), until))
		}
		subjects = append(subjects, fmt.Sprintf(`%q:{"tenant":%q,"bindings":[%s],"attributes":{"a":%d}}`, id, rapid.SampledFrom([]string{"", "t1"}).Draw(t, "of"), strings.Join(bindings, ","), rapid.IntRange(0, 1).Draw(t, "attribute")))
	}
	text := fmt.Sprintf(`{"subjects":{%s},"roles":{"r1":{"inherits":["r%d"]}}}`, strings.Join(subjects, ","), rapid.IntRange(2, 3).Draw(t, "inherits"))
	v, err := directory.ReadData(strings.NewReader(text), directory.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A search finds what decisions would permit, by what the directory knows.
func TestASearchGoesByTheDirectory(t *testing.T) {
	t.Parallel()
	files := module(`decision := {"allow": true} if "clerk" in input.subject.roles`).(fstest.MapFS)
	files["gatehouse/search.rego"] = &fstest.MapFile{Data: []byte("package gatehouse.search\n\nsubjects := {\"candidates\": [{\"type\": \"user\", \"id\": id} | some id in [\"alice\", \"bob\"]], \"complete\": true}\n")}
	e := open(t, engine.Options{Policies: files, Now: monday, Directory: directory.Fixed(viewOf(t, known), directory.Options{})})
	q := ask("order", "17")
	q.Subject.Properties = map[string]any{"roles": []string{"clerk"}}
	found, err := e.Search(t.Context(), authzen.Search{For: authzen.Subjects, Request: q, Limit: 10})
	if err != nil || len(found.Results) != 1 || found.Results[0].ID != "alice" {
		t.Errorf("%+v, %v", found, err)
	}
}
