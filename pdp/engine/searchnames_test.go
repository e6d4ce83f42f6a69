package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

func subjectSearch(limit int) authzen.Search {
	return authzen.Search{For: authzen.Subjects, Limit: limit, Request: authzen.Request{
		Subject: authzen.Subject{Type: "user"}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "17", Properties: map[string]any{"owner": "zoe", "deputy": "u3"}},
	}}
}

// everything follows the pages of a search to its end.
func everything(t interface {
	Helper()
	Fatalf(string, ...any)
}, e *engine.Engine, q authzen.Search) (all []string, last authzen.Found) {
	t.Helper()
	reasons := map[string]bool{}
	for range 1000 {
		found, err := e.Search(context.Background(), q)
		if err != nil {
			t.Fatalf("search: %v", err)
		}
		for _, r := range found.Results {
			all = append(all, r.ID+r.Name)
		}
		for _, r := range found.Reasons {
			reasons[r] = true
		}
		if !found.More {
			found.Complete = len(reasons) == 0
			return all, found
		}
		q.From, q.After, q.Revision = found.Next, found.Last, found.Revision
	}
	t.Fatalf("the pages do not end")
	return nil, last
}

const branch = `{"subjects":{
	"ann":{"roles":["clerk"],"tenant":"t1"}, "bob":{"roles":["clerk"],"tenant":"t2"}, "cid":{"roles":["chief"],"tenant":"t1","attributes":{"deputy":"dan"}},
	"dab":{"roles":["reader"],"tenant":"t1","attributes":{"boss":"cid"}}, "dan":{"roles":["reader"],"tenant":"t1","attributes":{"boss":"cid"}}, "eve":{"roles":[],"tenant":"t1","attributes":{"level":3}}},
	"roles":{"clerk":{"permissions":[{"action":"approve","resource":"order"}]},"chief":{}}}`

