package authzen

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// AppendJSON appends the response as encoding/json would write it, in a fraction of the time. It fails where an obligation is no
// JSON.
func (r Response) AppendJSON(dst []byte) (_ []byte, err error) {
	dst = append(strconv.AppendBool(append(dst, `{"decision":`...), r.Decision), ',')
	if r.Context != nil {
		dst = append(dst, `"context":`...)
		if dst, err = r.Context.appendJSON(dst); err != nil {
			return dst, err
		}
		dst = append(dst, ',')
	}
	return closed(dst, '}'), nil
}

func (c *ResponseContext) appendJSON(dst []byte) ([]byte, error) {
	dst = append(dst, '{')
	dst = namedText(dst, "outcome", string(c.Outcome))
	if len(c.Reasons) > 0 {
		dst = append(texts(append(dst, `"reasons":`...), c.Reasons), ',')
	}
	if len(c.Rules) > 0 {
		dst = append(texts(append(dst, `"rules":`...), c.Rules), ',')
	}
	if c.Need != nil {
		dst = append(dst, `"need":{`...)
		dst = namedText(dst, "acr", c.Need.ACR)
		if c.Need.MaxAge != 0 {
			dst = append(strconv.AppendInt(append(dst, `"max_age":`...), int64(c.Need.MaxAge), 10), ',')
		}
		dst = append(closed(dst, '}'), ',')
	}
	dst = namedText(dst, "revision", c.Revision)
	dst = namedText(dst, "decision_id", c.DecisionID)
	for _, rare := range []struct {
		name  string
		value any
		given bool
	}{{"obligations", c.Obligations, len(c.Obligations) > 0}, {"error", c.Error, c.Error != nil}} {
		if !rare.given {
			continue
		}
		b, err := json.Marshal(rare.value)
		if err != nil {
			return dst, err
		}
		dst = append(append(append(append(dst, '"'), rare.name...), `":`...), b...)
		dst = append(dst, ',')
	}
	dst = namedText(dst, "directory_revision", c.DirectoryRevision)
	if c.Cache != nil {
		dst = strconv.AppendInt(append(dst, `"cache":{"ttl_ms":`...), int64(c.Cache.TTL), 10)
		dst = append(dst, `,"vary":`...)
		if c.Cache.Vary == nil {
			dst = append(dst, "null},"...)
		} else {
			dst = append(texts(dst, c.Cache.Vary), `},`...)
		}
	}
	return closed(dst, '}'), nil
}

// namedText appends a member and a comma, unless its value is empty.
func namedText(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(append(append(dst, '"'), name...), `":`...)
	return append(text(dst, value), ',')
}

func texts(dst []byte, all []string) []byte {
	dst = append(dst, '[')
	for _, s := range all {
		dst = append(text(dst, s), ',')
	}
	return closed(dst, ']')
}

// closed puts the end of an object or an array in the place of the last comma, if there is one.
func closed(dst []byte, end byte) []byte {
	if last := len(dst) - 1; dst[last] == ',' {
		dst[last] = end
		return dst
	}
	return append(dst, end)
}

// text appends a JSON text. Quotes are escaped here, for ids of rules have them; what else would have to be is left to encoding/json.
func text(dst []byte, s string) []byte {
	start := len(dst)
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		odd := uint64(1)<<'"' | 1<<'&' | 1<<'<' | 1<<'>' | 1<<' ' - 1 // of the first 64 characters, these have to be escaped
		if c >= 64 {
			odd = 1 << ('\\' - 64)
		}
		switch {
		case odd>>(c%64)&1 == 0 && c < utf8.RuneSelf:
		case c == '"':
			dst = append(append(dst, s[from:i]...), '\\')
			from = i
		default:
			b, _ := json.Marshal(s) // a string cannot fail
			return append(dst[:start], b...)
		}
	}
	return append(append(dst, s[from:]...), '"')
}
