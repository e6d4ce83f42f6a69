package guard_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// holder is a client with a key.
type holder struct {
	key             *ecdsa.PrivateKey
	jwk, thumbprint string
}

func newHolder(t testing.TB) holder {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	members := `"crv":"P-256","kty":"EC","x":"` + b64(point[1:33]) + `","y":"` + b64(point[33:]) + `"`
	sum := sha256.Sum256([]byte("{" + members + "}")) // RFC 7638 section 3
	return holder{k, "{" + members + "}", b64(sum[:])}
}

// proof is for a GET of https://api.test/orders/o1 now with the token "token-canary"; changes set claims, or take those that are nil.
func (h holder) proof(t testing.TB, header string, changes map[string]any) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	ath := sha256.Sum256([]byte("token-canary"))
	c := map[string]any{"jti": rand.Text(), "htm": "GET", "htu": "https://api.test/orders/o1", "iat": now.Unix(), "ath": b64(ath[:])}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if header == "" {
		header = `{"typ":"dpop+jwt","alg":"ES256","jwk":` + h.jwk + `}`
	}
	input := b64([]byte(header)) + "." + b64(payload)
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, h.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// used is a memory of proofs.
type used struct {
	mu   sync.Mutex
	by   map[string]string
	live time.Duration
	err  error
}

func (u *used) Once(_ context.Context, thing, id string, live time.Duration) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.live = live
	by, seen := u.by[thing]
	if !seen {
		u.by[thing] = id
	}
	return !seen || id != "" && by == id, u.err
}

func dpop(t testing.TB, w *world, u *used, change func(*guard.Config)) *guard.Guard {
	t.Helper()
	if u == nil {
		u = &used{by: map[string]string{}}
	}
	return build(t, w, func(cfg *guard.Config) {
		cfg.DPoP = guard.DPoP{
			Mode: guard.DPoPOptional, Origins: []string{"https://api.test", "https://b.test:8443"}, Algorithms: []string{jose.ES256, jose.EdDSA}, Window: time.Minute,
		}
		if change != nil {
			change(cfg)
		}
	}, func(p *guard.Parts) { p.Proofs = u })
}

// bound is a world in which every token is bound to the key of that thumbprint.
func bound(thumbprint string) *world {
	w := calm()
	w.verify = func(string) (principal.Principal, error) {
		return principal.Principal{Subject: "u1", Issuer: "i", Thumbprint: thumbprint, ExpiresAt: now.Add(time.Minute)}, nil
	}
	return w
}

func shows(scheme string, proofs ...string) guard.Request {
	return request(func(r *guard.Request) {
		r.Header["authorization"] = []string{scheme + " token-canary"}
		if len(proofs) > 0 {
			r.Header["dpop"] = proofs
		}
	})
}

// S49: a bound token passes with a proof of its key that is for this request, this token and this moment, once; the URL may be
// written in any way that means the same.
func TestABoundTokenPassesWithItsProof(t *testing.T) {
	t.Parallel()
	h := newHolder(t)
	u := &used{by: map[string]string{}}
	g := dpop(t, bound(h.thumbprint), u, nil)
	for what, c := range map[string]map[string]any{
		"plain": nil, "query": {"htu": "https://api.test/orders/o1?x=1#y"}, "host's case": {"htu": "HTTPS://API.test/orders/o1"}, "own port": {"htu": "https://api.test:443/orders/o1"},
		"escapes": {"htu": "https://api.test/orders/%6f1"}, "another origin": {"htu": "https://b.test:8443/orders/o1"},
		"a minute old": {"iat": now.Add(-time.Minute).Unix()}, "a minute early": {"iat": now.Add(time.Minute).Unix()}, "with fractions": {"iat": float64(now.UnixMilli()) / 1000},
	} {
		if v := g.Check(t.Context(), shows("DPoP", h.proof(t, "", c))); !v.Forward || v.SetHeaders["X-Gatehouse-Subject"] != "u1" {
			t.Errorf("%s: %s", what, v.Body)
		}
	}
	if v := g.Check(t.Context(), shows("dpop", h.proof(t, "", map[string]any{"iat": now.Add(time.Minute).Unix()}))); !v.Forward || u.live != 2*time.Minute {
		t.Errorf("a proof from the future is remembered for %v: %s", u.live, v.Body)
	}
	once := h.proof(t, "", nil)
	for i, code := range []string{"allowed", "dpop_proof_invalid"} {
		if v := g.Check(t.Context(), shows("DPoP", once)); v.Decision.Code != code {
			t.Errorf("use %d: %s, want %s", i, v.Decision.Code, code)
		}
	}
	again := shows("DPoP", h.proof(t, "", nil)) // a gateway may run one request twice
	for i, c := range []struct{ id, code string }{{"r1", "allowed"}, {"r1", "allowed"}, {"r2", "dpop_proof_invalid"}} {
		again.ID = c.id
		if v := g.Check(t.Context(), again); v.Decision.Code != c.code {
			t.Errorf("run %d, as %s: %s, want %s", i, c.id, v.Decision.Code, c.code)
		}
	}
}

