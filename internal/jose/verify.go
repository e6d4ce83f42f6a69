package jose

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

const (
	maxToken = 8 << 10 // bytes (S32)
	maxKeyID = 256     // bytes (S33)
	maxSkew  = time.Minute
)

// Policy is what one issuer's tokens must be like.
type Policy struct {
	Issuer      string          // compared byte by byte
	Audiences   []string        // the token must name one of them
	Algorithms  []string        // pinned; RS256, PS256, ES256, EdDSA
	Types       []string        // accepted typ headers, such as at+jwt (RFC 9068); compared without case and "application/"
	Skew        time.Duration   // of clocks; at most a minute
	MaxLifetime time.Duration   // exp − iat at most; 0 for no bound
	MinRSABits  int             // of a modulus; 0 is 2048, which nothing lowers (S37)
	Require     map[Path]string // claims that must have these values
	Claims      Mapping

	Now func() time.Time
}

// Validate answers what is wrong with the policy.
func (p Policy) Validate() error {
	switch {
	case p.Issuer == "":
		return errors.New("issuer is empty")
	case len(p.Audiences) == 0 || slices.Contains(p.Audiences, ""):
		return errors.New("audiences: at least one, none empty")
	case len(p.Algorithms) == 0:
		return errors.New("algorithms: at least one")
	case len(p.Types) == 0 || slices.Contains(p.Types, ""):
		return errors.New("types: at least one, none empty")
	case p.Skew < 0 || p.Skew > maxSkew:
		return errors.New("skew: from 0 to 60 seconds")
	case p.MinRSABits < 0 || p.MinRSABits > maxRSABits:
		return errors.New("min_rsa_bits: from 2048 to 8192")
	}
	for _, a := range p.Algorithms {
		if !slices.Contains(algorithms(), a) {
			return errors.New("algorithms: expected one of: " + strings.Join(algorithms(), ", "))
		}
	}
	for path := range p.Require {
		if err := path.Validate(); err != nil || path == "" {
			return errors.New("require: a claim's path is empty or malformed")
		}
	}
	return p.Claims.Validate()
}

var (
	errInvalid = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid")
	errExpired = fault.New(fault.Unauthenticated, "The token has expired.").Named("token_expired")
)

// refused is errInvalid with its cause for the log.
func refused(why string) error { return errInvalid.Because(errors.New(why)) }

// Token is a compact JWS that has been taken apart and not verified.
type Token struct {
	input     []byte // what is signed
	signature []byte
	header    map[string]any
	claims    claims
}

// Parse takes a token apart. It refuses what has two readings: other than three parts, base64 that is not strict, JSON
// with a name given twice, anything longer than 8 KB (S32).
func Parse(token string) (*Token, error) {
	if len(token) > maxToken {
		return nil, refused("token is too long")
	}
	if strings.Count(token, ".") != 2 || strings.ContainsAny(token, "\r\n") {
		return nil, refused("not a signed token of three parts")
	}
	first, last := strings.IndexByte(token, '.'), strings.LastIndexByte(token, '.')
	if last == len(token)-1 {
		return nil, refused("not a signed token of three parts")
	}
	t := &Token{input: []byte(token[:last])}
	header, err := decode(token[:first])
	if err != nil {
		return nil, err
	}
	if t.header, err = readObject(header); err != nil {
		return nil, err
	}
	payload, err := decode(token[first+1 : last])
	if err != nil {
		return nil, err
	}
	if t.claims, err = readObject(payload); err != nil {
		return nil, err
	}
	t.signature, err = decode(token[last+1:])
	return t, err
}

func decode(part string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, refused("not base64url")
	}
	return b, nil
}

// IsJWS reports whether a token has the three parts of a compact JWS, so that it is no opaque one.
func IsJWS(token string) bool { return strings.Count(token, ".") == 2 }

// Issuer is the iss claim, unverified: only to choose which policy will verify it.
func (t *Token) Issuer() string { return t.claims.text("iss") }

// Verify checks the token against the policy by RFC 8725 and RFC 9068 section 4 and answers who it stands for, and the key
// that said so. Its failures are fault.Unauthenticated ("token_invalid", "token_expired"), or what keys answered.
func (t *Token) Verify(ctx context.Context, p Policy, keys KeySource) (principal.Principal, *PublicKey, error) {
	algorithm, kid, err := t.checkHeader(p)
	if err != nil {
		return principal.Principal{}, nil, err
	}
	key, err := keys.Key(ctx, kid, algorithm)
	if err != nil {
		return principal.Principal{}, nil, err
	}
	if k, is := key.Public.(*rsa.PublicKey); is && k.N.BitLen() < p.MinRSABits {
		return principal.Principal{}, nil, refused("key is weaker than min_rsa_bits")
	}
	if err := t.checkSignature(algorithm, key); err != nil {
		return principal.Principal{}, nil, err
	}
	if err := t.claims.check(p); err != nil {
		return principal.Principal{}, nil, err
	}
	return t.claims.principal(p, kid), key, nil
}

// checkHeader reads alg, kid, typ and what must not be there. jku, x5u, jwk and x5c are never looked at (S31).
func (t *Token) checkHeader(p Policy) (algorithm, kid string, err error) {
	algorithm, _ = t.header["alg"].(string)
	kid, _ = t.header["kid"].(string)
	typ, _ := t.header["typ"].(string)
	_, critical := t.header["crit"]
	_, unencoded := t.header["b64"]
	_, encrypted := t.header["enc"]
	content, _ := t.header["cty"].(string)
	switch {
	case !slices.Contains(p.Algorithms, algorithm):
		err = refused("algorithm is not the issuer's")
	case critical || unencoded:
		err = refused("header has a critical extension")
	case encrypted || sameType(content, "JWT"):
		err = refused("encrypted or nested")
	case kid == "" || len(kid) > maxKeyID:
		err = refused("kid is missing or too long")
	case !slices.ContainsFunc(p.Types, func(want string) bool { return sameType(want, typ) }):
		err = refused("typ is not accepted")
	}
	return algorithm, kid, err
}

func (t *Token) checkSignature(algorithm string, key *PublicKey) error {
	v, err := jws.NewVerifier(jwa.SignatureAlgorithm(algorithm))
	if err != nil {
		return refused("algorithm is not known")
	}
	if v.Verify(t.input, t.signature, key.Public) != nil {
		return refused("signature does not match")
	}
	return nil
}

// Verify parses and verifies a token.
func Verify(ctx context.Context, token string, p Policy, keys KeySource) (principal.Principal, error) {
	t, err := Parse(token)
	if err != nil {
		return principal.Principal{}, err
	}
	who, _, err := t.Verify(ctx, p, keys)
	return who, err
}

// sameType compares media types as RFC 7515 section 4.1.9 says: "application/" may be left out.
func sameType(a, b string) bool {
	const prefix = "application/"
	a, b = strings.ToLower(a), strings.ToLower(b)
	return strings.TrimPrefix(a, prefix) == strings.TrimPrefix(b, prefix)
}
