package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/util"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// sameAsOPA reads a text with few members to a relation, and compares what it holds with what OPA makes of it.
func sameAsOPA(t *testing.T, text string) {
	t.Helper()
	var want any
	wantErr := util.Unmarshal([]byte(text), &want)
	for _, large := range []int{0, 1, 3, 20_000} {
		for _, rooted := range []bool{true, false} {
			got, relations, err := engine.ReadData(t.Context(), []byte(text), large, rooted)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%q: %v, want %v", text, err, wantErr)
			}
			if err == nil && !reflect.DeepEqual(got, want) {
				t.Errorf("%q, with relations of more than %d: %v, want %v", text, large, got, want)
			}
			if large == 20_000 && relations {
				t.Errorf("%q: a small object became a relation", text)
			}
		}
	}
}

// oddData is JSON, YAML and neither.
var oddData = []string{
	``, ` `, `null`, `1`, `"x"`, `[]`, `{}`, "\xef\xbb\xbf{\"a\": 1}", `{"a": {"b": {"c": 1, "d": 2, "e": {"f": [], "g": 1.50, "h": -0, "i": 1e400}}}}`,
	`{"a": 1, "a": 2}`, `{"a": {"x": 1, "y": 2, "x": 3}, "b": {"x": 1, "y": [{"z": 1, "z": {"q": 1, "r": 2}}], "x": {"k": 1}}}`, `{"a": {"b": 1, "c": 2}, "a": 3}`,
	`{"é": "\u00e9\n\"\\", "\u0000": "\ud83d\ude00", "lone": "\ud800"}`, "{\"bad\": \"\xff\"}", `{"a": 1,}`, `{"a": [1,]}`, `{"a": 1} x`, `{"a": 1} {"b": 2}`, `[1, 2] 3`, `{"a"}`, `{"a": 01}`, `{"a": .5}`, `{"a": 1`,
	"a: 1\nb: {c: [1, 2]}\n", "- a\n- b\n", "a: &x {b: 1, c: 2}\nd: *x\n", "{a: 1}", "\t", `{"a": tru}`, `{"t": true, "f": false, "n": null}`, `{"l": [[], [[]], {"a": {}, "b": {"c": 1, "d": 2}}]}`,
	`{"a": {"1": {"x": [1, "1"]}, "2": {"x": [1, "1"]}, "3": {"x":[1,"1"]}, "4": {"x": {"x": [null]}}, "": ""}}`, `{"deep": {"a": 1, "b": ` + strings.Repeat(`[`, 40) + strings.Repeat(`]`, 40) + `}}`,
}

func TestDataIsReadAsOPAReadsIt(t *testing.T) {
	t.Parallel()
	for _, text := range oddData {
		sameAsOPA(t, text)
	}
}

func FuzzData(f *testing.F) {
	for _, text := range oddData {
		f.Add(text)
	}
	f.Fuzz(sameAsOPA)
}

// Who builds a large relation rests as long as decisions are asked for, and only then.
func TestReadingDataGivesWay(t *testing.T) {
	t.Parallel()
	text := manyRoles(60_000)
	for _, busy := range []bool{true, false} {
		asked := uint64(0)
		ctx := pace.In(t.Context(), pace.New(func() uint64 {
			if busy {
				asked++
			}
			return asked
		}))
		spent, began := pace.Watch(ctx), time.Now()
		if _, _, err := engine.ReadData(ctx, text, engine.DefaultLarge, true); err != nil {
			t.Fatal(err)
		}
		total := time.Since(began)
		worked := spent()
		if rested := total - worked; busy != (rested > 0) {
			t.Errorf("asked: %v; it worked for %v and rested for %v", busy, worked, rested)
		}
	}
}

// A file that holds what it did is the same bytes, whatever its time says, and one that does not is what it holds.
func TestFilesAreComparedByWhatTheyHold(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 20_000)
	before := map[string][]byte{"a.json": []byte(long), "b.json": []byte("b"), "gone.json": []byte("x"), "empty.json": {}}
	for name, text := range map[string]string{
		"as it was": long, "longer": long + "x", "shorter": long[:len(long)-1], "much shorter": "0", "empty": "", "other": "x" + long[1:], "other end": long[:len(long)-1] + "x",
	} {
		files := fstest.MapFS{"a.json": {Data: []byte(text)}, "b.json": {Data: []byte("b")}, "new.json": {Data: []byte("new")}, "empty.json": {}}
		got, err := engine.ReadFiles(t.Context(), files, before)
		if err != nil || len(got) != 4 || string(got["a.json"]) != text || string(got["new.json"]) != "new" || got["empty.json"] == nil {
			t.Fatalf("%s: %d files, %v", name, len(got), err)
		}
		if kept := len(text) > 0 && &got["a.json"][0] == &before["a.json"][0]; kept != (text == long) || &got["b.json"][0] != &before["b.json"][0] {
			t.Errorf("%s: kept: %v", name, kept)
		}
		if string(before["a.json"]) != long {
			t.Fatal("what was read before has changed")
		}
	}
}

