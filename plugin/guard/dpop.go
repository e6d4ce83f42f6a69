package guard

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Proofs lets a proof of possession be used once.
type Proofs interface {
	// Once reports whether nobody has used the thing before, except the request of that id ("" for none), across all processes.
	Once(ctx context.Context, thing, id string, live time.Duration) (bool, error)
}

// DPoPMode says whether a route takes tokens that are bound to a key (RFC 9449).
type DPoPMode string

// The modes: DPoPOff (also "") takes bearer tokens only, DPoPOptional both, DPoPRequired bound ones only. A bound token is never
// taken as a bearer token.
const (
	DPoPOff      DPoPMode = "off"
	DPoPOptional DPoPMode = "optional"
	DPoPRequired DPoPMode = "required"
)

// DPoP is how a route checks proofs of possession.
type DPoP struct {
	Mode       DPoPMode
	Origins    []string      // of the URLs by which clients reach the route, such as https://api.example.com
	Algorithms []string      // of proofs
	Window     time.Duration // how far iat may be from now, either way
	Nonce      DPoPNonce
}

// on reports whether the route takes bound tokens at all.
func (d DPoP) on() bool { return d.Mode == DPoPOptional || d.Mode == DPoPRequired }

const maxWindow = 5 * time.Minute

func (c Config) validateDPoP(wrong reject) {
	d := c.DPoP
	if d.Mode != "" && d.Mode != DPoPOff && !d.on() {
		wrong("dpop.mode", "expected off, optional or required")
	}
	if !d.on() {
		return
	}
	if c.Identify == None {
		wrong("dpop.mode", "needs identify")
	}
	if c.RedisURL == "" {
		wrong("redis_url", "is needed for dpop")
	}
	if len(d.Origins) == 0 {
		wrong("dpop.origins", "at least one is needed: a proof names the URL that the client called, of which the edge sees the path alone")
	}
	validateOrigins(wrong, "dpop.origins", d.Origins)
	if len(d.Algorithms) == 0 {
		wrong("dpop.algorithms", "at least one is needed")
	}
	for _, a := range d.Algorithms {
		if !slices.Contains([]string{jose.ES256, jose.EdDSA, jose.PS256, jose.RS256}, a) {
			wrong("dpop.algorithms", "expected ES256, EdDSA, PS256 or RS256")
		}
	}
	if d.Window <= 0 || d.Window > maxWindow {
		wrong("dpop.window_seconds", "expected 1 to 300")
	}
	d.Nonce.validate(wrong)
	if d.Mode == DPoPRequired && c.Cookie.Name != "" {
		wrong("token_cookie.name", "a token in a cookie is a bearer token, which dpop.mode: required does not take")
	}
}

var (
	errBound    = fault.New(fault.Unauthenticated, "The token is bound to a key, and the request does not prove that it has the key.").Named("token_bound")
	errUnbound  = fault.New(fault.Unauthenticated, "The token is not bound to a key.").Named("token_unbound")
	errProof    = fault.New(fault.Unauthenticated, "The proof of possession is missing, not for this request, or was used before.").Named("dpop_proof_invalid")
	errReplayed = errProof.Because(errors.New("used before"))
)

// possession checks that who shows the token has the key that it is bound to, if it is bound (S49).
func (g *Guard) possession(ctx context.Context, s *state, who *principal.Principal) error {
	switch {
	case !s.shown.dpop && who.Thumbprint != "":
		return errBound // whoever stole it could send it so (RFC 9449 section 7.2)
	case !s.shown.dpop && g.cfg.DPoP.Mode == DPoPRequired, s.shown.dpop && who.Thumbprint == "":
		return errUnbound
	case !s.shown.dpop:
		return nil
	}
	proofs := s.Header["dpop"]
	if len(proofs) != 1 {
		return errProof.Because(errors.New("not one DPoP header"))
	}
	p, err := jose.OpenProof(proofs[0], "dpop+jwt", g.cfg.DPoP.Algorithms)
	if err != nil {
		return errProof.Because(err)
	}
	if p.Thumbprint != who.Thumbprint {
		return errProof.Because(errors.New("by another key than the token's"))
	}
	id, left, err := g.cfg.DPoP.about(p, s.Request, s.shown.token, g.Now())
	if err != nil {
		return errProof.Because(err)
	}
	if err := g.nonced(s, p.Claims); err != nil { // before the proof counts as used
		return err
	}
	fresh, err := g.Proofs.Once(ctx, "dpop\n"+p.Thumbprint+"\n"+id, s.ID, left)
	switch {
	case err != nil:
		return err
	case !fresh:
		return errReplayed
	}
	return nil
}

// maxProofID bounds jti, in bytes.
const maxProofID = 256

// about checks that the proof is for this request, token and moment (RFC 9449 section 4.3). It answers the proof's id and how
// long the proof could be used.
func (d DPoP) about(p jose.Proof, r Request, token string, now time.Time) (id string, left time.Duration, err error) {
	text := func(name string) string {
		s, _ := p.Claims[name].(string)
		return s
	}
	hash := sha256.Sum256([]byte(token))
	seconds, dated := p.Claims["iat"].(float64)
	if !dated || seconds < 0 || seconds > maxSeconds {
		return "", 0, errors.New("no iat")
	}
	issued := time.UnixMilli(int64(seconds * 1000))
	id = text("jti")
	switch {
	case id == "" || len(id) > maxProofID:
		return "", 0, errors.New("no jti, or a long one")
	case text("htm") != r.Method:
		return "", 0, errors.New("for another method")
	case !d.names(text("htu"), r.Path):
		return "", 0, errors.New("for another URL")
	case text("ath") != base64.RawURLEncoding.EncodeToString(hash[:]):
		return "", 0, errors.New("for another token")
	case issued.Before(now.Add(-d.Window)) || issued.After(now.Add(d.Window)):
		return "", 0, errors.New("too old, or from the future")
	}
	return id, issued.Add(d.Window).Sub(now), nil
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// names reports whether htu is the URL of the path at one of the route's origins, whatever its query and fragment are, and
// however its host and escapes are written (RFC 9449 section 4.3, RFC 3986 section 6.2).
func (d DPoP) names(htu, path string) bool {
	u, err := url.Parse(htu)
	if err != nil || u.User != nil || u.Opaque != "" || u.Host == "" {
		return false
	}
	host := strings.ToLower(u.Host)
	if port := (map[string]string{"https": ":443", "http": ":80"})[u.Scheme]; port != "" {
		host = strings.TrimSuffix(host, port)
	}
	if !slices.Contains(d.Origins, u.Scheme+"://"+host) {
		return false
	}
	named := u.EscapedPath()
	if named == "" {
		named = "/"
	}
	if !canonical(named) {
		return false
	}
	one, err := url.PathUnescape(named)
	if err != nil {
		return false
	}
	other, err := url.PathUnescape(path)
	return err == nil && one == other
}

// dpopChallenge is the challenge of RFC 9449 section 7.1, without an error.
func (g *Guard) dpopChallenge() string {
	return `DPoP realm="gatehouse", algs="` + strings.Join(g.cfg.DPoP.Algorithms, " ") + `"`
}
