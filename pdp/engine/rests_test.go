package engine_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// staff is a directory in which managers stand in attributes.
const staff = `{"subjects":{
	"alice":{"roles":["clerk"],"attributes":{"manager":"carol"}},
	"bob":{"roles":["clerk"],"attributes":{"manager":"carol"}},
	"carol":{"roles":["chief"],"bindings":[{"role":"deputy","until":"2026-03-02T12:00:00Z"}]},
	"dave":{"roles":["clerk"],"bindings":[{"role":"temp","until":"2026-03-02T10:00:01Z"}]}},
	"roles":{"clerk":{"inherits":["reader"]},"chief":{}}}`

// managers reads whom the subject names, and whom that one does: which subjects matter is known only once it has run.
const managers = `holds(id, role) if role in data.directory.subjects[id].roles

decision := {"allow": true} if {
	holds(input.subject.id, "clerk")
	holds(data.directory.subjects[input.subject.id].attributes.manager, "chief")
}
`

func changed(t *testing.T, d *directory.Directory, lines ...feed.Line) {
	t.Helper()
	v, err := d.View().With(lines)
	if err != nil {
		t.Fatal(err)
	}
	d.Replace(v)
}

func person(id, manager string, roles ...string) feed.Line {
	s := &feed.Subject{ID: id}
	for _, r := range roles {
		s.Bindings = append(s.Bindings, feed.Binding{Role: r})
	}
	if manager != "" {
		s.Attributes = map[string]any{"manager": manager}
	}
	return feed.Line{Subject: s}
}

// S58: what is remembered of one subject outlives every change of others, and ends with a change of whomever its rules looked up.
func TestAChangeOfOneSubjectLeavesWhatIsRememberedOfOthers(t *testing.T) {
	t.Parallel()
	d := directory.Fixed(viewOf(t, staff), directory.Options{})
	now := monday()
	e := open(t, engine.Options{Policies: module(managers), Now: func() time.Time { return now }, Directory: d})
	decides := func(id string, want bool, by string) {
		t.Helper()
		r := ask("order", "17")
		r.Subject.ID = id
		res, err := e.Evaluate(t.Context(), r)
		if err != nil || res.Decision != want || res.Context.EvaluatedBy != by || res.Context.DirectoryRevision != d.View().Word() {
			t.Errorf("%s: %v by %s at %s, %v; want %v by %s", id, res.Decision, res.Context.EvaluatedBy, res.Context.DirectoryRevision, err, want, by)
		}
	}
	const made, remembered = "native", "remembered"
	decides("alice", true, made)
	decides("bob", true, made)
	decides("nobody", false, made)

	changed(t, d, person("dave", "", "chief"), person("eve", "", "clerk")) // whom nobody asked about
	decides("alice", true, remembered)
	decides("nobody", false, remembered)

	changed(t, d, person("bob", "alice", "clerk"))
	decides("alice", true, remembered)
	decides("bob", false, made)
	decides("bob", false, remembered)

	changed(t, d, person("carol", "", "reader")) // the manager of alice, and no longer of bob
	decides("bob", false, remembered)
	decides("alice", false, made)
	changed(t, d, person("nobody", "carol", "clerk")) // is somebody now
	decides("nobody", false, made)
	changed(t, d, person("carol", "", "chief"))
	decides("alice", true, made)
	decides("nobody", true, made)

	changed(t, d, feed.Line{Role: &feed.Role{Name: "clerk"}}) // roles are not looked at
	decides("alice", true, remembered)
	changed(t, d, person("carol", "", "chief")) // the same as before
	decides("alice", true, remembered)
	changed(t, d, feed.Line{Subject: &feed.Subject{ID: "alice", Gone: true}})
	decides("alice", false, made)
}

