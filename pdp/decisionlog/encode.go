package decisionlog

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// encoder appends JSON to dst and applies the masks on the way, so that a hidden value is never written anywhere, not even for
// a moment.
type encoder struct {
	dst    []byte
	masks  *Masks
	path   []step
	names  []string // a stack of sorted member names
	erased []string
	masked []string
}

// step is a member's name or, where that is "", an index.
type step struct {
	name  string
	index int
}

// maxDepth bounds how deep values may nest; the server takes less.
const maxDepth = 64

func (e *encoder) reset(dst []byte, masks *Masks) {
	clear(e.names)
	clear(e.path)
	e.dst, e.masks, e.path, e.names, e.erased, e.masked = dst, masks, e.path[:0], e.names[:0], e.erased[:0], e.masked[:0]
}

// pointer is the JSON Pointer of the value that is being written.
func (e *encoder) pointer() string {
	var b strings.Builder
	for _, s := range e.path {
		b.WriteByte('/')
		if s.name == "" && s.index >= 0 {
			b.WriteString(strconv.Itoa(s.index))
			continue
		}
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(s.name, "~", "~0"), "/", "~1"))
	}
	return b.String()
}

// key begins a member that no mask can hide.
func (e *encoder) key(name string) {
	if last := e.dst[len(e.dst)-1]; last != '{' {
		e.dst = append(e.dst, ',')
	}
	e.dst = append(appendString(e.dst, name), ':')
}

// text writes a member that no mask can hide; none at all where it is empty.
func (e *encoder) text(name, value string) {
	if value != "" {
		e.key(name)
		e.dst = appendString(e.dst, value)
	}
}

func (e *encoder) count(name string, n int64) {
	e.key(name)
	e.dst = strconv.AppendInt(e.dst, n, 10)
}

func (e *encoder) begin(name string) {
	e.key(name)
	e.dst = append(e.dst, '{')
}

func (e *encoder) end() { e.dst = append(e.dst, '}') }

// member writes a member of an object unless a mask hides it; at is the object's place among the masks.
func (e *encoder) member(name string, v any, at *maskNode) {
	at = at.child(name)
	e.path = append(e.path, step{name, -1})
	switch {
	case at != nil && at.hides && at.with == nil:
		e.erased = append(e.erased, e.pointer())
	case at != nil && at.hides:
		e.masked = append(e.masked, e.pointer())
		e.key(name)
		e.dst = append(e.dst, at.with...)
	case v != nil && secretName(name):
		e.hide(name)
	default:
		e.key(name)
		e.value(v, at)
	}
	e.path = e.path[:len(e.path)-1]
}

func (e *encoder) hide(name string) {
	e.masked = append(e.masked, e.pointer())
	e.key(name)
	e.dst = append(e.dst, secret...)
}

// value writes any value that JSON has.
func (e *encoder) value(v any, at *maskNode) {
	if len(e.path) > maxDepth {
		e.erased = append(e.erased, e.pointer())
		e.dst = append(e.dst, "null"...)
		return
	}
	switch v := v.(type) {
	case nil:
		e.dst = append(e.dst, "null"...)
	case bool:
		e.dst = strconv.AppendBool(e.dst, v)
	case string:
		e.string(v)
	case json.Number:
		e.number(v)
	case int:
		e.dst = strconv.AppendInt(e.dst, int64(v), 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			e.dst = append(e.dst, "null"...)
			return
		}
		e.dst = strconv.AppendFloat(e.dst, v, 'g', -1, 64)
	case map[string]any:
		e.object(v, at)
	case []any:
		e.array(len(v), func(i int) any { return v[i] }, at)
	case []string:
		e.array(len(v), func(i int) any { return v[i] }, at)
	case entity:
		e.entity(v, at)
	case authzen.Request:
		e.request(v, at)
	case authzen.Response:
		e.response(v, at)
	default:
		e.other(v, at)
	}
}

func (e *encoder) string(s string) {
	if looksSecret(s) {
		e.masked = append(e.masked, e.pointer())
		e.dst = append(e.dst, secret...)
		return
	}
	e.dst = appendString(e.dst, s)
}

// number writes a number, or a text where it is none.
func (e *encoder) number(n json.Number) {
	if isNumber(string(n)) {
		e.dst = append(e.dst, n...)
		return
	}
	e.string(string(n))
}

