package jose

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Path names a claim, one of three ways, told apart by their look and never by what a token holds:
//
//	realm_access.roles            dots go into objects
//	https://example.com/roles     a URL is one name, as namespaced claims are
//	/resource_access/my.app/roles an RFC 6901 pointer, for names that hold dots
//
// "" names nothing.
type Path string

// in answers what the path names, or nil.
func (p Path) in(claims map[string]any) any {
	rest, pointer := string(p), strings.HasPrefix(string(p), "/")
	if rest == "" {
		return nil
	}
	if strings.Contains(rest, "://") && !pointer {
		return claims[rest]
	}
	separator := "."
	if pointer {
		rest, separator = rest[1:], "/"
	}
	var at any = claims
	for more := true; more; {
		var name string
		name, rest, more = strings.Cut(rest, separator)
		if pointer && strings.Contains(name, "~") {
			name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
		}
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[name]
	}
	return at
}

// Validate answers what is wrong with the path.
func (p Path) Validate() error {
	if len(p) > 256 || !utf8.ValidString(string(p)) {
		return errors.New("a claim's path is at most 256 bytes of UTF-8")
	}
	if strings.HasPrefix(string(p), "/") || strings.Contains(string(p), "://") {
		return nil
	}
	if p != "" && slices.Contains(strings.Split(string(p), "."), "") {
		return errors.New("a claim's path has an empty name")
	}
	return nil
}

// Mapping says which claims make a principal.
type Mapping struct {
	Roles, Groups, Scope []Path          // all that they name, together
	ClientID             []Path          // the first that names a text
	Session, Tenant      Path            // texts
	Attributes           Path            // an object, whose members are attributes
	AttributeClaims      map[string]Path // further attributes by name; they win over those of the object
	// Separator cuts a text where a list of roles or groups is expected: "" (a text is one entry), " " or ",". The elements
	// of an array are never cut, and a scope that is a text is always cut at spaces (RFC 6749 section 3.3).
	Separator string
}

// StandardClaims are the names of RFC 9068 and those that Gatehouse's own tokens use.
func StandardClaims() Mapping {
	return Mapping{
		Roles: []Path{"roles"}, Groups: []Path{"groups"}, Scope: []Path{"scope"}, ClientID: []Path{"client_id"},
		Session: "sid", Tenant: "tid", Attributes: "attributes",
	}
}

// Validate answers what is wrong with the mapping.
func (m Mapping) Validate() error {
	if m.Separator != "" && m.Separator != " " && m.Separator != "," {
		return errors.New("separator: expected none, a space or a comma")
	}
	all := slices.Concat(m.Roles, m.Groups, m.Scope, m.ClientID, []Path{m.Session, m.Tenant, m.Attributes})
	for _, p := range m.AttributeClaims {
		all = append(all, p)
	}
	for _, p := range all {
		if err := p.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// fill sets what the claims say of the principal beyond its registered claims.
func (m Mapping) fill(p *principal.Principal, c map[string]any) {
	p.Roles, p.Groups, p.Scope = union(c, m.Roles, m.Separator), union(c, m.Groups, m.Separator), union(c, m.Scope, " ")
	p.SessionID, _ = m.Session.in(c).(string)
	p.Tenant, _ = m.Tenant.in(c).(string)
	for _, path := range m.ClientID {
		if p.ClientID, _ = path.in(c).(string); p.ClientID != "" {
			break
		}
	}
	p.Attributes, _ = m.Attributes.in(c).(map[string]any)
	if len(m.AttributeClaims) == 0 {
		return
	}
	all := make(map[string]any, len(p.Attributes)+len(m.AttributeClaims))
	for name, v := range p.Attributes {
		all[name] = v
	}
	for name, path := range m.AttributeClaims {
		if v := path.in(c); v != nil {
			all[name] = v
		}
	}
	p.Attributes = all
}

// union is what the paths name, each entry once.
func union(c map[string]any, paths []Path, separator string) []string {
	var out []string
	for _, path := range paths {
		for _, s := range texts(path.in(c), separator) {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// texts reads a text or an array of texts; anything else in the array voids it.
func texts(v any, separator string) []string {
	switch v := v.(type) {
	case string:
		switch separator {
		case "":
			return []string{v}
		case " ":
			return strings.Fields(v)
		}
		var out []string
		for s := range strings.SplitSeq(v, separator) {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
		return out
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil
			}
			out = append(out, s)
		}
		return out
	}
	return nil
}
