package jose

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxDepth = 16 // of nested JSON

// readObject decodes a JSON object of which there is only one reading: valid UTF-8, no bytes after it, no name given twice
// at any depth, not even in another case (RFC 8725 section 2.4; encoding/json matches names without case). Numbers are float64.
func readObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, refused("JSON is not UTF-8")
	}
	if err := shallow(data); err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil || m == nil {
		return nil, refused("not a JSON object")
	}
	return m, unique(string(data))
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
			if depth++; depth > maxDepth {
				return refused("JSON is too deep")
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// unique refuses a name given twice in one object. s is valid JSON, no deeper than maxDepth.
func unique(s string) error {
	var (
		names []string // of all open objects, the innermost last
		open  [maxDepth + 1]struct {
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
					return refused("a name is given twice")
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
