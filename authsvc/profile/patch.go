package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/onejson"
)

// Limits of the fields.
const (
	maxName        = 100      // code points
	maxAvatarURL   = 2048     // bytes
	maxPreferences = 16 << 10 // bytes of JSON, with numbers written out
	maxDepth       = 8        // objects and arrays within each other
)

// refuse names the field and the rule, never the value.
func refuse(field, rule string) error {
	return fault.New(fault.Invalid, field+": "+rule).Named("unprocessable")
}

// change is a parsed merge patch. A nil field stays as it is.
type change struct {
	name        *string
	avatarURL   *string
	preferences any // object, or nil for null
	prefsGiven  bool
}

// parsePatch reads a merge patch. A null empties its field.
func parsePatch(patch []byte) (change, error) {
	var c change
	if !utf8.Valid(patch) || !json.Valid(patch) {
		return c, ErrNotJSON
	}
	if depth(patch) > maxDepth+1 {
		return c, refuse("body", fmt.Sprintf("nested deeper than %d levels", maxDepth))
	}
	if onejson.Check(patch) != nil { // of a name given twice encoding/json would take the last
		return c, ErrNotJSON
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(patch, &fields); err != nil || fields == nil {
		return c, refuse("body", "expected an object")
	}
	for name, raw := range fields {
		var err error
		switch name {
		case "name":
			c.name, err = text(name, raw)
			if err == nil {
				err = checkName(*c.name)
			}
		case "avatar_url":
			c.avatarURL, err = text(name, raw)
			if err == nil {
				err = checkAvatarURL(*c.avatarURL)
			}
		case "preferences":
			c.prefsGiven = true
			c.preferences, err = object(name, raw)
		default:
			err = refuse("body", "only name, avatar_url and preferences can be changed")
		}
		if err != nil {
			return change{}, err
		}
	}
	return c, nil
}

func text(field string, raw json.RawMessage) (*string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, refuse(field, "expected a string or null")
	}
	if s == nil {
		s = new(string)
	}
	return s, nil
}

func object(field string, raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // a number stays what the client wrote
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, refuse(field, "expected an object or null")
	}
	if _, ok := v.(map[string]any); !ok && v != nil {
		return nil, refuse(field, "expected an object or null")
	}
	return v, nil
}

func checkName(s string) error {
	if utf8.RuneCountInString(s) > maxName {
		return refuse("name", fmt.Sprintf("at most %d characters", maxName))
	}
	if strings.ContainsFunc(s, disturbs) {
		return refuse("name", "no control characters")
	}
	return nil
}

// disturbs tells characters that could break or turn around the line in which a name is shown.
func disturbs(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) || r == utf8.RuneError
}

func checkAvatarURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if len(s) > maxAvatarURL || err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsFunc(s, outsideURL) {
		return refuse("avatar_url", "expected an https URL of at most 2048 bytes")
	}
	return nil
}

// outsideURL tells characters that a URL holds percent-encoded only (RFC 3986 section 2): url.Parse takes quotes, angle
// brackets and all beyond ASCII as they are, and a page may not.
func outsideURL(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>\\^`{|}", r) }

func (c change) apply(p *Profile) error {
	if c.name != nil {
		p.Name = *c.name
	}
	if c.avatarURL != nil {
		p.AvatarURL = *c.avatarURL
	}
	if !c.prefsGiven {
		return nil
	}
	if c.preferences == nil {
		p.Preferences = json.RawMessage(`{}`)
		return nil
	}
	present, err := object("preferences", p.Preferences)
	if err != nil {
		return fmt.Errorf("stored preferences of %s: not an object", p.ID)
	}
	all := merge(present, c.preferences)
	merged, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("encode preferences: %w", err)
	}
	switch {
	case len(merged)+exponents(all) > maxPreferences:
		return refuse("preferences", fmt.Sprintf("at most %d bytes, with numbers written out", maxPreferences))
	case holdsNUL(all):
		return refuse("preferences", "no NUL characters")
	case depth(merged) > maxDepth:
		return refuse("preferences", fmt.Sprintf("nested deeper than %d levels", maxDepth))
	}
	p.Preferences = merged
	return nil
}

// merge is MergePatch of RFC 7396 section 2.
func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for name, value := range p {
		if value == nil {
			delete(t, name)
		} else {
			t[name] = merge(t[name], value)
		}
	}
	return t
}

// exponents counts how many digits the numbers within v get when they are written without exponent, as PostgreSQL does: a
// few bytes may not become a hundred thousand in the database.
func exponents(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			n += exponents(e)
		}
	case []any:
		for _, e := range v {
			n += exponents(e)
		}
	case json.Number:
		if at := strings.IndexAny(string(v), "eE"); at >= 0 {
			exponent, err := strconv.Atoi(string(v[at+1:]))
			if err != nil || exponent < -maxPreferences || exponent > maxPreferences {
				return maxPreferences
			}
			n = max(exponent, -exponent)
		}
	}
	return n
}

// holdsNUL finds what PostgreSQL cannot store and SQLite can.
func holdsNUL(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			if strings.Contains(name, "\x00") || holdsNUL(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, holdsNUL)
	case string:
		return strings.Contains(v, "\x00")
	}
	return false
}

// depth counts how many objects and arrays lie within each other in valid JSON.
func depth(data []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
