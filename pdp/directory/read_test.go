package directory_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

const (
	begins = `{"begin":{"epoch":"e","revision":1,"at":"2026-03-03T12:00:00Z"}}` + "\n"
	alice  = `{"subject":{"id":"alice","bindings":[{"role":"clerk"}]}}` + "\n"
	clerk  = `{"role":{"name":"clerk","inherits":["reader"]}}` + "\n"
)

func ends(n int) string { return fmt.Sprintf(`{"end":{"lines":%d}}`, n) + "\n" }

func TestASnapshotIsWholeOrNotUsed(t *testing.T) {
	t.Parallel()
	limits := directory.Limits{Bytes: 5000, Line: 1000, Subjects: 2, Roles: 1}
	if _, err := directory.Read(strings.NewReader(begins+clerk+alice+ends(2)), limits); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                      "cut off",
		begins:                                  "cut off",
		begins + alice:                          "cut off",
		begins + alice[:20]:                     "cut off",
		begins + alice + ends(2):                "says that they are 2",
		begins + alice + ends(1) + alice:        "something follows",
		alice + ends(1):                         "begin is not the first",
		begins + begins + ends(0):               "begin is not the first",
		ends(0):                                 "begin is not the first",
		begins + alice + alice + ends(2):        "twice",
		begins + clerk + clerk + ends(2):        "twice",
		begins + "{}\n" + ends(1):               "exactly one member",
		begins + "[]\n" + ends(1):               "right type",
		begins + "null\n" + ends(1):             "exactly one member",
		begins + "what\n" + ends(1):             "not JSON",
		begins + `{"group":{}}` + ends(1):       "unknown field",
		begins + `{"subject":{"id":""}}`:        "id of 0 bytes",
		begins + `{"subject":{"id":1}}`:         "right type",
		begins + `{"role":{"name":""}}`:         "name has 0 bytes",
		strings.Replace(begins, `"e"`, `""`, 1): "epoch",
		begins + `{"subject":{"id":"a","suspended":true}}` + ends(1):                                                             "unknown field", // it might be a condition
		begins + `{"subject":{"id":"a","gone":true}}` + ends(1):                                                                  "gone",
		begins + `{"role":{"name":"a"},"subject":{"id":"a"}}` + ends(1):                                                          "exactly one member",
		begins + `{"subject":{"id":"a","bindings":[{"tenant":"t"}]}}` + ends(1):                                                  "empty",
		begins + `{"subject":{"id":"a","bindings":[{"role":"r","until":"soon"}]}}` + ends(1):                                     "line 2",
		begins + `{"subject":{"id":"a","attributes":{"a":` + strings.Repeat("[", 17) + strings.Repeat("]", 17) + `}}}` + ends(1): "deeper than 16",
		begins + `{"subject":{"id":"` + strings.Repeat("a", 1001) + `"}}` + ends(1):                                              "longer than 1000 bytes",
		begins + strings.Repeat(" ", 990) + strings.Repeat("\n"+strings.Repeat(" ", 990), 5):                                     "larger than its limit",
		begins + alice + `{"subject":{"id":"b"}}` + `{"subject":{"id":"c"}}` + ends(3):                                           "more than 2 subjects",
		begins + clerk + `{"role":{"name":"b"}}` + ends(2):                                                                       "more than 1 roles",
	} {
		v, err := directory.Read(strings.NewReader(text), limits)
		if v != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %q", text, err, want)
		}
	}
}

