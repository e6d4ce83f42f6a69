// Package principal names who a request comes from, once its token has been verified, and the headers by which an
// upstream is told.
package principal

import "time"

// Principal is the verified caller. The zero value is an anonymous one.
type Principal struct {
	Issuer    string
	Subject   string
	ClientID  string
	SessionID string // claim sid
	Tenant    string
	TokenID   string // claim jti
	KeyID     string // the kid that signed the token
	Roles     []string
	Groups    []string
	Scope     []string
	AMR       []string // RFC 8176
	ACR       string
	// Thumbprint is the key that the token is bound to (claim cnf.jkt, RFC 9449 section 6), or "" for a bearer token.
	Thumbprint string

	Attributes map[string]any
	Claims     map[string]any

	AuthTime  time.Time
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// The headers that the edge sets for an upstream. It overwrites each on every request, with an empty value where it
// knows nothing, so that none can be the client's word.
const (
	HeaderSubject  = "X-Gatehouse-Subject"
	HeaderRoles    = "X-Gatehouse-Roles"
	HeaderScope    = "X-Gatehouse-Scope"
	HeaderTenant   = "X-Gatehouse-Tenant"
	HeaderDecision = "X-Gatehouse-Decision"
	// HeaderAssertion holds all of it, signed, for an upstream that does not trust the network.
	HeaderAssertion = "X-Gatehouse-Assertion"
)

// IdentityHeaders lists all headers that only the edge may set.
func IdentityHeaders() []string {
	return []string{HeaderSubject, HeaderRoles, HeaderScope, HeaderTenant, HeaderDecision, HeaderAssertion}
}

// Anonymous reports whether no token was presented.
func (p Principal) Anonymous() bool { return p.Subject == "" }
