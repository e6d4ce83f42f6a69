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

func (enc *encoder) reset(dst []byte, masks *Masks) {
	clear(enc.names)
	clear(enc.path)
	enc.dst, enc.masks, enc.path, enc.names, enc.erased, enc.masked = dst, masks, enc.path[:0], enc.names[:0], enc.erased[:0], enc.masked[:0]
}

// pointer is the JSON Pointer of the value that is being written.
func (enc *encoder) pointer() string {
	var b strings.Builder
	for _, s := range enc.path {
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
func (enc *encoder) key(name string) {
	if last := enc.dst[len(enc.dst)-1]; last != '{' {
		enc.dst = append(enc.dst, ',')
	}
	enc.dst = append(appendString(enc.dst, name), ':')
}

// text writes a member that no mask can hide; none at all where it is empty.
func (enc *encoder) text(name, value string) {
	if value != "" {
		enc.key(name)
		enc.dst = appendString(enc.dst, value)
	}
}

func (enc *encoder) count(name string, n int64) {
	enc.key(name)
	enc.dst = strconv.AppendInt(enc.dst, n, 10)
}

func (enc *encoder) begin(name string) {
	enc.key(name)
	enc.dst = append(enc.dst, '{')
}

func (enc *encoder) end() { enc.dst = append(enc.dst, '}') }

// member writes a member of an object unless a mask or its name hides it; at is the object's place among the masks.
func (enc *encoder) member(name string, v any, at *maskNode) {
	if below, shown := enc.enter(name, at); shown {
		if v != nil && (secretName(name) || opaque(name, v) && enc.path[0].name == "input") {
			enc.masked = append(enc.masked, enc.pointer())
			enc.dst = append(enc.dst, secret...)
		} else {
			enc.value(v, below)
		}
	}
	enc.leave()
}

// enter begins a member and answers its place among the masks, and whether its value is to be written behind that: a mask may hide
// it. leave ends it.
func (enc *encoder) enter(name string, at *maskNode) (below *maskNode, shown bool) {
	enc.path = append(enc.path, step{name, -1})
	below = at.child(name)
	switch {
	case below == nil || !below.hides:
		enc.key(name)
		return below, true
	case below.with == nil:
		enc.erased = append(enc.erased, enc.pointer())
	default:
		enc.masked = append(enc.masked, enc.pointer())
		enc.key(name)
		enc.dst = append(enc.dst, below.with...)
	}
	return nil, false
}

func (enc *encoder) leave() { enc.path = enc.path[:len(enc.path)-1] }

// value writes any value that JSON has.
func (enc *encoder) value(v any, at *maskNode) {
	if len(enc.path) > maxDepth {
		enc.erased = append(enc.erased, enc.pointer())
		enc.dst = append(enc.dst, "null"...)
		return
	}
	switch v := v.(type) {
	case nil:
		enc.dst = append(enc.dst, "null"...)
	case bool:
		enc.dst = strconv.AppendBool(enc.dst, v)
	case string:
		enc.string(v)
	case json.Number:
		enc.number(v)
	case int:
		enc.dst = strconv.AppendInt(enc.dst, int64(v), 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			enc.dst = append(enc.dst, "null"...)
			return
		}
		enc.dst = strconv.AppendFloat(enc.dst, v, 'g', -1, 64)
	case map[string]any:
		enc.object(v, at)
	case []any:
		enc.array(len(v), func(i int) any { return v[i] }, at)
	case []string:
		enc.array(len(v), func(i int) any { return v[i] }, at)
	case authzen.Request:
		enc.request(&v, at)
	case authzen.Response:
		enc.response(&v, at)
	default:
		enc.other(v, at)
	}
}

func (enc *encoder) string(s string) {
	if looksSecret(s) {
		enc.masked = append(enc.masked, enc.pointer())
		enc.dst = append(enc.dst, secret...)
		return
	}
	enc.dst = appendString(enc.dst, s)
}

// number writes a number, or a text where it is none.
func (enc *encoder) number(n json.Number) {
	if isNumber(string(n)) {
		enc.dst = append(enc.dst, n...)
		return
	}
	enc.string(string(n))
}

// other takes the way through encoding/json, which no value that came by HTTP needs.
func (enc *encoder) other(v any, at *maskNode) {
	b, err := json.Marshal(v)
	var plain any
	if err == nil {
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		err = d.Decode(&plain)
	}
	if err != nil {
		enc.erased = append(enc.erased, enc.pointer())
	}
	enc.value(plain, at)
}

func (enc *encoder) object(m map[string]any, at *maskNode) {
	from := len(enc.names)
	for name := range m {
		enc.names = append(enc.names, name)
	}
	to := len(enc.names)
	slices.Sort(enc.names[from:])
	enc.dst = append(enc.dst, '{')
	for i := from; i < to; i++ {
		enc.member(enc.names[i], m[enc.names[i]], at)
	}
	enc.dst = append(enc.dst, '}')
	enc.names = enc.names[:from]
}

func (enc *encoder) array(n int, item func(int) any, at *maskNode) {
	enc.dst = append(enc.dst, '[')
	for i := range n {
		if i > 0 {
			enc.dst = append(enc.dst, ',')
		}
		var below *maskNode
		if at != nil && len(at.children) > 0 {
			below = at.child(strconv.Itoa(i))
		}
		enc.path = append(enc.path, step{"", i})
		switch {
		case below != nil && below.hides && below.with == nil:
			enc.erased = append(enc.erased, enc.pointer())
			enc.dst = append(enc.dst, "null"...)
		case below != nil && below.hides:
			enc.masked = append(enc.masked, enc.pointer())
			enc.dst = append(enc.dst, below.with...)
		default:
			enc.value(item(i), below)
		}
		enc.path = enc.path[:len(enc.path)-1]
	}
	enc.dst = append(enc.dst, ']')
}

// request writes an evaluation request as AuthZEN has it.
func (enc *encoder) request(r *authzen.Request, at *maskNode) {
	enc.dst = append(enc.dst, '{')
	enc.entity("subject", entity{"type", r.Subject.Type, r.Subject.ID, r.Subject.Properties}, at)
	enc.entity("action", entity{"name", r.Action.Name, "", r.Action.Properties}, at)
	enc.entity("resource", entity{"type", r.Resource.Type, r.Resource.ID, r.Resource.Properties}, at)
	if len(r.Context) > 0 {
		enc.objectMember("context", r.Context, at)
	}
	enc.dst = append(enc.dst, '}')
}

// entity is a subject, an action or a resource.
type entity struct {
	first, value string // type or name
	id           string
	properties   map[string]any
}

func (enc *encoder) entity(name string, v entity, at *maskNode) {
	if below, shown := enc.enter(name, at); shown {
		enc.dst = append(enc.dst, '{')
		enc.textMember(v.first, v.value, below)
		if v.id != "" {
			enc.textMember("id", v.id, below)
		}
		if len(v.properties) > 0 {
			enc.objectMember("properties", v.properties, below)
		}
		enc.dst = append(enc.dst, '}')
	}
	enc.leave()
}

// textMember writes a member that has not the name of a secret.
func (enc *encoder) textMember(name, value string, at *maskNode) {
	if _, shown := enc.enter(name, at); shown {
		enc.string(value)
	}
	enc.leave()
}

// objectMember writes a member that has not the name of a secret.
func (enc *encoder) objectMember(name string, value map[string]any, at *maskNode) {
	if below, shown := enc.enter(name, at); shown {
		enc.object(value, below)
	}
	enc.leave()
}

// response writes a decision as the policy has it.
func (enc *encoder) response(r *authzen.Response, at *maskNode) {
	enc.dst = append(enc.dst, '{')
	enc.member("allow", r.Decision, at)
	if c := r.Context; c != nil {
		if len(c.Reasons) > 0 {
			enc.member("reasons", c.Reasons, at)
		}
		if c.Need != nil {
			need := map[string]any{}
			if c.Need.ACR != "" {
				need["acr"] = c.Need.ACR
			}
			if c.Need.MaxAge > 0 {
				need["max_age"] = c.Need.MaxAge
			}
			enc.member("need", need, at)
		}
		if len(c.Obligations) > 0 {
			enc.member("obligations", c.Obligations, at)
		}
	}
	enc.dst = append(enc.dst, '}')
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