func TestChangesFollowWhatIsKnown(t *testing.T) {
	t.Parallel()
	v := view(t, feed.Subject{ID: "alice"})
	line := func(revision uint64) feed.Line {
		return feed.Line{Subject: &feed.Subject{ID: "bob", Revision: revision}}
	}
	for name, c := range map[string]struct {
		begin feed.Begin
		lines []feed.Line
		want  string
	}{
		"another epoch":            {feed.Begin{Epoch: "f", Revision: 1}, nil, "another epoch"},
		"a gap":                    {feed.Begin{Epoch: "e", Revision: 3}, []feed.Line{line(3)}, "does not follow"},
		"a gap further on":         {feed.Begin{Epoch: "e", Revision: 4}, []feed.Line{line(2), line(4)}, "does not follow"},
		"what is known":            {feed.Begin{Epoch: "e", Revision: 2}, []feed.Line{line(1), line(2)}, "does not follow"},
		"out of order":             {feed.Begin{Epoch: "e", Revision: 3}, []feed.Line{line(2), line(3), line(2)}, "does not follow"},
		"no revision":              {feed.Begin{Epoch: "e", Revision: 2}, []feed.Line{line(0)}, "does not follow"},
		"more than it has":         {feed.Begin{Epoch: "e", Revision: 3}, []feed.Line{line(2)}, "leads to revision 2"},
		"something, and has none":  {feed.Begin{Epoch: "e", Revision: 2}, nil, "leads to revision 1"},
		"another time than before": {feed.Begin{Epoch: "e", Revision: 0}, nil, "leads to revision 1"},
	} {
		next, err := v.Apply(answer(c.begin, c.lines...), directory.Limits{}, 0)
		if next != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	next, err := v.Apply(answer(feed.Begin{Epoch: "e", Revision: 3}, line(2), line(2), line(3)), directory.Limits{}, 0)
	if err != nil || next.Subjects() != 2 {
		t.Errorf("several lines of one change: %v", err)
	}
}

func TestADataFileOfOPAIsADirectory(t *testing.T) {
	t.Parallel()
	const inner = `{"subjects":{"alice":{"roles":["clerk"],"tenant":"t1","groups":["g"],"attributes":{"level":3},"bindings":[{"role":"chief","until":"2026-03-03T13:00:00Z"}]},"bob":{}},` +
		`"roles":{"clerk":{"inherits":["reader"],"permissions":[{"action":"read","resource":"order"}]}}}`
	for _, text := range []string{inner, `{"other":{"subjects":[1]},"directory":` + inner + `}`, `{"directory":` + inner + `,"roles":7}`} {
		v, err := directory.ReadData(strings.NewReader(text), directory.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		e, ok := v.Find("alice")
		if want := (directory.Facts{Tenant: "t1", Groups: []string{"g"}, Roles: []string{"chief", "clerk"}, Until: *at(3600e9)}); !ok || !cmp.Equal(want, e.Facts("", noon())) {
			t.Errorf("%s: %+v", text, e.Facts("", noon()))
		}
		if r, ok := v.Roles().Find("clerk"); !ok || v.Subjects() != 2 || len(r.Permissions) != 1 {
			t.Errorf("%s: role %+v of %d subjects", text, r, v.Subjects())
		}
	}
	for text, want := range map[string]string{
		``: "cut off", `{"subjects":{"alice":{"roles":["clerk"]}`: "cut off", `{}`: "no directory", `[]`: "not an object", `{"subjects":[]}`: "not an object",
		`{"subjects":{"a":{}},"directory":{"subjects":{}}}`: "twice, or beside", `{"subjects":{"a":{},"a":{}}}`: "twice", `{"subjects":{},"subjects":{}}`: "twice",
		`{"subjects":{"a":{"role":["clerk"]}}}`: "unknown field", `{"subjects":{"a":{"roles":"clerk"}}}`: "right type", `{"subjects":{}} x`: "something follows",
		`{"subjects":{"":{}}}`: "id of 0 bytes", `{"roles":{"a":{"name":"b"}}}`: "another name",
	} {
		if v, err := directory.ReadData(strings.NewReader(text), directory.Limits{}); v != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzFeed: whatever arrives, a view of it is whole, and is read again as it was written.
func FuzzFeed(f *testing.F) {
	f.Add([]byte(begins+clerk+alice+ends(2)), false)
	f.Add([]byte(begins+`{"subject":{"id":"b","revision":2,"tenant":"t","groups":["g","g"],"attributes":{"a":[1,"x",null,{"b":true}]},"bindings":[{"role":"r","tenant":"t","until":"2026-03-03T12:00:00Z"}]}}`+"\n"+ends(1)), false)
	f.Add([]byte(`{"directory":{"subjects":{"a":{"roles":["r"]}},"roles":{"r":{}}}}`), true)
	f.Add([]byte(begins[:10]), false)
	f.Fuzz(func(t *testing.T, b []byte, data bool) {
		limits := directory.Limits{Bytes: 1 << 20, Line: 1 << 16, Subjects: 1000, Roles: 1000}
		read := directory.Read
		if data {
			read = directory.ReadData
		}
		v, err := read(bytes.NewReader(b), limits)
		if (v == nil) != (err != nil) {
			t.Fatalf("%v and %v", v, err)
		}
		_, _ = view(t, feed.Subject{ID: "alice"}).Apply(bytes.NewReader(b), limits, 0) // must not panic
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := v.Write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := directory.Read(&out, directory.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for id, e := range v.All() {
			other, ok := again.Find(id)
			if !ok || !cmp.Equal(e.Subject(id), other.Subject(id)) {
				t.Errorf("%q is %+v, and %+v after it was written", id, e.Subject(id), other.Subject(id))
			}
		}
	})
}