// Subjects are found without a rule that says who there is, and an answer says whether these are all.
func TestSubjectsAreThoseOfTheDirectory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body    string
		options directory.Options
		found   string
		reasons string
	}{
		"by role":                 {`decision := {"allow": true} if "clerk" in input.subject.roles`, directory.Options{ForgetUnknown: true}, "ann bob", ""},
		"by role and tenant":      {"decision := {\"allow\": true} if {\n\t\"clerk\" in input.subject.roles\n\tinput.subject.tenant == \"t1\"\n}", directory.Options{ForgetUnknown: true}, "ann", ""},
		"tokens are believed":     {`decision := {"allow": true} if "clerk" in input.subject.roles`, directory.Options{}, "ann bob", "outside_directory"},
		"by what it says itself":  {`decision := {"allow": true} if "clerk" in data.directory.subjects[input.subject.id].roles`, directory.Options{ForgetUnknown: true}, "ann bob", ""},
		"by another's word":       {`decision := {"allow": true} if data.directory.subjects.cid.attributes.deputy == input.subject.id`, directory.Options{ForgetUnknown: true}, "dan", ""},
		"by the word of a boss":   {`decision := {"allow": true} if data.directory.subjects[input.subject.attributes.boss].attributes.deputy == input.subject.id`, directory.Options{ForgetUnknown: true}, "dan", ""},
		"who owns it is unknown":  {`decision := {"allow": true} if input.resource.properties.owner == input.subject.id`, directory.Options{ForgetUnknown: true}, "zoe", ""},
		"nobody by a function":    {"decision := {\"allow\": true} if owns(input.subject.id)\n\nowns(id) if id == input.resource.properties.nobody", directory.Options{ForgetUnknown: true}, "", ""},
		"by the form of a name":   {`decision := {"allow": true} if startswith(input.subject.id, "e")`, directory.Options{ForgetUnknown: true}, "eve", "outside_directory"},
		"by the form of another":  {"decision := {\"allow\": true} if form(me)\n\nform(x) if endswith(x, \"ve\")\n\nme := input.subject.id", directory.Options{ForgetUnknown: true}, "eve", "outside_directory"},
		"everybody but one":       {"decision := {\"allow\": true} if {\n\tinput.subject.type == \"user\"\n\tinput.subject.id != \"bob\"\n}", directory.Options{ForgetUnknown: true}, "ann cid dab dan eve", "outside_directory"},
		"by what tokens say":      {`decision := {"allow": true} if input.subject.claims.acr == "high"`, directory.Options{ForgetUnknown: true}, "", "depends_on_token"},
		"by an attribute's value": {`decision := {"allow": true} if input.subject.attributes.level > 2`, directory.Options{ForgetUnknown: true}, "eve", ""},
	} {
		e := open(t, engine.Options{Policies: module(c.body), Now: monday, Directory: directory.Fixed(viewOf(t, branch), c.options)})
		for _, limit := range []int{1, 2, 100} {
			all, last := everything(t, e, subjectSearch(limit))
			if got := strings.Join(all, " "); got != c.found || strings.Join(last.Reasons, " ") != c.reasons || last.Complete != (c.reasons == "") || last.Directory == "" {
				t.Errorf("%s, pages of %d: %q, %+v", name, limit, got, last)
			}
		}
	}
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if "clerk" in input.subject.roles`), Now: monday, Directory: directory.Fixed(viewOf(t, branch), directory.Options{})})
	robots := subjectSearch(10)
	robots.Request.Subject.Type = "robot"
	if all, last := everything(t, e, robots); len(all) != 0 || strings.Join(last.Reasons, " ") != "candidates_unknown" {
		t.Errorf("robots: %v, %+v", all, last)
	}
	if kinds := fmt.Sprint(e.Searches()); kinds != "[subject action]" {
		t.Errorf("offers %s", kinds)
	}
}

// A rule that says who there is wins, and one that says nothing of what is asked leaves nothing to find.
func TestARuleOfCandidatesWinsOverTheDirectory(t *testing.T) {
	t.Parallel()
	files := module(`decision := {"allow": true} if "clerk" in input.subject.roles`).(fstest.MapFS)
	files["gatehouse/search.rego"] = &fstest.MapFile{Data: []byte("package gatehouse.search\n\nsubjects := {\"candidates\": [{\"type\": \"user\", \"id\": \"bob\"}], \"complete\": true} if input.resource.type == \"order\"\n")}
	e := open(t, engine.Options{Policies: files, Now: monday, Directory: directory.Fixed(viewOf(t, branch), directory.Options{})})
	if all, last := everything(t, e, subjectSearch(10)); strings.Join(all, " ") != "bob" || !last.Complete {
		t.Errorf("%v, %+v", all, last)
	}
	q := subjectSearch(10)
	q.Request.Resource.Type = "other"
	if all, last := everything(t, e, q); len(all) != 0 || strings.Join(last.Reasons, " ") != "candidates_unknown" {
		t.Errorf("%v, %+v", all, last)
	}
}

// A subject of two tenants has the roles of the one that is asked about.
func TestASearchAsksAboutTheTenantOfTheRequest(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if "chief" in input.subject.roles`), Now: monday, Directory: directory.Fixed(viewOf(t, known), directory.Options{ForgetUnknown: true})})
	for tenant, want := range map[string]string{"": "false depends_on_token ", "t1": "true  ", "t2": "true  bob"} {
		q := subjectSearch(10)
		if tenant != "" {
			q.Request.Subject.Properties = map[string]any{"tenant": tenant}
		}
		all, last := everything(t, e, q)
		if got := fmt.Sprint(last.Complete, " ", strings.Join(last.Reasons, " "), " ", strings.Join(all, " ")); got != want {
			t.Errorf("tenant %q: %q, want %q", tenant, got, want)
		}
	}
}

