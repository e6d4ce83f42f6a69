package authzen

import (
	"errors"
	"strconv"
	"strings"
)

var errPointer = errors.New("not a JSON Pointer")

// ParsePointer cuts a JSON Pointer (RFC 6901) in its unescaped tokens. The pointer to the whole document has none.
func ParsePointer(pointer string) ([]string, error) {
	if pointer == "" {
		return nil, nil
	}
	if pointer[0] != '/' {
		return nil, errPointer
	}
	tokens := strings.Split(pointer[1:], "/")
	if !strings.Contains(pointer, "~") {
		return tokens, nil
	}
	for i, t := range tokens {
		for at := strings.IndexByte(t, '~'); at >= 0; {
			if at+1 == len(t) || (t[at+1] != '0' && t[at+1] != '1') {
				return nil, errPointer
			}
			next := strings.IndexByte(t[at+1:], '~')
			if next < 0 {
				break
			}
			at += 1 + next
		}
		tokens[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(t)
	}
	return tokens, nil
}

// At answers the value that the tokens of a pointer name in the request's JSON form, and false where there is none. It
// follows maps and slices of any and of string, which is what a request holds that this module made or that encoding/json read.
func (r Request) At(tokens []string) (any, bool) {
	if len(tokens) == 0 {
		return r, true
	}
	name, rest := tokens[0], tokens[1:]
	switch name {
	case "subject":
		return member(r.Subject, map[string]any{"type": r.Subject.Type, "id": r.Subject.ID}, r.Subject.Properties, rest)
	case "action":
		return member(r.Action, map[string]any{"name": r.Action.Name}, r.Action.Properties, rest)
	case "resource":
		return member(r.Resource, map[string]any{"type": r.Resource.Type, "id": r.Resource.ID}, r.Resource.Properties, rest)
	case "context":
		if len(r.Context) == 0 {
			return nil, false
		}
		return within(r.Context, rest)
	}
	return nil, false
}

func member(whole any, own, properties map[string]any, tokens []string) (any, bool) {
	if len(tokens) == 0 {
		return whole, true
	}
	if len(properties) > 0 { // an empty one is left out of the JSON form
		own["properties"] = properties
	}
	return within(own, tokens)
}

func within(v any, tokens []string) (any, bool) {
	for _, t := range tokens {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[t]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, ok := index(t, len(in))
			if !ok {
				return nil, false
			}
			v = in[i]
		case []string:
			i, ok := index(t, len(in))
			if !ok {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// index reads an array index: digits without a leading zero (RFC 6901 section 4).
func index(token string, length int) (int, bool) {
	i, err := strconv.Atoi(token)
	return i, err == nil && strconv.Itoa(i) == token && i >= 0 && i < length
}