// S49: whatever is wrong with a proof refuses the request, and costs Redis nothing.
func TestABadProofIsRefused(t *testing.T) {
	t.Parallel()
	h, thief := newHolder(t), newHolder(t)
	header := func(old, new string) string {
		return strings.Replace(`{"typ":"dpop+jwt","alg":"ES256","jwk":`+h.jwk+`}`, old, new, 1)
	}
	claim := func(name string, v any) string { return h.proof(t, "", map[string]any{name: v}) }
	for what, proofs := range map[string][]string{
		"none":              nil,
		"empty":             {""},
		"two":               {h.proof(t, "", nil), h.proof(t, "", nil)},
		"another's key":     {thief.proof(t, "", nil)},
		"another's proof":   {thief.proof(t, header("", ""), nil)},
		"another typ":       {h.proof(t, header("dpop+jwt", "at+jwt"), nil)},
		"none as algorithm": {h.proof(t, header("ES256", "none"), nil)},
		"HS256":             {h.proof(t, header("ES256", "HS256"), nil)},
		"not accepted":      {h.proof(t, header("ES256", "RS256"), nil)},
		"another method":    {claim("htm", "POST")},
		"method's case":     {claim("htm", "get")},
		"no method":         {claim("htm", nil)},
		"another path":      {claim("htu", "https://api.test/orders/o2")},
		"another host":      {claim("htu", "https://evil.test/orders/o1")},
		"another scheme":    {claim("htu", "http://api.test/orders/o1")},
		"another port":      {claim("htu", "https://api.test:8443/orders/o1")},
		"with a user":       {claim("htu", "https://u@api.test/orders/o1")},
		"a path alone":      {claim("htu", "/orders/o1")},
		"dots":              {claim("htu", "https://api.test/x/../orders/o1")},
		"no URL":            {claim("htu", nil)},
		"another token":     {claim("ath", "x")},
		"no token":          {claim("ath", nil)},
		"old":               {claim("iat", now.Add(-time.Minute-time.Second).Unix())},
		"from the future":   {claim("iat", now.Add(time.Minute+time.Second).Unix())},
		"no time":           {claim("iat", nil)},
		"time as text":      {claim("iat", "1772452800")},
		"a huge time":       {claim("iat", 1e300)},
		"no id":             {claim("jti", nil)},
		"a long id":         {claim("jti", strings.Repeat("a", 257))},
		"an id of numbers":  {claim("jti", 7)},
	} {
		u := &used{by: map[string]string{}}
		w := bound(h.thumbprint)
		v := dpop(t, w, u, nil).Check(t.Context(), shows("DPoP", proofs...))
		if v.Forward || v.Status != 401 || v.Decision.Code != "dpop_proof_invalid" || len(u.by) > 0 {
			t.Errorf("%s: %d %s, remembered %v", what, v.Status, v.Decision.Code, u.by)
		}
		if want := `Bearer realm="gatehouse", DPoP realm="gatehouse", algs="ES256 EdDSA", error="invalid_dpop_proof"`; v.Header["WWW-Authenticate"] != want {
			t.Errorf("%s: %s", what, v.Header["WWW-Authenticate"])
		}
		if line := w.log.String(); strings.Contains(line, "canary") || len(proofs) > 0 && proofs[0] != "" && strings.Contains(line, proofs[0]) { // S67
			t.Errorf("%s: log %s", what, line)
		}
	}
}