// Actions are those that the policy, or the directory, speaks of.
func TestActionsAreThoseThatThePolicySpeaksOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, found, reasons string }{
		"compared":            {`decision := {"allow": true} if input.action.name in {"read", "list"}`, "list read", ""},
		"in data":             {`decision := {"allow": true} if data.words[input.action.name]`, "edit look", ""},
		"of roles":            {"decision := {\"allow\": true} if {\n\tsome role in input.subject.roles\n\tsome p in data.directory.roles[role].permissions\n\tp.action == input.action.name\n\tp.resource == input.resource.type\n}", "approve", ""},
		"none":                {`decision := {"allow": true} if input.action.name == input.context.nothing`, "", ""},
		"whatever it is":      {`decision := {"allow": true} if { input.subject.type == "user"; input.action.name != "burn" }`, "", "candidates_partial"},
		"by the form":         {`decision := {"allow": true} if regex.match("^loo", input.action.name)`, "look", "candidates_partial"},
		"by its properties":   {`decision := {"allow": true} if { input.action.name == "read"; not input.action.properties.hard }`, "read", "candidates_partial"},
		"through a rule":      {"verb := input.action.name\n\ndecision := {\"allow\": true} if verb == \"read\"", "read", ""},
		"as part of a value":  {"asks := {\"verb\": input.action.name}\n\ndecision := {\"allow\": true} if asks.verb == \"read\"", "read", "candidates_partial"},
		"of what was said so": {`decision := {"allow": true} if input.action.name in input.context.may`, "fly", ""},
	} {
		files := module(c.body).(fstest.MapFS)
		files["words.yaml"] = &fstest.MapFile{Data: []byte("words: {edit: true, look: true}\nother: re\n")}
		e := open(t, engine.Options{Policies: files, Now: monday, Directory: directory.Fixed(viewOf(t, branch), directory.Options{}), Skip: []string{engine.StepSchema}})
		q := subjectSearch(1)
		q.For, q.Request.Subject.ID, q.Request.Action = authzen.Actions, "ann", authzen.Action{}
		q.Request.Context = map[string]any{"may": []any{"fly"}}
		all, last := everything(t, e, q)
		if got := strings.Join(all, " "); got != c.found || strings.Join(last.Reasons, " ") != c.reasons || last.Complete != (c.reasons == "") {
			t.Errorf("%s: %q, %+v", name, got, last)
		}
	}
}

// What somebody may do is not all known where a token could say more of them than the directory and the request do. It is the same
// whether a rule names the actions or not.
func TestWhatSomebodyMayDoByATokenIsNotAll(t *testing.T) {
	t.Parallel()
	byRole := `decision := {"allow": true} if { input.action.name == "read"; "clerk" in input.subject.roles }`
	clerk := map[string]any{"roles": []any{"clerk"}}
	for name, c := range map[string]struct {
		body, id      string
		said          map[string]any
		forgets       bool
		found, reason string
	}{
		"of a tenant not said":       {byRole, "bob", nil, false, "", "depends_on_token"},
		"of a tenant that is said":   {byRole, "bob", map[string]any{"tenant": "t1"}, false, "", ""},
		"of one tenant":              {byRole, "ann", nil, false, "read", ""},
		"somebody unknown":           {byRole, "zoe", nil, false, "", "depends_on_token"},
		"whose roles are said":       {byRole, "zoe", clerk, false, "read", ""},
		"who holds nothing then":     {byRole, "zoe", clerk, true, "", ""},
		"whose roles are not enough": {`decision := {"allow": true} if { input.action.name == "read"; "clerk" in input.subject.roles; input.subject.tenant == "t1" }`, "zoe", clerk, false, "", "depends_on_token"},
		"whom the rules see whole":   {`decision := {"allow": true} if { input.action.name == "read"; input.subject[input.context.what] == "x" }`, "zoe", clerk, false, "", "depends_on_token"},
		"who holds nothing that counts": {
			`decision := {"allow": true} if { input.action.name == "read"; input.subject.id == "zoe" }`, "zoe", nil, false, "read", "",
		},
	} {
		for how, rule := range map[string]string{"by names": "", "by a rule": "package gatehouse.search\n\nactions := {\"complete\": true, \"candidates\": [{\"name\": \"read\"}]}\n"} {
			files := module(c.body).(fstest.MapFS)
			if rule != "" {
				files["gatehouse/search.rego"] = &fstest.MapFile{Data: []byte(rule)}
			}
			people := strings.Replace(known, `"bob"`, `"ann":{"roles":["clerk"],"tenant":"t1"},"bob"`, 1)
			e := open(t, engine.Options{Policies: files, Now: monday, Directory: directory.Fixed(viewOf(t, people), directory.Options{ForgetUnknown: c.forgets}), Skip: []string{engine.StepSchema}})
			q := subjectSearch(10)
			q.For, q.Request.Action = authzen.Actions, authzen.Action{}
			q.Request.Subject = authzen.Subject{Type: "user", ID: c.id, Properties: c.said}
			all, last := everything(t, e, q)
			if got := strings.Join(all, " "); got != c.found || strings.Join(last.Reasons, " ") != c.reason || last.Complete != (c.reason == "") {
				t.Errorf("%s, %s: %q, %+v", name, how, got, last)
			}
		}
	}
}

