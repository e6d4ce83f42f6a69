package server

import (
	"encoding/json"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// reader reads JSON (RFC 8259) in one pass. It is there because encoding/json lets the last of two equal names win unless it is
// asked token by token, which took half of the time of a question. FuzzReadDocument holds it to what encoding/json reads.
type reader struct {
	text string // valid UTF-8
	at   int
}

func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// peek answers the next byte, 0 at the end. A zero byte is no JSON outside of strings, and none within.
func (r *reader) peek() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

func errNotJSON() error { return badBody("The body is not well-formed JSON.") }

var words = []struct {
	text  string
	value any
}{{"true", true}, {"false", false}, {"null", nil}}

// value reads the next value. Texts share the body's memory where they can.
func (r *reader) value(depth int) (any, error) {
	r.space()
	switch c := r.peek(); {
	case c == '{' || c == '[':
		if depth >= maxDepth {
			return nil, badBody("The body nests too deep.")
		}
		r.at++
		if c == '{' {
			return r.object(depth)
		}
		return r.array(depth)
	case c == '"':
		return r.string()
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	}
	for _, word := range words {
		if strings.HasPrefix(r.text[r.at:], word.text) {
			r.at += len(word.text)
			return word.value, nil
		}
	}
	return nil, errNotJSON()
}

func (r *reader) array(depth int) (any, error) {
	list := make([]any, 0, 4) // most are short
	for first := true; ; first = false {
		r.space()
		if first && r.peek() == ']' {
			r.at++
			return list, nil
		}
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if done, err := r.next(']'); done || err != nil {
			return list, err
		}
	}
}

func (r *reader) object(depth int) (any, error) {
	all := map[string]any{}
	for first := true; ; first = false {
		r.space()
		if first && r.peek() == '}' {
			r.at++
			return all, nil
		}
		if r.peek() != '"' {
			return nil, errNotJSON()
		}
		name, err := r.string()
		if err != nil {
			return nil, err
		}
		if _, twice := all[name]; twice {
			return nil, badBody("The body has two members of the same name in one object.")
		}
		if r.space(); r.peek() != ':' {
			return nil, errNotJSON()
		}
		r.at++
		if all[name], err = r.value(depth + 1); err != nil {
			return nil, err
		}
		if done, err := r.next('}'); done || err != nil {
			return all, err
		}
	}
}

// next reads a comma, or the end.
func (r *reader) next(end byte) (done bool, err error) {
	r.space()
	c := r.peek()
	if c != ',' && c != end {
		return false, errNotJSON()
	}
	r.at++
	return c == end, nil
}

func (r *reader) number() (any, error) {
	start := r.at
	digits := func() bool {
		from := r.at
		for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
			r.at++
		}
		return r.at > from
	}
	if r.peek() == '-' {
		r.at++
	}
	if r.peek() == '0' {
		r.at++
	} else if !digits() {
		return nil, errNotJSON()
	}
	if r.peek() == '.' {
		if r.at++; !digits() {
			return nil, errNotJSON()
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		r.at++
		if c := r.peek(); c == '+' || c == '-' {
			r.at++
		}
		if !digits() {
			return nil, errNotJSON()
		}
	}
	return json.Number(r.text[start:r.at]), nil
}

func (r *reader) string() (string, error) {
	r.at++
	for i := r.at; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			s := r.text[r.at:i]
			r.at = i + 1
			return s, nil
		case c == '\\':
			return r.escaped(i)
		case c < ' ':
			return "", errNotJSON()
		}
	}
	return "", errNotJSON()
}

// escapes are the short ones.
var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escaped reads a string of which the first escape stands at i.
func (r *reader) escaped(i int) (string, error) {
	var b strings.Builder
	b.WriteString(r.text[r.at:i])
	for r.at = i; r.at < len(r.text); {
		c := r.text[r.at]
		r.at++
		switch {
		case c == '"':
			return b.String(), nil
		case c < ' ':
			return "", errNotJSON()
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		c = r.peek()
		r.at++
		if plain, ok := escapes[c]; ok {
			b.WriteByte(plain)
			continue
		}
		unit, ok := r.hex()
		if c != 'u' || !ok {
			return "", errNotJSON()
		}
		if utf16.IsSurrogate(unit) { // half of a pair alone becomes U+FFFD, as in encoding/json
			after := r.at
			pair := rune(utf8.RuneError)
			if strings.HasPrefix(r.text[r.at:], `\u`) {
				r.at += 2
				if second, ok := r.hex(); ok {
					pair = utf16.DecodeRune(unit, second)
				}
			}
			if unit = pair; pair == utf8.RuneError {
				r.at = after
			}
		}
		b.WriteRune(unit)
	}
	return "", errNotJSON()
}

// hex reads four hexadecimal digits.
func (r *reader) hex() (rune, bool) {
	if len(r.text)-r.at < 4 {
		return 0, false
	}
	var unit rune
	for range 4 {
		c := r.text[r.at]
		r.at++
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		unit = unit<<4 | rune(c)
	}
	return unit, true
}