// S58: a binding that ends concerns who has it: of somebody else it changes nothing, and shortens nothing.
func TestTheEndOfABindingConcernsWhoHasIt(t *testing.T) {
	t.Parallel()
	d := directory.Fixed(viewOf(t, staff), directory.Options{})
	now := time.Date(2026, time.March, 2, 10, 0, 0, 900e6, time.UTC) // dave's ends in 100 ms
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if count(data.directory.subjects[input.subject.id].roles) > 1`), Now: func() time.Time { return now }, Directory: d})
	for _, c := range []struct {
		after time.Duration
		id    string
		want  bool
		by    string
		ttl   int
	}{
		{0, "carol", true, "native", 1000},
		{0, "dave", true, "native", 100},
		{100 * time.Millisecond, "carol", true, "remembered", 1000},
		{0, "dave", false, "native", 1000},
		{-100 * time.Millisecond, "dave", true, "native", 100},
		{2 * time.Hour, "carol", false, "native", 1000},
		{0, "dave", false, "native", 1000},
	} {
		now = now.Add(c.after)
		r := ask("order", "17")
		r.Subject.ID = c.id
		res, err := e.Evaluate(t.Context(), r)
		if err != nil || res.Decision != c.want || res.Context.EvaluatedBy != c.by || res.Context.Cache.TTL != c.ttl {
			t.Errorf("%+v at %v: %v by %s, %+v, %v", c, now, res.Decision, res.Context.EvaluatedBy, res.Context.Cache, err)
		}
	}
}

// What rests on very many subjects is decided anew each time, and its PEP is told of the next binding that ends, whosever it is.
func TestADecisionAboutVeryManySubjectsIsNotRemembered(t *testing.T) {
	t.Parallel()
	d := directory.Fixed(viewOf(t, staff), directory.Options{})
	now := time.Date(2026, time.March, 2, 10, 0, 0, 900e6, time.UTC)
	e := open(t, engine.Options{Policies: module("decision := {\"allow\": true} if {\n\tevery id in input.resource.properties.ids { not chief(id) }\n}\n\nchief(id) if \"chief\" in data.directory.subjects[id].roles\n"), Now: func() time.Time { return now }, Directory: d})
	r := ask("order", "17")
	var ids []any
	for i := range 100 {
		ids = append(ids, fmt.Sprint("u", i))
	}
	r.Resource.Properties = map[string]any{"ids": ids}
	for range 2 {
		if res, err := e.Evaluate(t.Context(), r); err != nil || !res.Decision || res.Context.EvaluatedBy != "native" || res.Context.Cache.TTL != 100 {
			t.Errorf("%+v %+v, %v", res.Context, res.Context.Cache, err)
		}
	}
}

// anyDirectoryPolicy reads the directory in all ways in which it can be read: by the subject, by a function's argument, by what it
// says of somebody else, by what a list holds, by a text that is written out, its roles by name and whole.
func anyDirectoryPolicy(rt *rapid.T) string {
	who := rapid.SampledFrom([]string{
		"input.subject.id", "input.resource.id", `"u1"`, "data.directory.subjects[input.subject.id].attributes.boss", "data.directory.subjects[data.directory.subjects[input.resource.id].attributes.boss].attributes.boss", "input.nothing",
	})
	what := rapid.SampledFrom([]string{
		`"r1" in data.directory.subjects[%s].roles`, `holds(%s, "r2")`, `not holds(%s, "r3")`, `data.directory.subjects[%s].tenant == "t1"`, `count(object.get(data.directory.subjects[%s], "roles", [])) > 1`,
		"some # in data.directory.subjects[%s].roles\n\t\"r3\" in data.directory.roles[#].inherits", `some n#, # in data.directory.roles; n# in data.directory.subjects[%s].roles; count(#.inherits) > 0`,
		`every role in data.directory.subjects[%s].roles { role != "r1" }`, `data.directory.subjects[%s].attributes.a == 1`, `# := data.directory.subjects[%s]; #.attributes == {"a": 1}`, `not data.directory.subjects[%s]`,
		`some # in ["u1", "u2", %s]; "r2" in data.directory.subjects[#].roles`, `data.directory.subjects.u2.roles[_] in data.directory.subjects[%s].roles`, `reaches("r1"); %s == "u1"`,
	})
	var body strings.Builder
	body.WriteString("holds(id, role) if role in data.directory.subjects[id].roles\n\nreaches(role) if \"r2\" in data.directory.roles[role].inherits\n\n" +
		"decision := {\"allow\": count(met) > 0, \"reasons\": sort(met), \"obligations\": {\"told\": told}} if count(met) > 0\n\ntold contains data.directory.subjects[input.subject.id].attributes\n\n")
	for i := range rapid.IntRange(1, 3).Draw(rt, "rules") {
		fmt.Fprintf(&body, "met contains \"m%d\" if {\n\tinput.subject.type == \"user\"\n", i)
		for j := range rapid.IntRange(1, 2).Draw(rt, "conditions") {
			one := strings.Replace(what.Draw(rt, "what"), "%s", who.Draw(rt, "who"), 1)
			fmt.Fprintf(&body, "\t%s\n", strings.ReplaceAll(one, "#", fmt.Sprint("v", j)))
		}
		body.WriteString("}\n\n")
	}
	return strings.Replace(body.String(), "input.nothing", "input.resource.properties.nothing", -1)
}

