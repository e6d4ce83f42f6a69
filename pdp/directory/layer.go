package directory

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// gone, in place of a number of grants, hides what lower layers know of a subject.
const gone = ^uint32(0)

// layer is what is known of some subjects. It never changes.
//
// Grants are a tenant, groups and bindings; most subjects share theirs with many others. Attributes stand apart because they are
// often a subject's own. Both are encoded, names of roles, groups and tenants as numbers of words.
type layer struct {
	ids index

	granted pool
	known   pool
	words   pool

	ends     []int64 // when bindings end, in milliseconds since 1970, sorted and distinct
	bindings int
	stamp    uint64
}

func (l *layer) bytes() int {
	return l.ids.bytes() + l.granted.bytes() + l.known.bytes() + l.words.bytes() + 8*cap(l.ends)
}

// layerBuilder makes a layer of subjects.
type layerBuilder struct {
	limits  Limits
	rest    *resting
	ids     *indexBuilder
	granted *poolBuilder
	known   *poolBuilder
	words   *poolBuilder

	ends     []int64
	bindings int
	buf      []byte
}

// newLayer begins a layer of about so many subjects.
func newLayer(hint int, limits Limits) *layerBuilder {
	return &layerBuilder{
		limits: limits, rest: limits.rest(), ids: newIndex(hint),
		granted: newPool(16), known: newPool(16), words: newPool(16),
	}
}

// lastEnd is the end of the year 9999, the last that RFC 3339 can write.
const lastEnd = 253402300799000

var errTwice = errors.New("is there twice")

// add adds a subject that is not there yet.
func (b *layerBuilder) add(s *feed.Subject) error {
	if s.ID == "" || len(s.ID) > maxName {
		return fmt.Errorf("an id of %d bytes; it must be 1 to %d", len(s.ID), maxName)
	}
	var err error
	known := numbers{grants: gone}
	if !s.Gone {
		if known.grants, err = b.grant(s); err != nil {
			return err
		}
		if known.attrs, err = b.learn(s.Attributes); err != nil {
			return err
		}
	}
	return b.place(s.ID, known)
}

func (b *layerBuilder) place(id string, known numbers) error {
	isNew, err := b.ids.put(id, known)
	switch {
	case err != nil:
		return err
	case !isNew:
		return errTwice
	case b.ids.count > b.limits.Subjects:
		return fmt.Errorf("more than %d subjects", b.limits.Subjects)
	}
	b.rest.breathe()
	return b.fits()
}

func (b *layerBuilder) fits() error {
	if int64(len(b.ids.records)+len(b.granted.text)+len(b.known.text)+len(b.words.text)) > b.limits.Bytes {
		return fmt.Errorf("larger than %d bytes", b.limits.Bytes)
	}
	return nil
}

// grant encodes tenant, groups and bindings in one order, so that equal ones are one.
func (b *layerBuilder) grant(s *feed.Subject) (uint32, error) {
	for _, name := range s.Groups {
		if name == "" || len(name) > maxName {
			return 0, fmt.Errorf("a group's name of %d bytes; it must be 1 to %d", len(name), maxName)
		}
	}
	groups := slices.Compact(slices.Sorted(slices.Values(s.Groups)))
	bindings := slices.SortedStableFunc(slices.Values(s.Bindings), func(x, y feed.Binding) int {
		if c := strings.Compare(x.Role, y.Role); c != 0 {
			return c
		}
		return strings.Compare(x.Tenant, y.Tenant)
	})
	if len(s.Tenant) > maxName {
		return 0, fmt.Errorf("a tenant's name of %d bytes; it must be at most %d", len(s.Tenant), maxName)
	}
	var err error
	word := func(dst []byte, s string) []byte {
		if s == "" {
			return binary.AppendUvarint(dst, 0)
		}
		n, _, failed := b.words.put([]byte(s))
		err = errors.Join(err, failed)
		return binary.AppendUvarint(dst, uint64(n)+1)
	}
	dst := word(b.buf[:0], s.Tenant)
	dst = binary.AppendUvarint(dst, uint64(len(groups)))
	for _, g := range groups {
		dst = word(dst, g)
	}
	dst = binary.AppendUvarint(dst, uint64(len(bindings)))
	for _, held := range bindings {
		if held.Role == "" || len(held.Role) > maxName || len(held.Tenant) > maxName {
			return 0, fmt.Errorf("a binding of a role or tenant whose name is empty or longer than %d bytes", maxName)
		}
		dst = word(word(dst, held.Role), held.Tenant)
		end := uint64(0)
		if held.Until != nil {
			end = uint64(min(max(held.Until.UnixMilli(), 1), lastEnd)) //nolint:gosec // more than 0
		}
		dst = binary.AppendUvarint(dst, end)
	}
	b.buf = dst
	if err != nil {
		return 0, err
	}
	return b.put(dst)
}

// put takes encoded grants.
func (b *layerBuilder) put(grants []byte) (uint32, error) {
	n, isNew, err := b.granted.put(grants)
	if err != nil {
		return 0, err
	}
	if isNew {
		d := decoder{rest: string(grants)}
		d.skipToBindings()
		for range d.number() {
			d.number()
			d.number()
			if end := d.number(); end > 0 {
				b.ends = append(b.ends, int64(end)) //nolint:gosec // it was one
			}
		}
	}
	b.bindings += bindingsIn(string(grants))
	return n, nil
}

func bindingsIn(grants string) int {
	d := decoder{rest: grants}
	d.skipToBindings()
	return int(d.number()) //nolint:gosec // it was one
}

