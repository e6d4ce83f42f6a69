package assertion

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	keyRefresh = 5 * time.Minute
	skew       = 5 * time.Second
)

// Config says whose assertions a Checker believes.
type Config struct {
	// Audience is this upstream's name, as the routes to it say in assertion.audience.
	Audience string
	// KeySets are where the edges publish their keys: one URL if all edges share their keys, or one for each edge. Private
	// addresses and plain http to them are allowed.
	KeySets []string
	// Now is the time; nil is time.Now.
	Now func() time.Time
}

// Checker checks assertions. It is safe for concurrent use.
type Checker struct {
	policy jose.Policy
	keys   keySets
}

// New makes a checker and keeps its keys fresh until ctx ends. The edges need not be there yet.
func New(ctx context.Context, c Config) (*Checker, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	checker := &Checker{policy: jose.Policy{
		Issuer: issuer, Audiences: []string{c.Audience}, Algorithms: []string{jose.ES256}, Types: []string{mediaType}, Skew: skew, MaxLifetime: life,
		Claims: jose.StandardClaims(), Now: c.Now,
	}}
	if err := checker.policy.Validate(); err != nil {
		return nil, fmt.Errorf("assertion: %w", err)
	}
	if len(c.KeySets) == 0 {
		return nil, errors.New("assertion: at least one key set is needed")
	}
	for _, url := range c.KeySets {
		k, err := jose.NewRemoteKeys(jose.RemoteOptions{
			URL: url, Refresh: keyRefresh, Egress: egress.Options{AllowPrivate: true, AllowHTTP: true}, Now: c.Now,
		})
		if err != nil {
			return nil, fmt.Errorf("assertion: %w", err)
		}
		checker.keys = append(checker.keys, k)
	}
	for _, k := range checker.keys {
		go func() { _ = k.Run(ctx) }() // it answers nil
	}
	return checker, nil
}

// keySets asks one edge's keys after the other's.
type keySets []*jose.RemoteKeys

// Key implements jose.KeySource. That one edge cannot be asked is told only where no other knows the key.
func (s keySets) Key(ctx context.Context, kid, algorithm string) (*jose.PublicKey, error) {
	var unknown, away error
	for _, k := range s {
		key, err := k.Key(ctx, kid, algorithm)
		switch {
		case err == nil:
			return key, nil
		case fault.CodeOf(err) == fault.Unauthenticated:
			unknown = err
		default:
			away = err
		}
	}
	if away != nil {
		return nil, away
	}
	return nil, unknown
}

var errRefused = fault.New(fault.Unauthenticated, "The request did not come through the edge.").Named("assertion_invalid")

// Check answers who the request comes from. Its failures are faults: assertion_invalid, or that no key set could be had.
func (c *Checker) Check(r *http.Request) (Identity, error) {
	values := r.Header.Values(Header)
	if len(values) != 1 || values[0] == "" {
		return Identity{}, errRefused.Because(errors.New("not exactly one assertion"))
	}
	p, err := jose.Verify(r.Context(), values[0], c.policy, c.keys)
	switch {
	case fault.CodeOf(err) == fault.Unauthenticated:
		return Identity{}, errRefused.Because(err)
	case err != nil:
		return Identity{}, err
	case text(p, "htm") != r.Method:
		return Identity{}, errRefused.Because(errors.New("another method"))
	case text(p, "path") != r.URL.Path:
		return Identity{}, errRefused.Because(errors.New("another path"))
	}
	i := Identity{
		Subject: p.Subject, SubjectIssuer: text(p, "sub_iss"), Tenant: p.Tenant, ClientID: p.ClientID, Session: p.SessionID, ACR: p.ACR,
		Roles: p.Roles, Scope: p.Scope, Decision: text(p, "decision"),
	}
	if anonymous, _ := p.Claims["anonymous"].(bool); anonymous {
		i.Subject = ""
	}
	return i, nil
}

func text(p principal.Principal, claim string) string {
	s, _ := p.Claims[claim].(string)
	return s
}

// listed leaves out a role that a list would make two of, as the edge does in its own header.
func listed(roles []string) []string {
	return slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return r == "" || strings.Contains(r, ",") })
}

type identityKey struct{}

// From answers who the request comes from, in a handler behind Handler.
func From(ctx context.Context) (Identity, bool) {
	i, ok := ctx.Value(identityKey{}).(Identity)
	return i, ok
}

// Handler lets requests through whose assertion holds, and refuses all others by a problem document. The identity headers that
// next sees are the assertion's words, never the network's.
func (c *Checker) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := c.Check(r)
		if err != nil {
			web.WriteProblem(w, web.Problem(r.Context(), err))
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), identityKey{}, i))
		r.Header = r.Header.Clone()
		for name := range r.Header {
			if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "x-gatehouse-") {
				delete(r.Header, name)
			}
		}
		for name, v := range map[string]string{
			principal.HeaderSubject: i.Subject, principal.HeaderRoles: strings.Join(listed(i.Roles), ","), principal.HeaderScope: strings.Join(i.Scope, " "),
			principal.HeaderTenant: i.Tenant, principal.HeaderDecision: i.Decision,
		} {
			r.Header.Set(name, v)
		}
		next.ServeHTTP(w, r)
	})
}
