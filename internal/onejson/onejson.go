// Package onejson refuses JSON that two programs could read differently: text that is not UTF-8, half of a surrogate pair, bytes
// after the value, a name given twice in one object. It decodes nothing.
package onejson

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Depth is how deep objects and arrays may nest.
const Depth = 16

var (
	errForm  = errors.New("not JSON in UTF-8")
	errDeep  = errors.New("JSON is too deep")
	errTwice = errors.New("a name is given twice")
)

// Check answers nil for one JSON value of which there is only one reading: valid UTF-8, nothing after it, no name given
// twice at any depth, not even in another case (RFC 8725 section 2.4; encoding/json matches names without case). An error
// holds nothing of data.
func Check(data []byte) error {
	if !utf8.Valid(data) || HalfPair(data) {
		return errForm
	}
	if err := shallow(data); err != nil {
		return err
	}
	if !json.Valid(data) {
		return errForm
	}
	return unique(string(data))
}

// HalfPair reports whether an escape stands for half of a surrogate pair. What that is, parsers do not agree on (RFC 8259 section
// 8.2); encoding/json would make all of them the same replacement character.
func HalfPair(data []byte) bool {
	for i := 0; i+1 < len(data); i++ {
		next := bytes.IndexByte(data[i:], '\\')
		if i += next; next < 0 || i+1 >= len(data) {
			return false
		}
		i++ // what is escaped, which may be a backslash
		if data[i] != 'u' {
			continue
		}
		switch unit := hex4(data[i+1:]); {
		case unit >= 0xdc00 && unit <= 0xdfff:
			return true
		case unit >= 0xd800 && unit <= 0xdbff:
			rest := data[i+5:]
			if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
				return true
			}
			if second := hex4(rest[2:]); second < 0xdc00 || second > 0xdfff {
				return true
			}
			i += 10
		}
	}
	return false
}

// hex4 reads four hexadecimal digits, or answers -1.
func hex4(b []byte) int {
	if len(b) < 4 {
		return -1
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	if err != nil {
		return -1
	}
	return int(n) //nolint:gosec // 16 bits
}

// shallow keeps json.Unmarshal from work that a hostile nesting makes.
func shallow(data []byte) error {
	depth, inText := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			if depth++; depth > Depth {
				return errDeep
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// unique refuses a name given twice in one object. s is valid JSON, no deeper than Depth.
func unique(s string) error {
	var (
		names []string // of all open objects, the innermost last
		open  [Depth + 1]struct {
			first  int // in names
			object bool
		}
		depth int
		name  bool // whether the next text is one
	)
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{', '[':
			depth++
			open[depth].first, open[depth].object = len(names), s[i] == '{'
			name = s[i] == '{'
		case '}', ']':
			own := names[open[depth].first:]
			slices.Sort(own)
			for j := 1; j < len(own); j++ {
				if own[j] == own[j-1] {
					return errTwice
				}
			}
			names, depth = names[:open[depth].first], depth-1
			name = false
		case ',':
			name = open[depth].object
		case '"':
			end := i + 1
			for ; s[end] != '"'; end++ {
				if s[end] == '\\' {
					end++
				}
			}
			if name {
				names, name = append(names, fold(s[i:end+1])), false
			}
			i = end
		}
	}
	return nil
}

// fold makes names equal that encoding/json takes for the same. quoted is a valid JSON string.
func fold(quoted string) string {
	text := quoted[1 : len(quoted)-1]
	if strings.IndexByte(text, '\\') >= 0 {
		if err := json.Unmarshal([]byte(quoted), &text); err != nil { // cannot be: it was valid before
			return quoted
		}
	}
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			if r != 'k' && r != 's' { // the Kelvin sign and the long s fold to these
				return r
			}
		}
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, text)
}
