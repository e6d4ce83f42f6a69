package assertion

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Header is where the edge puts the assertion.
const Header = principal.HeaderAssertion

const (
	issuer    = "gatehouse"
	mediaType = "gatehouse-assertion+jwt"
	nobody    = "anonymous"
	life      = time.Minute
	maxLength = 8 << 10 // bytes; what a checker takes at most
)

// Identity is who a request comes from, by the word of the edge.
type Identity struct {
	Subject       string // "" for a request without a token
	SubjectIssuer string // who issued the subject's token
	Tenant        string
	ClientID      string
	Session       string
	ACR           string
	Roles         []string
	Scope         []string
	Decision      string // the decision's id
}

// Anonymous reports whether the request bore no token.
func (i Identity) Anonymous() bool { return i.Subject == "" }

// Request is what an assertion is good for: the method, and the path without the query, decoded.
type Request struct{ Method, Path, Audience string }

// Signer makes assertions. It is safe for concurrent use. Upstreams need it in tests only.
type Signer struct {
	signer *jose.Signer
	public []byte
	now    func() time.Time
}

// NewSigner makes a signer of a key of its own, which no other process has.
func NewSigner(now func() time.Time) (*Signer, error) {
	k, err := jose.GenerateEC()
	if err != nil {
		return nil, err
	}
	return newSigner(now, k)
}

// ReadSigner makes a signer of the P-256 keys in a PEM text: the first signs, the others are published too, so that a key can
// be published before it signs and after it did.
func ReadSigner(text []byte, now func() time.Time) (*Signer, error) {
	keys, err := jose.ParseECKeys(text)
	if err != nil {
		return nil, fmt.Errorf("assertion keys: %w", err)
	}
	return newSigner(now, keys...)
}

func newSigner(now func() time.Time, keys ...jose.SigningKey) (*Signer, error) {
	public, err := jose.PublicSet(keys...)
	if err != nil {
		return nil, fmt.Errorf("assertion keys: %w", err)
	}
	signer, err := jose.NewSigner(keys[0], mediaType)
	if err != nil {
		return nil, fmt.Errorf("assertion keys: %w", err)
	}
	return &Signer{signer: signer, public: public, now: now}, nil
}

// KeySet is the JWK Set by which assertions are checked.
func (s *Signer) KeySet() []byte { return s.public }

// Sign answers the value of the header.
func (s *Signer) Sign(i Identity, r Request) (string, error) {
	if r.Audience == "" || r.Method == "" || !strings.HasPrefix(r.Path, "/") {
		return "", errors.New("assertion: no audience, method or path")
	}
	now := s.now()
	c := claims{
		Issuer: issuer, Audience: r.Audience, Subject: i.Subject, Method: r.Method, Path: r.Path, IssuedAt: now.Unix(), Expires: now.Add(life).Unix(),
		SubjectIssuer: i.SubjectIssuer, Tenant: i.Tenant, ClientID: i.ClientID, Session: i.Session, ACR: i.ACR, Roles: i.Roles,
		Scope: strings.Join(i.Scope, " "), Decision: i.Decision,
	}
	if i.Anonymous() {
		c.Subject, c.Anonymous = nobody, true
	}
	token, err := s.signer.Sign(c)
	if err == nil && len(token) > maxLength {
		err = fmt.Errorf("assertion: longer than %d bytes", maxLength)
	}
	return token, err
}

// claims is the payload.
type claims struct {
	Issuer        string   `json:"iss"`
	Audience      string   `json:"aud"`
	Subject       string   `json:"sub"`
	Anonymous     bool     `json:"anonymous,omitempty"`
	Method        string   `json:"htm"`
	Path          string   `json:"path"`
	IssuedAt      int64    `json:"iat"`
	Expires       int64    `json:"exp"`
	SubjectIssuer string   `json:"sub_iss,omitempty"`
	Tenant        string   `json:"tid,omitempty"`
	ClientID      string   `json:"client_id,omitempty"`
	Session       string   `json:"sid,omitempty"`
	ACR           string   `json:"acr,omitempty"`
	Roles         []string `json:"roles,omitempty"`
	Scope         string   `json:"scope,omitempty"`
	Decision      string   `json:"decision,omitempty"`
}