// other takes the way through encoding/json, which no value that came by HTTP needs.
func (e *encoder) other(v any, at *maskNode) {
	b, err := json.Marshal(v)
	var plain any
	if err == nil {
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		err = d.Decode(&plain)
	}
	if err != nil {
		e.erased = append(e.erased, e.pointer())
	}
	e.value(plain, at)
}

func (e *encoder) object(m map[string]any, at *maskNode) {
	from := len(e.names)
	for name := range m {
		e.names = append(e.names, name)
	}
	to := len(e.names)
	slices.Sort(e.names[from:])
	e.dst = append(e.dst, '{')
	for i := from; i < to; i++ {
		e.member(e.names[i], m[e.names[i]], at)
	}
	e.dst = append(e.dst, '}')
	e.names = e.names[:from]
}

func (e *encoder) array(n int, item func(int) any, at *maskNode) {
	e.dst = append(e.dst, '[')
	for i := range n {
		if i > 0 {
			e.dst = append(e.dst, ',')
		}
		var below *maskNode
		if at != nil && len(at.children) > 0 {
			below = at.child(strconv.Itoa(i))
		}
		e.path = append(e.path, step{"", i})
		switch {
		case below != nil && below.hides && below.with == nil:
			e.erased = append(e.erased, e.pointer())
			e.dst = append(e.dst, "null"...)
		case below != nil && below.hides:
			e.masked = append(e.masked, e.pointer())
			e.dst = append(e.dst, below.with...)
		default:
			e.value(item(i), below)
		}
		e.path = e.path[:len(e.path)-1]
	}
	e.dst = append(e.dst, ']')
}

// request writes an evaluation request as AuthZEN has it.
func (e *encoder) request(r authzen.Request, at *maskNode) {
	e.dst = append(e.dst, '{')
	e.member("subject", entity{"type", r.Subject.Type, r.Subject.ID, r.Subject.Properties}, at)
	e.member("action", entity{"name", r.Action.Name, "", r.Action.Properties}, at)
	e.member("resource", entity{"type", r.Resource.Type, r.Resource.ID, r.Resource.Properties}, at)
	if len(r.Context) > 0 {
		e.member("context", r.Context, at)
	}
	e.dst = append(e.dst, '}')
}

// entity is a subject, an action or a resource.
type entity struct {
	first, value string // type or name
	id           string
	properties   map[string]any
}

func (e *encoder) entity(v entity, at *maskNode) {
	e.dst = append(e.dst, '{')
	e.member(v.first, v.value, at)
	if v.id != "" {
		e.member("id", v.id, at)
	}
	if len(v.properties) > 0 {
		e.member("properties", v.properties, at)
	}
	e.dst = append(e.dst, '}')
}

// response writes a decision as the policy has it.
func (e *encoder) response(r authzen.Response, at *maskNode) {
	e.dst = append(e.dst, '{')
	e.member("allow", r.Decision, at)
	if c := r.Context; c != nil {
		if len(c.Reasons) > 0 {
			e.member("reasons", c.Reasons, at)
		}
		if c.Need != nil {
			need := map[string]any{}
			if c.Need.ACR != "" {
				need["acr"] = c.Need.ACR
			}
			if c.Need.MaxAge > 0 {
				need["max_age"] = c.Need.MaxAge
			}
			e.member("need", need, at)
		}
		if len(c.Obligations) > 0 {
			e.member("obligations", c.Obligations, at)
		}
	}
	e.dst = append(e.dst, '}')
}

// isNumber reports whether s is a number by JSON's grammar (RFC 8259 section 6).
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	digits := func() int {
		n := 0
		for n < len(s) && '0' <= s[n] && s[n] <= '9' {
			n++
		}
		return n
	}
	n := digits()
	if n == 0 || n > 1 && s[0] == '0' {
		return false
	}
	s = s[n:]
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		if n = digits(); n == 0 {
			return false
		}
		s = s[n:]
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if n = digits(); n == 0 {
			return false
		}
		s = s[n:]
	}
	return s == ""
}

// appendString appends s as a JSON text. What is no UTF-8 becomes U+FFFD; no control character stays as it is, nor do the two
// line separators that JavaScript takes for ends of line (S68).
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[from:i]...)
			if c == '"' || c == '\\' {
				dst = append(dst, '\\', c)
			} else {
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(append(dst, s[from:i]...), `\ufffd`...)
			from = i + n
		case r == '\u2028' || r == '\u2029':
			dst = append(append(dst, s[from:i]...), `\u202`...)
			dst = append(dst, hex[r&15])
			from = i + n
		}
		i += n
	}
	return append(append(dst, s[from:]...), '"')
}
