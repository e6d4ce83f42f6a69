package token

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// KeyBits is the modulus length of the keys that a ring makes (S37).
const KeyBits = 3072

// Type is the typ header of access tokens (RFC 9068 section 2.1).
const Type = "at+jwt"

// Options are the settings of a Ring.
type Options struct {
	Store    Store
	Box      *seal.Box
	Issuer   string        // claim iss
	Audience string        // claim aud
	TTL      time.Duration // from iat to exp
	Now      func() time.Time
	NewID    func() string                   // for jti
	Generate func() (jose.SigningKey, error) // nil for RS256 with KeyBits
}

// Ring mints and verifies access tokens. It loads its keys, or makes them if the store has none, with Load or else at
// first use. It is safe for concurrent use.
type Ring struct {
	o      Options
	mu     sync.Mutex // held while loading
	loaded atomic.Pointer[keys]
}

type keys struct {
	active jose.SigningKey
	jwks   []byte
	public *jose.Keys
}

// New makes a ring; nothing is loaded yet.
func New(o Options) *Ring {
	if o.Generate == nil {
		o.Generate = func() (jose.SigningKey, error) { return jose.GenerateRSA(KeyBits) }
	}
	return &Ring{o: o}
}

// Load fetches the keys once. Of several instances that make keys at the same moment the store lets one pair win.
func (r *Ring) Load(ctx context.Context) error {
	_, err := r.keys(ctx)
	return err
}

// Claims are what a token says beyond what every token says.
type Claims struct {
	Subject    string
	ClientID   string
	SessionID  string
	Roles      []string
	Attributes map[string]string
	AMR        []string
	AuthTime   time.Time
}

// Mint signs an access token (RFC 9068 section 2.2) and answers it with its lifetime.
func (r *Ring) Mint(ctx context.Context, c Claims) (string, time.Duration, error) {
	k, err := r.keys(ctx)
	if err != nil {
		return "", 0, err
	}
	now := r.o.Now().UTC().Truncate(time.Second)
	claims := map[string]any{
		"iss": r.o.Issuer, "aud": r.o.Audience, "sub": c.Subject, "client_id": c.ClientID, "sid": c.SessionID,
		"jti": r.o.NewID(), "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(r.o.TTL).Unix(),
		"auth_time": c.AuthTime.Unix(), "amr": c.AMR,
	}
	if len(c.Roles) > 0 {
		claims["roles"] = c.Roles
	}
	if len(c.Attributes) > 0 {
		claims["attributes"] = c.Attributes
	}
	token, err := jose.Sign(k.active, Type, claims)
	if err != nil {
		return "", 0, fmt.Errorf("mint access token: %w", err)
	}
	return token, r.o.TTL, nil
}

// Verify checks a token that this service minted. It is asked although the edge has verified already: the service does
// not rely on nobody reaching it past the edge.
func (r *Ring) Verify(ctx context.Context, token string) (principal.Principal, error) {
	k, err := r.keys(ctx)
	if err != nil {
		return principal.Principal{}, err
	}
	return jose.Verify(ctx, token, jose.Policy{
		Issuer: r.o.Issuer, Audiences: []string{r.o.Audience}, Algorithms: []string{jose.RS256}, Types: []string{Type},
		Skew: 30 * time.Second, MaxLifetime: r.o.TTL, Claims: jose.StandardClaims(), Now: r.o.Now,
	}, k.public)
}

// JWKS answers the public keys as a JWK Set (RFC 7517 section 5): those that sign and those that will.
func (r *Ring) JWKS(ctx context.Context) ([]byte, error) {
	k, err := r.keys(ctx)
	if err != nil {
		return nil, err
	}
	return k.jwks, nil
}

func (r *Ring) keys(ctx context.Context) (*keys, error) {
	if k := r.loaded.Load(); k != nil {
		return k, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.loaded.Load(); k != nil {
		return k, nil
	}
	stored, err := r.o.Store.Keys(ctx)
	if err == nil && len(stored) == 0 {
		stored, err = r.first(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	k, err := r.open(stored)
	if err != nil {
		return nil, err
	}
	r.loaded.Store(k)
	return k, nil
}

// first makes the first two keys side by side, as each takes a second or so.
func (r *Ring) first(ctx context.Context) ([]Key, error) {
	made := []Key{{State: Active}, {State: Next}}
	var g errgroup.Group
	for i := range made {
		g.Go(func() error {
			k, err := r.o.Generate()
			if err != nil {
				return err
			}
			der, err := k.MarshalPKCS8()
			if err != nil {
				return fmt.Errorf("encode signing key: %w", err)
			}
			made[i].ID, made[i].Algorithm, made[i].CreatedAt = k.ID, k.Algorithm, r.o.Now()
			made[i].Sealed = r.o.Box.Seal(der, []byte(k.ID))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return r.o.Store.Init(ctx, made)
}

func (r *Ring) open(stored []Key) (*keys, error) {
	var k keys
	var all []jose.SigningKey
	for _, s := range stored {
		der, err := r.o.Box.Open(s.Sealed, []byte(s.ID))
		if err != nil {
			return nil, fmt.Errorf("open signing key %s: %w", s.ID, err)
		}
		private, err := jose.ParsePKCS8(s.ID, s.Algorithm, der)
		if err != nil {
			return nil, fmt.Errorf("open signing key %s: %w", s.ID, err)
		}
		all = append(all, private)
		if s.State == Active {
			k.active = private
		}
	}
	if k.active.Private == nil {
		return nil, fault.New(fault.Internal, "no signing key is active")
	}
	var err error
	if k.jwks, err = jose.PublicSet(all...); err != nil {
		return nil, err
	}
	if k.public, err = jose.StaticKeys(k.jwks); err != nil {
		return nil, err
	}
	return &k, nil
}