// drawnChange changes somebody, or a role.
func drawnChange(rt *rapid.T, d *directory.Directory) {
	lines := []feed.Line{{Role: &feed.Role{Name: "r1", Inherits: []string{rapid.SampledFrom([]string{"r2", "r3"}).Draw(rt, "inherits")}}}}
	if rapid.IntRange(0, 3).Draw(rt, "a subject") > 0 {
		s := &feed.Subject{ID: rapid.SampledFrom([]string{"u1", "u2", "u3"}).Draw(rt, "whom"), Gone: rapid.IntRange(0, 4).Draw(rt, "gone") == 0}
		if !s.Gone {
			s.Tenant = rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(rt, "of")
			for range rapid.IntRange(0, 3).Draw(rt, "bindings") {
				b := feed.Binding{Role: rapid.SampledFrom([]string{"r1", "r2", "r3"}).Draw(rt, "role"), Tenant: rapid.SampledFrom([]string{"", "t1"}).Draw(rt, "in")}
				if rapid.Bool().Draw(rt, "ends") {
					at := monday().Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "at")) * time.Minute)
					b.Until = &at
				}
				s.Bindings = append(s.Bindings, b)
			}
			s.Attributes = map[string]any{}
			if boss := rapid.SampledFrom([]string{"", "u1", "u2", "u3", "u4"}).Draw(rt, "boss"); boss != "" {
				s.Attributes["boss"] = boss
			}
			if rapid.Bool().Draw(rt, "a") {
				s.Attributes["a"] = json.Number(rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "attribute"))
			}
		}
		lines = []feed.Line{{Subject: s}}
	}
	v, err := d.View().With(lines)
	if err != nil {
		rt.Fatal(err)
	}
	d.Replace(v)
}

// Whatever rules read of the directory, however it and the time change in between: what is remembered is what would be decided, and
// native code decides as topdown does.
func TestWhateverRulesReadOfTheDirectoryNoAnswerChanges(t *testing.T) {
	t.Parallel()
	var remembered, native uint64
	rapid.Check(t, func(rt *rapid.T) {
		body := anyDirectoryPolicy(rt)
		now := monday()
		d := directory.Fixed(viewOf(t, known), directory.Options{})
		opts := engine.Options{
			Policies: module(body), Now: func() time.Time { return now }, Directory: d, Deadline: time.Minute, Memory: -1, NoNative: true, NoPartial: true, Log: slog.New(slog.DiscardHandler),
			Skip: []string{engine.StepSchema, engine.StepBudget},
		}
		plain, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Fatalf("%s\n%v", body, err)
		}
		defer plain.Close()
		opts.Memory, opts.NoNative, opts.NoPartial = 0, false, false
		fast, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Fatal(err)
		}
		defer fast.Close()
		if s := fast.Stats(); s.Wrong > 0 || s.EvaluatedBy != "native" {
			rt.Fatalf("%s\nis evaluated by %s, %d wrong", body, s.EvaluatedBy, s.Wrong)
		}
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "what happens") {
			case 0:
				drawnChange(rt, d)
			case 1:
				now = monday().Add(time.Duration(rapid.IntRange(-1, 4).Draw(rt, "minutes")) * time.Minute)
			default:
				r := ask("order", rapid.SampledFrom([]string{"u1", "u2", "u4"}).Draw(rt, "resource"))
				r.Subject.ID = rapid.SampledFrom([]string{"u1", "u2", "u3"}).Draw(rt, "subject")
				want, wantErr := plain.Evaluate(t.Context(), r)
				for range 2 {
					got, gotErr := fast.Evaluate(t.Context(), r)
					if got.Decision != want.Decision || (gotErr == nil) != (wantErr == nil) || !reflect.DeepEqual(got.Context.Reasons, want.Context.Reasons) ||
						!reflect.DeepEqual(got.Context.Obligations, want.Context.Obligations) {
						rt.Fatalf("%s\n%+v: %s %v %+v %v, plain %v %+v %v", body, r, got.Context.EvaluatedBy, got.Decision, got.Context, gotErr, want.Decision, want.Context, wantErr)
					}
				}
			}
		}
		hits, _ := fast.Remembered()
		remembered, native = remembered+hits, native+fast.Stats().Evaluations["native"]
	})
	if remembered == 0 || native == 0 {
		t.Errorf("%d remembered, %d native", remembered, native)
	}
}

// A document that is asked for often is answered by native code, which sees the directory as it is at each question.
func TestNativeDocumentsSeeTheDirectoryOfTheMoment(t *testing.T) {
	t.Parallel()
	d := directory.Fixed(viewOf(t, staff), directory.Options{})
	e := open(t, engine.Options{Policies: module(managers), Now: monday, Directory: d})
	by := ""
	for i := range 40 {
		role := []string{"clerk", "reader"}[i%2]
		changed(t, d, person("alice", "carol", role))
		doc, err := e.Document(t.Context(), question("gatehouse/authz/decision/allow", map[string]any{"subject": map[string]any{"id": "alice"}}))
		if err != nil || doc.Value != (role == "clerk") || doc.DirectoryRevision != d.View().Word() {
			t.Fatalf("%s: %+v, %v", role, doc, err)
		}
		if by = doc.EvaluatedBy; i == 20 {
			e.Settle()
		}
	}
	if by != "native" {
		t.Errorf("by %s", by)
	}
}