// S49, S56: which tokens a route takes, by which scheme, and what it says to those that it does not take.
func TestTheModeSaysWhichTokensPass(t *testing.T) {
	t.Parallel()
	h := newHolder(t)
	const bearer, proof = `Bearer realm="gatehouse"`, `DPoP realm="gatehouse", algs="ES256 EdDSA"`
	for _, c := range []struct {
		mode   guard.DPoPMode
		bound  bool
		scheme string // "" for no token
		code   string
		says   string
	}{
		{guard.DPoPOff, false, "Bearer", "allowed", ""},
		{guard.DPoPOff, true, "Bearer", "token_bound", bearer + `, error="invalid_token"`},
		{guard.DPoPOff, true, "DPoP", "token_missing", bearer},
		{guard.DPoPOptional, false, "Bearer", "allowed", ""},
		{guard.DPoPOptional, true, "Bearer", "token_bound", bearer + `, error="invalid_token", ` + proof},
		{guard.DPoPOptional, true, "DPoP", "allowed", ""},
		{guard.DPoPOptional, false, "DPoP", "token_unbound", bearer + ", " + proof + `, error="invalid_token"`},
		{guard.DPoPOptional, false, "", "token_missing", bearer + ", " + proof},
		{guard.DPoPRequired, false, "Bearer", "token_unbound", proof + `, error="invalid_token"`},
		{guard.DPoPRequired, true, "Bearer", "token_bound", proof + `, error="invalid_token"`},
		{guard.DPoPRequired, true, "DPoP", "allowed", ""},
		{guard.DPoPRequired, false, "", "token_missing", proof},
	} {
		thumbprint := ""
		if c.bound {
			thumbprint = h.thumbprint
		}
		r := shows(c.scheme, h.proof(t, "", nil))
		if c.scheme == "" {
			delete(r.Header, "authorization")
		}
		v := dpop(t, bound(thumbprint), nil, func(cfg *guard.Config) { cfg.DPoP.Mode = c.mode }).Check(t.Context(), r)
		if v.Decision.Code != c.code || v.Forward != (c.code == "allowed") || v.Header["WWW-Authenticate"] != c.says {
			t.Errorf("%+v: %s, %s", c, v.Decision.Code, v.Header["WWW-Authenticate"])
		}
	}
	u := &used{by: map[string]string{}, err: fault.New(fault.Unavailable, "x").Named("proofs_unavailable")}
	if v := dpop(t, bound(h.thumbprint), u, nil).Check(t.Context(), shows("DPoP", h.proof(t, "", nil))); v.Forward || v.Status != 503 || v.Decision.Code != "proofs_unavailable" {
		t.Errorf("where nobody knows whether it was used: %d %s", v.Status, v.Decision.Code)
	}
}

func TestAProofNeedsToBeConfiguredWhole(t *testing.T) {
	t.Parallel()
	good := guard.DPoP{Mode: guard.DPoPRequired, Origins: []string{"https://api.test"}, Algorithms: []string{jose.ES256}, Window: time.Minute}
	for path, change := range map[string]func(*guard.Config){
		"config.dpop.mode: expected":     func(c *guard.Config) { c.DPoP.Mode = "maybe" },
		"config.dpop.mode: needs":        func(c *guard.Config) { c.Identify = guard.None },
		"config.dpop.origins: at least":  func(c *guard.Config) { c.DPoP.Origins = nil },
		"config.dpop.origins[1]:":        func(c *guard.Config) { c.DPoP.Origins = []string{"https://api.test/"} },
		"config.dpop.algorithms: at":     func(c *guard.Config) { c.DPoP.Algorithms = nil },
		"config.dpop.algorithms: expect": func(c *guard.Config) { c.DPoP.Algorithms = []string{"HS256"} },
		"config.dpop.window_seconds:":    func(c *guard.Config) { c.DPoP.Window = time.Hour },
		"config.redis_url:":              func(c *guard.Config) { c.RedisURL = "" },
		"config.token_cookie.name:":      func(c *guard.Config) { c.Cookie.Name = "at" },
	} {
		c := config()
		c.DPoP = good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("no %q in: %v", path, err)
		}
	}
}

func FuzzProof(f *testing.F) {
	h := newHolder(f)
	f.Add(h.proof(f, "", nil))
	f.Add("a.b.c")
	g := dpop(f, bound("nobody's"), nil, nil)
	f.Fuzz(func(t *testing.T, proof string) {
		if v := g.Check(t.Context(), shows("DPoP", proof)); v.Forward || v.Status == 500 {
			t.Errorf("%q: %d", proof, v.Status)
		}
	})
}

func FuzzProofURL(f *testing.F) {
	h := newHolder(f)
	f.Add("https://api.test/orders/o1")
	f.Add("https://API.test:443/orders/%6f1?x")
	g := dpop(f, bound(h.thumbprint), nil, nil)
	f.Fuzz(func(t *testing.T, htu string) {
		v := g.Check(t.Context(), shows("DPoP", h.proof(t, "", map[string]any{"htu": htu})))
		lower := strings.ToLower(htu)
		if v.Forward && !strings.HasPrefix(lower, "https://api.test/") && !strings.HasPrefix(lower, "https://api.test:443/") && !strings.HasPrefix(lower, "https://b.test:8443/") {
			t.Errorf("%q passes", htu)
		}
		if v.Status == 500 {
			t.Errorf("%q: %s", htu, v.Body)
		}
	})
}