// S62: tests of policies see all data, as opa test has it, also what decisions read by keys alone.
func TestTestsMayReadALargeObjectWhole(t *testing.T) {
	t.Parallel()
	const tests = "package rbac_test\n\ntest_all if count(data.rbac.user_roles) == 20001\n\ntest_one if data.rbac.user_roles.u0000003 == [\"r03\", \"r24\"]\n\n" +
		"test_search if [u | some u, r in data.rbac.user_roles; \"r07\" in r; u < \"u0000060\"] == %s\n\ntest_above if count(data.rbac) == 2\n\n" +
		"test_other if data.rbac.user_roles.x == 1 with data.rbac.user_roles as {\"x\": 1}\n\ntest_more if count(data.rbac.user_roles) == 20002 with data.rbac.user_roles.x as 1\n"
	for want, good := range map[string]bool{`["u0000007", "u0000022", "u0000057"]`: true, `["u0000008"]`: false} {
		files := withRoles(20_001, "decision := {\"allow\": true} if \"r07\" in data.rbac.user_roles[input.subject.id]\n")
		files["rbac/rbac_test.rego"] = &fstest.MapFile{Data: fmt.Appendf(nil, tests, want)}
		e, err := engine.Open(t.Context(), engine.Options{Policies: files, Tests: time.Minute, Log: slog.New(slog.DiscardHandler)})
		var why *engine.Refused
		if good && err != nil || !good && (!errors.As(err, &why) || why.Step != engine.StepTests || !strings.HasSuffix(err.Error(), "rbac_test.rego: test_search")) {
			t.Errorf("%s: %v", want, err)
		}
		if e != nil {
			e.Close()
		}
	}
}

func TestTheSchemaKnowsTheMembersOfALargeObject(t *testing.T) {
	t.Parallel()
	for name, there := range map[string]bool{"u0000003": true, "nobody": false} {
		files := withRoles(20_001, "decision := {\"allow\": true} if data.rbac.user_roles."+name+"[0] == input.subject.id\n")
		e, err := engine.Open(t.Context(), engine.Options{Policies: files, Log: slog.New(slog.DiscardHandler)})
		var why *engine.Refused
		if there && err != nil || !there && (!errors.As(err, &why) || why.Step != engine.StepSchema || !strings.Contains(err.Error(), "data.rbac.user_roles.nobody: there is neither such data nor such a rule")) {
			t.Errorf("%s: %v", name, err)
		}
		if e != nil {
			e.Close()
		}
	}
}

// Two files may fill one large object, and deny each other no member.
func TestFilesMayShareALargeObject(t *testing.T) {
	t.Parallel()
	const body = "decision := {\"allow\": true} if \"r07\" in data.rbac.user_roles[input.subject.id]\n"
	files := withRoles(20_001, body)
	files["rbac/more.json"] = &fstest.MapFile{Data: []byte(`{"user_roles": {"more": ["r07"]}}`)}
	e := open(t, engine.Options{Policies: files})
	for id, want := range map[string]bool{"more": true, "u0000007": true, "u0000008": false} {
		r := ask("order", "1")
		r.Subject.ID = id
		if res, err := e.Evaluate(t.Context(), r); err != nil || res.Decision != want {
			t.Errorf("%s: %+v, %v", id, res, err)
		}
	}
	files["rbac/more.json"] = &fstest.MapFile{Data: []byte(`{"user_roles": {"u0000008": ["r07"]}}`)}
	if err := e.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "/rbac/user_roles/u0000008 is also defined by another file") {
		t.Errorf("both define a user: %v", err)
	}
}

