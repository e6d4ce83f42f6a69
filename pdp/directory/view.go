package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// View is all that is known at one revision. It never changes.
type View struct {
	epoch    string
	revision uint64
	word     string
	layers   []*layer // the newest first; the last is the base
	subjects int
	roles    *Roles
	stamp    uint64
}

// at sets the revision.
func (v *View) at(revision uint64) {
	sum := sha256.Sum256([]byte(v.epoch))
	v.revision, v.word, v.stamp = revision, hex.EncodeToString(sum[:4])+"-"+strconv.FormatUint(revision, 10), stamps.Add(1)
}

// Word names the revision, across epochs; opaque.
func (v *View) Word() string { return v.word }

// Subjects is how many are known.
func (v *View) Subjects() int { return v.subjects }

// Roles answers all roles. Views between which no role has changed answer the same pointer.
func (v *View) Roles() *Roles { return v.roles }

// Roles is the roles of a view. It never changes.
type Roles struct {
	byName map[string]feed.Role
	stamp  uint64
}

func newRoles(byName map[string]feed.Role) *Roles { return &Roles{byName, stamps.Add(1)} }

// Len is how many there are.
func (r *Roles) Len() int { return len(r.byName) }

// Find answers a role, which must not be changed.
func (r *Roles) Find(name string) (feed.Role, bool) {
	role, ok := r.byName[name]
	return role, ok
}

// All answers all roles, none of which must be changed, in no order.
func (r *Roles) All() iter.Seq2[string, feed.Role] { return maps.All(r.byName) }