// anyIDPolicy looks at ids, and at what is known of subjects, in ways that can be told apart and in others.
func anyIDPolicy(rt *rapid.T) string {
	all := []string{
		`"r1" in input.subject.roles`, `input.subject.tenant == "t1"`, `input.subject.id == input.resource.properties.owner`, `input.subject.id in {"u1", "u4"}`, `owns(input.subject.id)`, `not owns(input.subject.id)`,
		`me == input.resource.properties.deputy`, `startswith(input.subject.id, "u")`, `input.subject.id < "u3"`, `count(input.subject.id) == 2`, `input.subject.attributes.boss == "u2"`, `input.subject.attributes.boss == input.subject.id`,
		`"r2" in data.directory.subjects[input.subject.id].roles`, `data.directory.subjects[input.resource.properties.deputy].attributes.boss == input.subject.id`, `data.directory.subjects[input.subject.attributes.boss].attributes.boss == me`,
		`data.lists[input.subject.id]`, `data.lists[me] == "u2"`, `data.lists[_] == input.subject.id`, `[input.subject.id, "u1"] == ["u2", data.lists.u2]`, `{"id": input.subject.id} == {"id": "u3"}`, `[v1 | v1 := input.subject.id; v1 != "u1"] == ["u5"]`,
		`every v2 in ["u1", "u2"] { v2 != input.subject.id }`, `sprintf("%s!", [input.subject.id]) == "u6!"`, `taken[input.subject.id]`, `input.subject[input.context.what] == "u1"`, `object.get(data.lists, input.subject.id, "none") == "none"`, `both(input.subject.id, "u1")`,
		`echo(input.subject.id) == "u7"`, `whole.id == "u1"`, `data.who[input.context.where] == "u2"`,
	}
	if rapid.Bool().Draw(rt, "plain") { // such that all can be named
		all = all[:5]
	}
	what := rapid.SampledFrom(all)
	var body strings.Builder
	body.WriteString(`me := input.subject.id

whole := input.subject

echo(x) := x

taken contains "u2"

taken contains input.resource.properties.owner

both(x, x2) if x == x2

owns("zoe") if input.resource.properties.owner == "zoe"

owns(id) if id == input.resource.properties.deputy

decision := {"allow": true} if met

`)
	for range rapid.IntRange(1, 3).Draw(rt, "rules") {
		body.WriteString("met if {\n\tinput.subject.type == \"user\"\n")
		for range rapid.IntRange(1, 2).Draw(rt, "conditions") {
			c := what.Draw(rt, "condition")
			fmt.Fprintf(&body, "\t%s\n", c)
		}
		body.WriteString("}\n\n")
	}
	return body.String()
}

