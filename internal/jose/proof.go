package jose

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Proof is a JWS that was verified by the key which it brings, as DPoP proofs are (RFC 9449 section 4.2). It proves that
// its sender holds the private key, and nothing else.
type Proof struct {
	Thumbprint string // of the key, RFC 7638, SHA-256, base64url
	Claims     map[string]any
}

// OpenProof verifies a proof of the given typ by its own jwk header, whose private half must not be there, and one of the
// algorithms. Its failures are fault.Unauthenticated.
func OpenProof(proof, typ string, algorithms []string) (Proof, error) {
	t, err := Parse(proof)
	if err != nil {
		return Proof{}, err
	}
	algorithm, _ := t.header["alg"].(string)
	is, _ := t.header["typ"].(string)
	_, critical := t.header["crit"]
	_, unencoded := t.header["b64"]
	switch {
	case !slices.Contains(algorithms, algorithm):
		return Proof{}, refused("algorithm is not accepted")
	case critical || unencoded:
		return Proof{}, refused("header has a critical extension")
	case !sameType(typ, is):
		return Proof{}, refused("typ is not accepted")
	}
	key, err := embedded(t.header["jwk"], algorithm)
	if err != nil {
		return Proof{}, err
	}
	if err := t.checkSignature(algorithm, &PublicKey{Algorithm: algorithm, Public: key.public}); err != nil {
		return Proof{}, err
	}
	return Proof{Thumbprint: key.thumbprint, Claims: t.claims}, nil
}

type embeddedKey struct {
	public     crypto.PublicKey
	thumbprint string
}

func embedded(header any, algorithm string) (embeddedKey, error) {
	var out embeddedKey
	members, ok := header.(map[string]any)
	if !ok {
		return out, refused("no jwk header")
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, given := members[private]; given {
			return out, refused("the jwk header holds a private key")
		}
	}
	data, err := json.Marshal(members)
	if err != nil {
		return out, refused("the jwk header is malformed")
	}
	k, err := jwk.ParseKey(data)
	if err != nil {
		return out, refused("the jwk header is malformed")
	}
	if alg := k.Algorithm().String(); alg != "" && alg != algorithm {
		return out, refused("the jwk header is for another algorithm")
	}
	var raw any
	if err := k.Raw(&raw); err != nil || !suits(algorithm, raw) {
		return out, refused("the jwk header does not suit the algorithm")
	}
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return out, refused("the jwk header is malformed")
	}
	return embeddedKey{raw, base64.RawURLEncoding.EncodeToString(sum)}, nil
}