// with answers the roles after changes.
func (r *Roles) with(changes []feed.Line, limits Limits) (*Roles, error) {
	next := r
	for _, c := range changes {
		if c.Role == nil {
			continue
		}
		if next == r {
			next = newRoles(maps.Clone(r.byName))
		}
		if err := next.put(c.Role, limits); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func (r *Roles) put(role *feed.Role, limits Limits) error {
	switch {
	case role.Name == "" || len(role.Name) > maxName:
		return fmt.Errorf("a role whose name has %d bytes; it must be 1 to %d", len(role.Name), maxName)
	case role.Gone:
		delete(r.byName, role.Name)
	default:
		r.byName[role.Name] = *role
	}
	if len(r.byName) > limits.Roles {
		return fmt.Errorf("more than %d roles", limits.Roles)
	}
	return nil
}

// Find answers what is known of a subject.
func (v *View) Find(id string) (Entry, bool) {
	for _, l := range v.layers {
		if n, ok := l.ids.find(id); ok {
			return Entry{l, n}, n.grants != gone
		}
	}
	return Entry{}, false
}

// Turns answers the last moment, up to now, and the next one, at which some binding ends by itself; zero if there is none. Some
// of these bindings may have been replaced.
func (v *View) Turns(now time.Time) (last, next time.Time) {
	ms := now.UnixMilli()
	for _, l := range v.layers {
		i, _ := slices.BinarySearch(l.ends, ms+1) // the first that is yet to come
		if i > 0 && (last.IsZero() || milli(l.ends[i-1]).After(last)) {
			last = milli(l.ends[i-1])
		}
		if i < len(l.ends) && (next.IsZero() || milli(l.ends[i]).Before(next)) {
			next = milli(l.ends[i])
		}
	}
	return last, next
}

// Entry is what is known of one subject.
type Entry struct {
	of *layer
	numbers
}

// Facts is what holds of a subject at one moment.
type Facts struct {
	Tenant string
	Groups []string  // sorted
	Roles  []string  // sorted
	Until  time.Time // when this changes by itself; zero is never
}

// Facts answers what holds now. The tenant is the directory's. Where it names none, it is the one that was claimed, if some
// binding is for that one and has not ended; else there is none. Roles are those whose bindings are for this tenant or for all.
func (e Entry) Facts(claimed string, now time.Time) Facts {
	d := decoder{rest: e.of.granted.at(e.grants)}
	f := Facts{Tenant: e.word(d.number())}
	if n := d.number(); n > 0 {
		f.Groups = make([]string, n)
		for i := range f.Groups {
			f.Groups[i] = e.word(d.number())
		}
	}
	ms := now.UnixMilli()
	if f.Tenant == "" && claimed != "" {
		for b := range d.bindings(e) {
			if b.tenant == claimed && (b.end == 0 || ms < b.end) {
				f.Tenant = claimed
				break
			}
		}
	}
	n := 0
	for b := range d.bindings(e) {
		if b.tenant != "" && b.tenant != f.Tenant || b.end != 0 && ms >= b.end {
			continue
		}
		if n++; n == 1 {
			f.Roles = make([]string, 0, 4)
		}
		if b.end != 0 && (f.Until.IsZero() || milli(b.end).Before(f.Until)) {
			f.Until = milli(b.end)
		}
		if len(f.Roles) == 0 || f.Roles[len(f.Roles)-1] != b.role {
			f.Roles = append(f.Roles, b.role)
		}
	}
	return f
}

// Attributes answers a new map of what is known of the subject besides; numbers are json.Number.
func (e Entry) Attributes() map[string]any {
	d := decoder{rest: e.of.known.at(e.attrs)}
	if d.rest == "" {
		return map[string]any{}
	}
	object, _ := d.value().(map[string]any)
	return object
}

func (e Entry) word(n uint64) string {
	if n == 0 {
		return ""
	}
	return e.of.words.at(uint32(n - 1)) //nolint:gosec // it was one
}

type binding struct {
	role, tenant string
	end          int64 // milliseconds since 1970; 0 is never
}

// bindings reads those at d, which stays where it is.
func (d decoder) bindings(e Entry) iter.Seq[binding] {
	return func(yield func(binding) bool) {
		at := d
		for range at.number() {
			b := binding{role: e.word(at.number()), tenant: e.word(at.number()), end: int64(at.number())} //nolint:gosec // it was one
			if !yield(b) {
				return
			}
		}
	}
}

// Subject answers what was sent of a subject.
func (e Entry) Subject(id string) feed.Subject {
	d := decoder{rest: e.of.granted.at(e.grants)}
	s := feed.Subject{ID: id, Tenant: e.word(d.number())}
	for range d.number() {
		s.Groups = append(s.Groups, e.word(d.number()))
	}
	for b := range d.bindings(e) {
		held := feed.Binding{Role: b.role, Tenant: b.tenant}
		if b.end != 0 {
			until := milli(b.end).UTC()
			held.Until = &until
		}
		s.Bindings = append(s.Bindings, held)
	}
	if a := e.Attributes(); len(a) > 0 {
		s.Attributes = a
	}
	return s
}

// All answers the ids of all subjects and what is known of them, in no order.
func (v *View) All() iter.Seq2[string, Entry] {
	return func(yield func(string, Entry) bool) {
		for i, l := range v.layers {
			for id, here := range l.ids.all() {
				if here.grants == gone || slices.ContainsFunc(v.layers[:i], func(above *layer) bool { _, hidden := above.ids.find(id); return hidden }) {
					continue
				}
				if !yield(id, Entry{l, here}) {
					return
				}
			}
		}
	}
}

// growth is how many times larger a layer is at least than all those above it; small ones are one.
const growth = 8

// With answers the view after changes, in their order, at the next revision.
func (v *View) With(changes []feed.Line) (*View, error) {
	return v.with(changes, v.revision+1, Limits{}.withDefaults())
}

// with answers the view after changes, in their order.
func (v *View) with(changes []feed.Line, revision uint64, limits Limits) (*View, error) {
	roles, err := v.roles.with(changes, limits)
	if err != nil {
		return nil, err
	}
	next := &View{epoch: v.epoch, subjects: v.subjects, roles: roles, layers: v.layers}
	next.at(revision)
	subjects := map[string]*feed.Subject{}
	for _, c := range changes {
		if c.Subject != nil {
			subjects[c.Subject.ID] = c.Subject
		}
	}
	if len(subjects) == 0 {
		return next, nil
	}
	b := newLayer(len(subjects), limits)
	for _, s := range subjects {
		if err := b.add(s); err != nil {
			return nil, fmt.Errorf("a subject: %w", err)
		}
		switch _, was := v.Find(s.ID); {
		case was && s.Gone:
			next.subjects--
		case !was && !s.Gone:
			next.subjects++
		}
	}
	if next.subjects > limits.Subjects {
		return nil, fmt.Errorf("more than %d subjects", limits.Subjects)
	}
	next.layers, err = stacked(b.seal(), v.layers, limits)
	return next, err
}

// stacked puts a layer on others, and merges it with those below it that are not many times larger.
func stacked(top *layer, below []*layer, limits Limits) ([]*layer, error) {
	layers, n := append([]*layer{top}, below...), 1
	for size := top.ids.count; n < len(layers); n++ {
		if next := layers[n].ids.count; next > limits.small && next > growth*size {
			break
		}
		size += layers[n].ids.count
	}
	if n == 1 {
		return layers, nil
	}
	one, err := merged(layers[:n], n == len(layers), limits)
	if err != nil {
		return nil, err
	}
	return append([]*layer{one}, layers[n:]...), nil
}