// Whatever the rules do with names: a search finds whom decisions permit, no more and no fewer, and where it says that it is complete
// nobody else is permitted either.
func TestASearchFindsWhomDecisionsPermit(t *testing.T) {
	t.Parallel()
	complete := 0
	rapid.Check(t, func(rt *rapid.T) {
		body := anyIDPolicy(rt)
		d := directory.Fixed(viewOf(t, `{"subjects":{"u5":{"roles":["r1"]},"u6":{"roles":["r1"],"tenant":"t1"},"u7":{"attributes":{"boss":"u7"}},"u8":{},"u9":{"roles":["r2"]}},"roles":{}}`), directory.Options{ForgetUnknown: rapid.IntRange(0, 3).Draw(rt, "believes") > 0})
		for range rapid.IntRange(0, 5).Draw(rt, "changes") {
			drawnChange(rt, d)
		}
		files := module(body).(fstest.MapFS)
		files["who.rego"] = &fstest.MapFile{Data: []byte("package who\n\nme := input.subject.id\n\nother := \"u2\"\n")}
		files["lists/data.yaml"] = &fstest.MapFile{Data: []byte("u1: u2\nu2: u1\nu9: x\n")}
		e, err := engine.Open(t.Context(), engine.Options{Policies: files, Now: monday, Directory: d, Log: slog.New(slog.DiscardHandler), Deadline: time.Minute, NoNative: true, NoPartial: true, Skip: []string{engine.StepSchema, engine.StepBudget}})
		if err != nil {
			if strings.Contains(err.Error(), "must deny by default") {
				rt.Skip(err)
			}
			rt.Fatalf("%s\n%v", body, err)
		}
		defer e.Close()
		q := subjectSearch(rapid.IntRange(1, 20).Draw(rt, "limit"))
		q.Request.Context = map[string]any{"what": rapid.SampledFrom([]string{"id", "tenant"}).Draw(rt, "what"), "where": rapid.SampledFrom([]string{"me", "other"}).Draw(rt, "where")}
		got, last := everything(rt, e, q)
		var want []string
		for _, id := range []string{"u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8", "u9", "ua", "x", "zed", "zoe"} {
			r := q.Request
			r.Subject.ID = id
			res, err := e.Evaluate(t.Context(), r)
			if err != nil {
				rt.Fatal(err)
			}
			_, known := d.View().Find(id)
			if res.Decision && (known || last.Complete || slices.Contains(got, id)) {
				want = append(want, id)
			}
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("%s\nfound %v, %+v; decisions permit %v", body, got, last, want)
		}
		if last.Complete {
			complete++
		}
	})
	if complete == 0 {
		t.Error("none was complete")
	}
}

// BenchmarkSearchOfADirectory is one page of a search over half a million subjects, of whom one in fifty has the role: where all that
// matters is a role, where an owner may as well, and where the form of a name matters, so that each has to be decided on.
func BenchmarkSearchOfADirectory(b *testing.B) {
	for name, body := range map[string]string{
		"role":          `decision := {"allow": true} if "r07" in input.subject.roles`,
		"role or owner": "decision := {\"allow\": true} if \"r07\" in input.subject.roles\n\ndecision := {\"allow\": true} if input.resource.properties.owner == input.subject.id\n",
		"nobody":        `decision := {"allow": true} if "none" in input.subject.roles`,
		"form":          "decision := {\"allow\": true} if {\n\t\"r07\" in input.subject.roles\n\tstartswith(input.subject.id, \"u\")\n}\n",
	} {
		b.Run(name, func(b *testing.B) {
			e, err := engine.Open(b.Context(), engine.Options{
				Policies: module(body), Directory: directory.Fixed(filledView(b, 1_000_000), directory.Options{ForgetUnknown: true}), Deadline: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			q := subjectSearch(100)
			for b.Loop() {
				if found, err := e.Search(b.Context(), q); err != nil || len(found.Results) != 100 && name != "nobody" || found.Complete != (name != "form") {
					b.Fatalf("%+v, %v", found, err)
				}
			}
		})
	}
}
