package guard

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
)

// LimitKey is what a limit counts by: one of the words below, or two of them joined by +.
type LimitKey string

// The words of a limit's key. Those that name the caller are read from the verified token alone (S63), apart by issuer, and
// count nothing for a request without one. A header is the client's own word: pair it with an address.
const (
	ByAddress LimitKey = "ip"      // IPv4 address, or IPv6 /64
	ByRoute   LimitKey = "route"   // all requests of the route together
	BySubject LimitKey = "subject" // claim sub
	ByClient  LimitKey = "client"  // claim client_id
	ByTenant  LimitKey = "tenant"  // by the issuer's tenant_claim
	BySession LimitKey = "session" // claim sid
	ByClaim   LimitKey = "claim:"  // and the claim's name; a token without it is counted with all others without it
	ByHeader  LimitKey = "header:" // and the header's name; a request without it is counted with all others without it
)

var errLimitKey = errors.New("expected ip, route, subject, client, tenant, session, claim:name or header:name, or two of them joined by +")

// keyPart is one word of a key.
type keyPart struct {
	by   LimitKey
	name string // of a claim or header
}

// identity reports whether the part names the caller.
func (p keyPart) identity() bool { return p.by != ByAddress && p.by != ByRoute && p.by != ByHeader }

func (k LimitKey) parts() ([]keyPart, error) {
	var out []keyPart
	for word := range strings.SplitSeq(string(k), "+") {
		p := keyPart{by: LimitKey(word)}
		switch p.by {
		case ByAddress, ByRoute, BySubject, ByClient, ByTenant, BySession:
		default:
			kind, name, named := strings.Cut(word, ":")
			p = keyPart{LimitKey(kind + ":"), name}
			if !named || name == "" || (p.by != ByClaim && p.by != ByHeader) || (p.by == ByHeader && !isToken(name)) {
				return nil, errLimitKey
			}
			if p.by == ByHeader {
				p.name = strings.ToLower(name)
			}
		}
		out = append(out, p)
	}
	if len(out) > 2 || (len(out) == 2 && out[0] == out[1]) {
		return nil, errLimitKey
	}
	return out, nil
}

// value is what the limit counts for this request: the route, the limit and whose request it is.
func (r *limitRule) value(s *state) string {
	b := make([]byte, 0, 96)
	b = appendPlain(b, s.Route)
	b = append(b, ':')
	b = append(b, r.Name...)
	for i, p := range r.parts {
		b = append(b, ":+"[min(i, 1)])
		b = p.append(b, s)
	}
	return string(b)
}

func (p keyPart) append(b []byte, s *state) []byte {
	switch p.by {
	case ByAddress:
		return appendNetwork(b, s.Addr)
	case ByRoute:
		return b
	case ByHeader:
		return appendHash(b, strings.Join(s.Header[p.name], "\n"))
	}
	b = append(appendPlain(b, s.who.Issuer), ',')
	switch p.by {
	case BySubject:
		return appendPlain(b, s.who.Subject)
	case ByClient:
		return appendPlain(b, s.who.ClientID)
	case ByTenant:
		return appendPlain(b, s.who.Tenant)
	case BySession:
		return appendPlain(b, s.who.SessionID)
	default:
		return appendClaim(b, s.who.Claims[p.name])
	}
}

// appendNetwork counts an IPv6 client by its /64, which one household has whole.
func appendNetwork(b []byte, a netip.Addr) []byte {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.AppendTo(b)
		}
	}
	return a.AppendTo(b)
}

func appendClaim(b []byte, v any) []byte {
	if text, ok := v.(string); ok {
		return appendHash(b, `"`+text) // no other JSON begins with a quotation mark
	}
	text, err := json.Marshal(v)
	if err != nil {
		text = nil // a claim comes from JSON and can become it again
	}
	return appendHash(b, string(text))
}

// maxPlain bounds what is written as it stands, in bytes.
const maxPlain = 80

// appendPlain writes what is short and harmless as it stands, so that an operator can read the key, and all else as a hash: a
// key must stay short, and nothing in it may be taken for a separator.
func appendPlain(b []byte, s string) []byte {
	if len(s) > maxPlain {
		return appendHash(b, s)
	}
	for i := range len(s) {
		c := s[i]
		if c != '.' && c != '_' && c != '-' && c != '@' && c != '/' && c != ':' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return appendHash(b, s)
		}
	}
	return append(b, s...)
}

// appendHash writes a hash that nobody can aim at: 132 bits of SHA-256. What is secret, such as an API key, is not in the key.
func appendHash(b []byte, s string) []byte {
	sum := sha256.Sum256([]byte(s))
	var text [43]byte
	base64.RawURLEncoding.Encode(text[:], sum[:])
	return append(append(b, '#'), text[:22]...)
}
