package jose

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
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
	Issuer      string        // compared byte by byte
	Audiences   []string      // the token must name one of them
	Algorithms  []string      // pinned; RS256, PS256, ES256, EdDSA
	Types       []string      // accepted typ headers, such as at+jwt (RFC 9068); compared without case and "application/"
	Skew        time.Duration // of clocks; at most a minute
	MaxLifetime time.Duration // exp − iat at most; 0 for no bound

	RolesClaim, GroupsClaim, AttributesClaim, TenantClaim string // "" for none

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
	case len(p.Types) == 0:
		return errors.New("types: at least one")
	case p.Skew < 0 || p.Skew > maxSkew:
		return errors.New("skew: from 0 to 60 seconds")
	}
	for _, a := range p.Algorithms {
		if !slices.Contains([]string{RS256, PS256, ES256, EdDSA}, a) {
			return errors.New("algorithms: expected one of: RS256, PS256, ES256, EdDSA")
		}
	}
	return nil
}

var (
	errInvalid = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid")
	errExpired = fault.New(fault.Unauthenticated, "The token has expired.").Named("token_expired")
)

// refused is errInvalid with its cause for the log.
func refused(why string) error { return errInvalid.Because(errors.New(why)) }

// Issuer reads the iss claim of a token that nobody has verified yet: only to choose which policy will.
func Issuer(token string) (string, error) {
	_, payload, err := split(token)
	if err != nil {
		return "", err
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return "", refused("claims are not an object")
	}
	return c.Issuer, nil
}

// Verify checks a compact JWS against the policy by RFC 8725 and RFC 9068 section 4 and answers who it stands for. Its
// failures are fault.Unauthenticated ("token_invalid", "token_expired"), or what keys answered.
func Verify(ctx context.Context, token string, p Policy, keys KeySource) (principal.Principal, error) {
	var none principal.Principal
	header, payload, err := split(token)
	if err != nil {
		return none, err
	}
	h, err := readHeader(header, p)
	if err != nil {
		return none, err
	}
	key, err := keys.Key(ctx, h.KeyID, h.Algorithm)
	if err != nil {
		return none, err
	}
	if _, err := jws.Verify([]byte(token), jws.WithKey(jwa.SignatureAlgorithm(h.Algorithm), key.Public)); err != nil {
		return none, refused("signature does not match")
	}
	c, err := readClaims(payload)
	if err != nil {
		return none, err
	}
	if err := c.check(p); err != nil {
		return none, err
	}
	return c.principal(p, h.KeyID), nil
}

// split cuts a token in its three parts and decodes two of them.
func split(token string) (header, payload []byte, err error) {
	if len(token) > maxToken {
		return nil, nil, refused("token is too long")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] == "" {
		return nil, nil, refused("not a signed token of three parts")
	}
	strict := base64.RawURLEncoding.Strict()
	if header, err = strict.DecodeString(parts[0]); err != nil || strings.ContainsAny(parts[0], "\r\n") {
		return nil, nil, refused("header is not base64url")
	}
	if payload, err = strict.DecodeString(parts[1]); err != nil || strings.ContainsAny(parts[1], "\r\n") {
		return nil, nil, refused("claims are not base64url")
	}
	if _, err = strict.DecodeString(parts[2]); err != nil || strings.ContainsAny(parts[2], "\r\n") {
		return nil, nil, refused("signature is not base64url")
	}
	return header, payload, nil
}

// joseHeader is all that is read of a header. jku, x5u, jwk and x5c are never looked at (S31).
type joseHeader struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Type      string          `json:"typ"`
	Critical  json.RawMessage `json:"crit"`
	Payload   json.RawMessage `json:"b64"`
}

func readHeader(data []byte, p Policy) (joseHeader, error) {
	var h joseHeader
	if err := once(data); err != nil {
		return h, err
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return h, refused("header is malformed")
	}
	switch {
	case !slices.Contains(p.Algorithms, h.Algorithm):
		return h, refused("algorithm is not the issuer's")
	case h.Critical != nil || h.Payload != nil:
		return h, refused("header has a critical extension")
	case h.KeyID == "" || len(h.KeyID) > maxKeyID:
		return h, refused("kid is missing or too long")
	case !slices.ContainsFunc(p.Types, func(t string) bool { return sameType(t, h.Type) }):
		return h, refused("typ is not accepted")
	}
	return h, nil
}

// sameType compares media types as RFC 7515 section 4.1.9 says: "application/" may be left out.
func sameType(a, b string) bool {
	const prefix = "application/"
	a, b = strings.ToLower(a), strings.ToLower(b)
	return strings.TrimPrefix(a, prefix) == strings.TrimPrefix(b, prefix)
}

// once refuses a JSON object with a name given twice at any depth, trailing bytes, or another value than an object.
func once(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return refused("not a JSON object")
	}
	if err := object(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refused("bytes after the JSON object")
	}
	return nil
}

const maxDepth = 16

func object(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return refused("malformed JSON")
		}
		s, _ := name.(string)
		if folded := strings.ToLower(s); seen[folded] { // encoding/json matches names without case
			return refused("a name is given twice")
		} else {
			seen[folded] = true
		}
		if err := value(d, depth); err != nil {
			return err
		}
	}
	_, err := d.Token()
	if err != nil {
		return refused("malformed JSON")
	}
	return nil
}

func value(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil || depth > maxDepth {
		return refused("malformed or too deep JSON")
	}
	switch t {
	case json.Delim('{'):
		return object(d, depth+1)
	case json.Delim('['):
		for d.More() {
			if err := value(d, depth+1); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil {
			return refused("malformed JSON")
		}
	}
	return nil
}