// Rules change often, and large data seldom: who publishes rules does not pay for data.
func TestALargeObjectThatHasNotChangedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	const body = "decision := {\"allow\": true} if %q in data.rbac.user_roles[input.subject.id]\n"
	files := withRoles(20_001, fmt.Sprintf(body, "r07"))
	e := open(t, engine.Options{Policies: files})
	made := e.RelationAt("rbac", "user_roles")
	if made == nil {
		t.Fatal("there is no relation")
	}
	files["gatehouse/authz.rego"] = module(fmt.Sprintf(body, "r08")).(fstest.MapFS)["gatehouse/authz.rego"]
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.RelationAt("rbac", "user_roles") != made {
		t.Error("data that has not changed was read again")
	}
	files["rbac/data.json"] = &fstest.MapFile{Data: manyRoles(20_002)}
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.RelationAt("rbac", "user_roles") == made {
		t.Error("data that has changed was not read again")
	}
	r := ask("order", "1")
	r.Subject.ID = "u0020001"
	doc, err := e.Document(t.Context(), question("rbac/user_roles/u0020001", nil))
	if err != nil || asJSON(t, doc.Value) != `["r01","r10"]` {
		t.Errorf("%+v, %v", doc, err)
	}
}

// Who asks right after new policies came into force waits for no preparation: what was asked of the old ones often is ready.
func TestWhatIsAskedForOftenIsPreparedBeforeNewPoliciesDecide(t *testing.T) {
	t.Parallel()
	files := shop("allow if input.user == \"ann\"\n").(fstest.MapFS)
	e := open(t, engine.Options{Policies: files})
	in := map[string]any{"user": "ann"}
	for range 20 {
		if _, err := e.Document(t.Context(), question("shop/allow", in)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Document(t.Context(), question("shop/prices/tea", nil)); err != nil {
		t.Fatal(err)
	}
	e.Settle()
	files["shop/shop.rego"] = &fstest.MapFile{Data: []byte("package shop\n\nallow if input.user == \"bob\"\n")}
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := e.Prepared(); n != 2 {
		t.Errorf("%d documents are ready, want 2", n)
	}
	doc, err := e.Document(t.Context(), question("shop/allow", map[string]any{"user": "bob"}))
	if err != nil || doc.Value != true || doc.EvaluatedBy != "native" {
		t.Errorf("%+v, %v", doc, err)
	}
}

// An engine that is closed ends what goes on in the background, and decides on.
func TestAClosedEngineHasNothingGoingOn(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: shop("allow if input.user == \"ann\"\n")})
	e.Close()
	for range 40 {
		doc, err := e.Document(t.Context(), question("shop/allow", map[string]any{"user": "ann"}))
		if err != nil || doc.Value != true || doc.EvaluatedBy != "topdown" {
			t.Fatalf("%+v, %v", doc, err)
		}
	}
}

// Policies that are published while somebody always asks are the same as else, whichever form decides.
func TestPublishingGivesWayToAllWhoDecideInTheProcess(t *testing.T) {
	t.Parallel()
	const body = "decision := {\"allow\": true} if {\n\tsome role in data.rbac.user_roles[input.subject.id]\n\tstartswith(role, \"r07\")\n\tinput.action.name in {\"GET\", \"PUT\"}\n}\n"
	for _, by := range []string{"native", "partial"} {
		var looks atomic.Uint64
		gauge := new(pace.Gauge)
		gauge.Join(func() uint64 { return looks.Add(1) })
		files := withRoles(20_001, body)
		files["rbac/rbac_test.rego"] = &fstest.MapFile{Data: []byte("package rbac_test\n\ntest_all if count(data.rbac.user_roles) == 20001\n")}
		e := open(t, engine.Options{Policies: files, Memory: -1, NoNative: by == "partial", Gauge: gauge})
		if n := looks.Load(); n < 10 {
			t.Errorf("it looked %d times whether somebody asks", n)
		}
		seen := false
		for i := range 100 {
			r := ask("order", "1")
			r.Subject.ID = fmt.Sprintf("u%07d", i)
			res, err := e.Evaluate(t.Context(), r)
			if want := i%50 == 7 || (i*7+3)%50 == 7; err != nil || res.Decision != want {
				t.Errorf("%s: %+v, %v", r.Subject.ID, res, err)
			}
			seen = seen || err == nil && res.Context.EvaluatedBy == by
		}
		if !seen {
			t.Errorf("none was %s", by)
		}
		before := looks.Load()
		e.Close()
		if e.Reload(t.Context()) != nil || looks.Load() == before {
			t.Error("a closed engine gives way to nobody")
		}
	}
}

func BenchmarkData(b *testing.B) {
	text := manyRoles(500_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := engine.ReadData(context.Background(), text, engine.DefaultLarge, true); err != nil {
			b.Fatal(err)
		}
	}
}
