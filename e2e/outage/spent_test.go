package outage_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	altcha "github.com/altcha-org/altcha-lib-go"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

// onceRoutes want what is good once: a proof of possession, a solved challenge.
const onceRoutes = `
      - name: bound
        paths: [/bound]
        strip_path: false
        plugins: [{name: gatehouse, config: {authorize: false, issuers: *issuers, redis_url: *redis, dpop: {mode: required, window_seconds: 300, origins: ["https://api.test"]}}}]
      - name: challenged
        paths: [/challenged]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              identify: none
              authorize: false
              redis_url: *redis
              challenge: {when: always, action: test, secret: 0123456789abcdef0123456789abcdef, max_number: 1000, clearance: {ttl_seconds: 0}}
`

// once are kinds for these routes. What was used must never be good again, whatever is away; spend uses it, before the load begins.
// S14, S49.
func (s *site) once(t *testing.T) (kinds []kind, spend func()) {
	t.Helper()
	holder, err := jose.GenerateEC()
	if err != nil {
		t.Fatal(err)
	}
	token := signed(t, key(t), map[string]any{"cnf": map[string]string{"jkt": holder.ID}})
	proved := func(proof func() string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", "DPoP "+token())
			r.Header.Set("DPoP", proof())
		}
	}
	fresh := func() string { return proofOf(t, holder, token()) }
	bound, challenged := []string{"/bound"}, []string{"/challenged"}
	replayed := kind{name: "replayed proof", paths: bound, token: token, show: proved(always(fresh())), want: "dpop_proof_invalid", from: well}
	solution := ""
	spent := kind{name: "spent solution", paths: challenged, token: always(""), want: "challenge_invalid", from: well, show: func(r *http.Request) {
		r.Header.Set("X-Gatehouse-Challenge", solution)
	}}
	return []kind{
			{name: "fresh proof", paths: bound, token: token, show: proved(fresh), want: allowed},
			{name: "no proof", paths: bound, token: token, show: func(r *http.Request) { r.Header.Set("Authorization", "DPoP "+token()) }, want: "dpop_proof_invalid"},
			{name: "bound token as a bearer's", paths: []string{"/bound", "/account", "/orders"}, token: token, want: "token_bound"},
			{name: "unsolved challenge", paths: challenged, token: always(""), want: "challenge_required"},
			replayed, spent,
		}, func() {
			s.wait("a challenge is set", func() bool { solution = s.solve(t); return solution != "" })
			for _, k := range []kind{replayed, spent} {
				k.name = "first use of " + k.name
				s.wait(k.name, func() bool { // one whose answer came too late was used as well, and is refused now
					got, err := s.ask(&k, k.paths[0], "first")
					return err == nil && (got == allowed || got == k.want)
				})
			}
		}
}

// solve answers the solution of a challenge that the edge sets, or "" while it sets none.
func (s *site) solve(t *testing.T) string {
	t.Helper()
	res, err := s.http.Get(s.url + "/challenged")
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	var problem struct {
		Challenge struct {
			Algorithm, Challenge, Salt, Signature string
			MaxNumber                             int `json:"maxnumber"`
		}
	}
	if json.NewDecoder(res.Body).Decode(&problem) != nil || problem.Challenge.Salt == "" {
		return ""
	}
	c := problem.Challenge
	found, err := altcha.SolveChallenge(c.Challenge, c.Salt, altcha.SHA256, c.MaxNumber, 0, nil)
	if err != nil || found == nil {
		t.Fatalf("the challenge has no solution: %v", err)
	}
	text, err := json.Marshal(altcha.Payload{Algorithm: c.Algorithm, Challenge: c.Challenge, Number: int64(found.Number), Salt: c.Salt, Signature: c.Signature})
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(text)
}

// proofOf is a new proof of possession for GET /bound (RFC 9449 section 4.2).
func proofOf(t *testing.T, k jose.SigningKey, token string) string {
	public := one(t, k)
	ath := sha256.Sum256([]byte(token))
	enc := base64.RawURLEncoding
	header, _ := json.Marshal(map[string]any{ // texts always marshal
		"typ": "dpop+jwt", "alg": "ES256", "jwk": map[string]any{"kty": public["kty"], "crv": public["crv"], "x": public["x"], "y": public["y"]},
	})
	payload, _ := json.Marshal(map[string]any{ // as above
		"jti": rand.Text(), "htm": http.MethodGet, "htu": "https://api.test/bound", "iat": time.Now().Unix(), "ath": enc.EncodeToString(ath[:]),
	})
	input := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	sum := sha256.Sum256([]byte(input))
	r, sig, err := ecdsa.Sign(rand.Reader, k.Private.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		t.Error(err)
		return ""
	}
	return input + "." + enc.EncodeToString(append(r.FillBytes(make([]byte, 32)), sig.FillBytes(make([]byte, 32))...))
}
