package directory_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noon() time.Time { return time.Date(2026, time.March, 3, 12, 0, 0, 0, time.UTC) }

// answer writes an answer of a feed.
func answer(begin feed.Begin, lines ...feed.Line) *bytes.Buffer {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	_ = enc.Encode(feed.Line{Begin: &begin})
	for _, l := range lines {
		_ = enc.Encode(l)
	}
	_ = enc.Encode(feed.Line{End: &feed.End{Lines: len(lines)}})
	return &b
}

func view(t testing.TB, subjects ...feed.Subject) *directory.View {
	t.Helper()
	lines := make([]feed.Line, len(subjects))
	for i := range subjects {
		lines[i].Subject = &subjects[i]
	}
	v, err := directory.Read(answer(feed.Begin{Epoch: "e", Revision: 1}, lines...), directory.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func at(d time.Duration) *time.Time {
	t := noon().Add(d)
	return &t
}

func TestABindingCountsInItsTenantUntilItEnds(t *testing.T) {
	t.Parallel()
	v := view(t,
		feed.Subject{ID: "alice", Tenant: "t1", Bindings: []feed.Binding{
			{Role: "reader"}, {Role: "writer", Tenant: "t1"}, {Role: "owner", Tenant: "t2"}, {Role: "breaker", Until: at(time.Hour)}, {Role: "late", Until: at(0)},
		}},
		feed.Subject{ID: "bob", Bindings: []feed.Binding{{Role: "reader"}, {Role: "writer", Tenant: "t1"}, {Role: "owner", Tenant: "t2", Until: at(time.Minute)}}},
	)
	for _, c := range []struct {
		id, claimed string
		after       time.Duration
		want        directory.Facts
	}{
		{"alice", "", 0, directory.Facts{Tenant: "t1", Roles: []string{"breaker", "reader", "writer"}, Until: *at(time.Hour)}},
		{"alice", "t2", 0, directory.Facts{Tenant: "t1", Roles: []string{"breaker", "reader", "writer"}, Until: *at(time.Hour)}}, // the claim is not believed
		{"alice", "", time.Hour - time.Millisecond, directory.Facts{Tenant: "t1", Roles: []string{"breaker", "reader", "writer"}, Until: *at(time.Hour)}},
		{"alice", "", time.Hour, directory.Facts{Tenant: "t1", Roles: []string{"reader", "writer"}}},
		{"bob", "", 0, directory.Facts{Roles: []string{"reader"}}},
		{"bob", "t1", 0, directory.Facts{Tenant: "t1", Roles: []string{"reader", "writer"}}},
		{"bob", "t2", 0, directory.Facts{Tenant: "t2", Roles: []string{"owner", "reader"}, Until: *at(time.Minute)}},
		{"bob", "t2", time.Minute, directory.Facts{Roles: []string{"reader"}}}, // nothing binds bob to t2 any more
		{"bob", "t3", 0, directory.Facts{Roles: []string{"reader"}}},
	} {
		e, ok := v.Find(c.id)
		if !ok {
			t.Fatalf("%s is not known", c.id)
		}
		if diff := cmp.Diff(c.want, e.Facts(c.claimed, noon().Add(c.after))); diff != "" {
			t.Errorf("%s as of %q after %v (-want +got):\n%s", c.id, c.claimed, c.after, diff)
		}
	}
	last, next := v.Turns(noon())
	if !last.Equal(noon()) || !next.Equal(*at(time.Minute)) {
		t.Errorf("turns at %v and %v", last, next)
	}
}

func TestAttributesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	want := map[string]any{
		"department": "sales", "level": json.Number("12345678901234567890"), "rate": json.Number("1.50"), "on": true, "off": false, "none": nil,
		"list": []any{"a", json.Number("1"), []any{}, map[string]any{}}, "": map[string]any{"deep": map[string]any{"er": "ü\x00"}},
	}
	e, _ := view(t, feed.Subject{ID: "alice", Attributes: want}).Find("alice")
	if diff := cmp.Diff(want, e.Attributes()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever changes in whatever order, and however layers are merged meanwhile, a view answers what a plain map would.
func TestAViewAnswersAsAMapWould(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("u%d", rapid.IntRange(0, 60).Draw(t, "id")) })
		names := rapid.SampledFrom([]string{"a", "b", "c", "", "ü"})
		subject := rapid.Custom(func(t *rapid.T) feed.Subject {
			s := feed.Subject{ID: ids.Draw(t, "id"), Tenant: names.Draw(t, "tenant")}
			for range rapid.IntRange(0, 4).Draw(t, "bindings") {
				b := feed.Binding{Role: "r" + names.Draw(t, "role"), Tenant: names.Draw(t, "in")}
				if rapid.Bool().Draw(t, "ends") {
					b.Until = at(time.Duration(rapid.IntRange(1, 5).Draw(t, "minutes")) * time.Minute)
				}
				s.Bindings = append(s.Bindings, b)
			}
			if rapid.Bool().Draw(t, "group") {
				s.Groups = []string{"g" + names.Draw(t, "group")}
			}
			if rapid.Bool().Draw(t, "attributes") {
				s.Attributes = map[string]any{"k" + names.Draw(t, "key"): names.Draw(t, "value")}
			}
			return s
		})
		model, roles := map[string]feed.Subject{}, map[string]feed.Role{}
		var lines []feed.Line
		for _, s := range rapid.SliceOfNDistinct(subject, 0, 40, func(s feed.Subject) string { return s.ID }).Draw(t, "snapshot") {
			model[s.ID] = s
			lines = append(lines, feed.Line{Subject: &s})
		}
		v, err := directory.Read(answer(feed.Begin{Epoch: "e", Revision: 7}, lines...), directory.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		revision := uint64(7)
		for range rapid.IntRange(0, 12).Draw(t, "answers") {
			var lines []feed.Line
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				revision++
				switch rapid.IntRange(0, 5).Draw(t, "what") {
				case 0:
					id := ids.Draw(t, "gone")
					delete(model, id)
					lines = append(lines, feed.Line{Subject: &feed.Subject{ID: id, Gone: true, Revision: revision}})
				case 1:
					r := feed.Role{Name: "r" + names.Draw(t, "role"), Revision: revision, Gone: rapid.Bool().Draw(t, "role is gone")}
					if roles[r.Name] = r; r.Gone {
						delete(roles, r.Name)
					}
					lines = append(lines, feed.Line{Role: &r})
				default:
					s := subject.Draw(t, "subject")
					model[s.ID] = s
					s.Revision = revision
					lines = append(lines, feed.Line{Subject: &s})
				}
			}
			before := v.Word()
			next, err := v.Apply(answer(feed.Begin{Epoch: "e", Revision: revision}, lines...), directory.Limits{}, 4)
			if err != nil {
				t.Fatal(err)
			}
			if v.Word() != before || (next == v) != (len(lines) == 0) {
				t.Fatalf("revision %s became %s", before, v.Word())
			}
			v = next
		}
		got := map[string]feed.Subject{}
		for id, e := range v.All() {
			if _, twice := got[id]; twice {
				t.Fatalf("%s is there twice", id)
			}
			got[id] = e.Subject(id)
		}
		for id, s := range model {
			s.Groups = slices.Compact(slices.Sorted(slices.Values(s.Groups)))
			s.Bindings = slices.SortedStableFunc(slices.Values(s.Bindings), func(a, b feed.Binding) int {
				return strings.Compare(a.Role+"\x00"+a.Tenant, b.Role+"\x00"+b.Tenant)
			})
			model[id] = s
			if e, ok := v.Find(id); !ok || !cmp.Equal(got[id], e.Subject(id)) {
				t.Errorf("%s is found otherwise than listed", id)
			}
		}
		if diff := cmp.Diff(model, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(feed.Subject{}, "Revision")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if v.Subjects() != len(model) || v.Roles().Len() != len(roles) {
			t.Errorf("%d subjects and %d roles, want %d and %d", v.Subjects(), v.Roles().Len(), len(model), len(roles))
		}
		for i := range 61 {
			id := fmt.Sprintf("u%d", i)
			if _, known := model[id]; !known {
				if _, ok := v.Find(id); ok {
					t.Errorf("%s is known", id)
				}
			}
		}
		last, next := v.Turns(noon().Add(150 * time.Second))
		for id, s := range model {
			for _, b := range s.Bindings {
				if b.Until == nil {
					continue
				}
				if ended := !b.Until.After(noon().Add(150 * time.Second)); ended && last.Before(*b.Until) || !ended && (next.IsZero() || next.After(*b.Until)) {
					t.Errorf("%s ends at %v, but the turns are %v and %v", id, b.Until, last, next)
				}
			}
		}
	})
}