func (b *layerBuilder) learn(attributes map[string]any) (uint32, error) {
	dst := b.buf[:0]
	if len(attributes) > 0 {
		var err error
		if dst, err = appendValue(dst, attributes, 0); err != nil {
			return 0, fmt.Errorf("attributes: %w", err)
		}
	}
	b.buf = dst
	n, _, err := b.known.put(dst)
	return n, err
}

func (b *layerBuilder) seal() *layer {
	slices.Sort(b.ends)
	return &layer{
		ids: b.ids.seal(), granted: b.granted.seal(), known: b.known.seal(), words: b.words.seal(),
		ends: fitted(slices.Compact(b.ends)), bindings: b.bindings, stamp: stamps.Add(1),
	}
}

// merged makes one layer of several, the newest first. At the bottom, nobody needs to know who is gone.
func merged(layers []*layer, bottom bool, limits Limits) (*layer, error) {
	hint := 0
	for _, l := range layers {
		hint += l.ids.count
	}
	b := newLayer(hint, limits)
	for i, l := range layers {
		granted, known := make([]uint32, l.granted.len()), make([]uint32, l.known.len()) // the numbers here, plus 1
		for id, here := range l.ids.all() {
			if slices.ContainsFunc(layers[:i], func(above *layer) bool { _, hidden := above.ids.find(id); return hidden }) {
				continue
			}
			if here.grants == gone && bottom {
				continue
			}
			if here.grants != gone {
				var err error
				if granted[here.grants] == 0 {
					if granted[here.grants], err = b.translated(l, here.grants); err != nil {
						return nil, err
					}
					granted[here.grants]++
				} else {
					b.bindings += bindingsIn(l.granted.at(here.grants))
				}
				if known[here.attrs] == 0 {
					if known[here.attrs], _, err = b.known.put([]byte(l.known.at(here.attrs))); err != nil {
						return nil, err
					}
					known[here.attrs]++
				}
				here = numbers{granted[here.grants] - 1, known[here.attrs] - 1}
			}
			if err := b.place(id, here); err != nil {
				return nil, err
			}
		}
	}
	return b.seal(), nil
}

// translated takes grants of another layer, whose words have other numbers.
func (b *layerBuilder) translated(l *layer, grants uint32) (uint32, error) {
	d, dst := decoder{rest: l.granted.at(grants)}, b.buf[:0]
	var err error
	word := func() {
		n := d.number()
		if n > 0 {
			here, _, failed := b.words.put([]byte(l.words.at(uint32(n - 1)))) //nolint:gosec // it was one
			err = errors.Join(err, failed)
			n = uint64(here) + 1
		}
		dst = binary.AppendUvarint(dst, n)
	}
	word()
	groups := d.number()
	dst = binary.AppendUvarint(dst, groups)
	for range groups {
		word()
	}
	bindings := d.number()
	dst = binary.AppendUvarint(dst, bindings)
	for range bindings {
		word()
		word()
		dst = binary.AppendUvarint(dst, d.number())
	}
	b.buf = dst
	if err != nil {
		return 0, err
	}
	return b.put(dst)
}

// decoder reads what a layerBuilder wrote, and nothing else ever.
type decoder struct{ rest string }

func (d *decoder) number() uint64 {
	if d.rest[0] < 0x80 {
		n := d.rest[0]
		d.rest = d.rest[1:]
		return uint64(n)
	}
	n, shift := uint64(0), 0
	for i := 0; ; i++ {
		c := d.rest[i]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			d.rest = d.rest[i+1:]
			return n
		}
		shift += 7
	}
}

func (d *decoder) take(n uint64) string {
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

// skipToBindings passes tenant and groups.
func (d *decoder) skipToBindings() {
	d.number()
	for range d.number() {
		d.number()
	}
}

// maxDepth bounds how deep attributes are.
const maxDepth = 16

// appendValue encodes a value as encoding/json decodes it, numbers as json.Number.
func appendValue(dst []byte, v any, depth int) (_ []byte, err error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("deeper than %d", maxDepth)
	}
	text := func(kind byte, s string) []byte {
		dst = binary.AppendUvarint(append(dst, kind), uint64(len(s)))
		return append(dst, s...)
	}
	switch v := v.(type) {
	case nil:
		return append(dst, 'n'), nil
	case bool:
		if v {
			return append(dst, '1'), nil
		}
		return append(dst, '0'), nil
	case string:
		return text('s', v), nil
	case json.Number:
		return text('d', v.String()), nil
	case []any:
		dst = binary.AppendUvarint(append(dst, 'l'), uint64(len(v)))
		for _, item := range v {
			if dst, err = appendValue(dst, item, depth+1); err != nil {
				return dst, err
			}
		}
		return dst, nil
	case map[string]any:
		dst = binary.AppendUvarint(append(dst, 'o'), uint64(len(v)))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if dst, err = appendValue(text('s', name), v[name], depth+1); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}
	return dst, fmt.Errorf("a %T is not JSON", v)
}

func (d *decoder) value() any {
	kind := d.take(1)[0]
	switch kind {
	case '1':
		return true
	case '0':
		return false
	case 's':
		return d.take(d.number())
	case 'd':
		return json.Number(d.take(d.number()))
	case 'l':
		list := make([]any, d.number())
		for i := range list {
			list[i] = d.value()
		}
		return list
	case 'o':
		n := d.number()
		object := make(map[string]any, n)
		for range n {
			d.take(1)
			name := d.take(d.number())
			object[name] = d.value()
		}
		return object
	}
	return nil
}

// milli is a moment that a binding ends at.
func milli(ms int64) time.Time { return time.UnixMilli(ms) }
