package decisionlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Mask keeps one value out of every record, before the record is made. It may be /input, /result, /gatehouse/looked_up or
// /gatehouse/rules, or anything within.
type Mask struct {
	Pointer string // JSON Pointer (RFC 6901) into the record
	With    any    // what stands in its place; nil to erase the member. An element of an array becomes null.
}

// Masks are compiled masks. Besides them, in every record, whatever has the name of a secret (authorization, cookie, token,
// password and the like, at any depth) or looks like one (a JWT, the value of an Authorization header, a private key) is replaced, and
// within /input a body that is a text.
type Masks struct {
	list    []Mask
	root    *maskNode
	reasons bool // some are of reasons, or of what they stand in: the rules say as much, and are left out
}

// maskNode is a step of the pointers.
type maskNode struct {
	children map[string]*maskNode
	hides    bool
	with     []byte // JSON; nil to erase
}

// NewMasks compiles masks. It answers all that is wrong with them, without their values.
func NewMasks(masks []Mask) (*Masks, error) {
	m := &Masks{list: masks, root: &maskNode{}}
	var errs []error
	for _, mask := range masks {
		if err := m.add(mask); err != nil {
			errs = append(errs, fmt.Errorf("mask %q %w", mask.Pointer, err))
		}
	}
	return m, errors.Join(errs...)
}

func (m *Masks) add(mask Mask) error {
	tokens, err := authzen.ParsePointer(mask.Pointer)
	if err != nil {
		return errors.New("is not a JSON Pointer")
	}
	switch {
	case len(tokens) >= 1 && (tokens[0] == "input" || tokens[0] == "result"):
	case len(tokens) >= 2 && tokens[0] == "gatehouse" && (tokens[1] == "looked_up" || tokens[1] == "rules"):
	default:
		return errors.New("does not begin with /input, /result, /gatehouse/looked_up or /gatehouse/rules")
	}
	m.reasons = m.reasons || tokens[0] == "result" && (len(tokens) == 1 || tokens[1] == "reasons")
	n := m.root
	for _, t := range tokens {
		if n.children == nil {
			n.children = map[string]*maskNode{}
		}
		next := n.children[t]
		if next == nil {
			next = &maskNode{}
			n.children[t] = next
		}
		n = next
	}
	if n.hides {
		return errors.New("is given twice")
	}
	n.hides = true
	if mask.With != nil {
		if n.with, err = json.Marshal(mask.With); err != nil {
			return errors.New("replaces by something that is no JSON")
		}
		n.with = bytes.ReplaceAll(n.with, []byte{'\n'}, nil)
	}
	return nil
}

// and answers masks that hide more.
func (m *Masks) and(more []Mask) (*Masks, error) {
	all := slices.Clone(m.list)
	for _, mask := range more {
		if !slices.ContainsFunc(all, func(a Mask) bool { return a.Pointer == mask.Pointer }) {
			all = append(all, mask)
		}
	}
	return NewMasks(all)
}

// everything are the masks that leave of a record what no caller has sent.
func everything() *Masks {
	m, err := NewMasks([]Mask{{Pointer: "/input"}, {Pointer: "/result"}, {Pointer: "/gatehouse/looked_up"}})
	if err != nil {
		panic(err) // constants
	}
	return m
}

// child is the step to a member, nil where no mask is any further.
func (n *maskNode) child(name string) *maskNode {
	if n == nil {
		return nil
	}
	return n.children[name]
}

// hides reports whether the value at the tokens is hidden, by itself or with what holds it.
func (m *Masks) hides(tokens ...string) bool {
	n := m.root
	for _, t := range tokens {
		if n = n.child(t); n == nil {
			return false
		}
		if n.hides {
			return true
		}
	}
	return false
}

// secret stands in the place of what looks like one.
const secret = `"[secret]"`

// secretName reports whether a member's name says that its value is a secret.
func secretName(name string) bool {
	if strings.IndexByte("delnpsty", lastLetter(name)) < 0 { // what the names below end with
		return false
	}
	var plain [64]byte
	b := plain[:0]
	if len(name) > len(plain) {
		name = name[len(name)-len(plain):]
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b = append(b, c)
		case 'A' <= c && c <= 'Z':
			b = append(b, c|0x20)
		}
	}
	switch string(b) {
	case "jwt", "dpop", "otp", "totp", "pin", "credential", "credentials", "tokens", "secrets", "passwords", "cookies":
		return true
	}
	for _, end := range [...]string{
		"authorization", "cookie", "token", "secret", "password", "passwd", "passphrase", "apikey", "privatekey", "assertion",
	} {
		if len(b) >= len(end) && string(b[len(b)-len(end):]) == end {
			return true
		}
	}
	return false
}

// opaque reports whether a member is a request's body, or a header, as it came: nothing in it has a name by which to know a secret.
// Envoy's and Kong's plugins of OPA tell both besides what they have read of them.
func opaque(name string, v any) bool {
	if text, ok := v.(string); !ok || text == "" {
		return false
	}
	switch name {
	case "body", "rawBody", "raw_body", "rawValue", "raw_value":
		return true
	}
	return false
}

// lastLetter answers the last letter or digit, as a small one, or 0.
func lastLetter(name string) byte {
	for i := len(name) - 1; i >= 0; i-- {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		case 'A' <= c && c <= 'Z':
			return c | 0x20
		}
	}
	return 0
}

// looksSecret reports whether a text is, or holds, a secret of a known shape.
func looksSecret(s string) bool {
	if len(s) < 8 {
		return false
	}
	if i := strings.IndexByte(s, ' '); i > 0 && i+1 < len(s) {
		switch scheme := s[:i]; {
		case strings.EqualFold(scheme, "bearer"), strings.EqualFold(scheme, "basic"), strings.EqualFold(scheme, "dpop"), strings.EqualFold(scheme, "digest"):
			return true
		}
		if strings.Contains(s, "PRIVATE KEY-----") {
			return true
		}
	}
	return holdsJWT(s) || holdsParameter(s)
}

// holdsJWT finds the beginning of a JOSE header, and a dot behind it.
func holdsJWT(s string) bool {
	for {
		i := strings.Index(s, "eyJ")
		if i < 0 {
			return false
		}
		s = s[i+3:]
		end := strings.IndexFunc(s, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
		})
		if end >= 8 && s[end] == '.' {
			return true
		}
	}
}

// holdsParameter finds a query parameter whose name says that it is a secret.
func holdsParameter(s string) bool {
	for {
		i := strings.IndexByte(s, '=')
		if i < 0 {
			return false
		}
		if begin := strings.LastIndexAny(s[:i], "?&;, "); i+1 < len(s) && secretName(s[begin+1:i]) {
			return true
		}
		s = s[i+1:]
	}
}
