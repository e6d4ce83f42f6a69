package guard_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

const nonceSecret = "nonce-canary-0123456789abcdef0123"

// nonced is an edge that asks for nonces of a minute, at a time that at tells.
func nonced(t *testing.T, h holder, u *used, at *time.Time, secret telemetry.Secret) *guard.Guard {
	t.Helper()
	return build(t, bound(h.thumbprint), func(cfg *guard.Config) {
		cfg.DPoP = guard.DPoP{
			Mode: guard.DPoPRequired, Origins: []string{"https://api.test"}, Algorithms: []string{"ES256"}, Window: 5 * time.Minute,
			Nonce: guard.DPoPNonce{Every: time.Minute, Secret: secret},
		}
		cfg.CORS = guard.CORS{Origins: []string{"https://app.test"}, Methods: []string{"GET"}}
	}, func(p *guard.Parts) { p.Proofs, p.Now = u, func() time.Time { return *at } })
}

// S49: without a nonce of ours a proof is refused with one to use (RFC 9449 section 9), and is not used up; with it the request passes,
// at every edge, until the nonce is over. A client learns the next one before that.
func TestAProofBearsTheNonceThatItIsAskedFor(t *testing.T) {
	t.Parallel()
	h, u, at := newHolder(t), &used{by: map[string]string{}}, now
	here, there, stranger := nonced(t, h, u, &at, nonceSecret), nonced(t, h, u, &at, nonceSecret), nonced(t, h, u, &at, "another"+nonceSecret)
	asks := func(g *guard.Guard, nonce any) guard.Verdict {
		r := shows("DPoP", h.proof(t, "", map[string]any{"nonce": nonce, "iat": at.Unix()}))
		r.Header["origin"] = []string{"https://app.test"}
		return g.Check(t.Context(), r)
	}
	v := asks(here, nil)
	nonce := v.Header["DPoP-Nonce"]
	if v.Status != 401 || problem(t, v).Code != "use_dpop_nonce" || len(nonce) != 22 || v.Header["Cache-Control"] != "no-store" {
		t.Fatalf("status %d: %v %s", v.Status, v.Header, v.Body)
	}
	if got := v.Header["WWW-Authenticate"]; got != `DPoP realm="gatehouse", algs="ES256", error="use_dpop_nonce"` {
		t.Errorf("WWW-Authenticate %q", got)
	}
	if !strings.Contains(v.Header["Access-Control-Expose-Headers"], "DPoP-Nonce") {
		t.Errorf("a page cannot read it: %q", v.Header["Access-Control-Expose-Headers"])
	}
	if len(u.by) != 0 {
		t.Error("the proof counts as used")
	}
	for name, g := range map[string]*guard.Guard{"this edge": here, "another edge": there} {
		if v := asks(g, nonce); !v.Forward || v.Respond["DPoP-Nonce"] != "" {
			t.Errorf("%s: %s, a further nonce %q", name, v.Body, v.Respond["DPoP-Nonce"])
		}
	}
	for what, bad := range map[string]any{"empty": "", "made up": strings.Repeat("A", 22), "a number": 1, "long": strings.Repeat("A", 1000), "cut": nonce[:21]} {
		if v := asks(here, bad); v.Status != 401 || v.Header["DPoP-Nonce"] != nonce {
			t.Errorf("%s: status %d, %q", what, v.Status, v.Header["DPoP-Nonce"])
		}
	}
	if v := asks(stranger, nonce); v.Status != 401 || v.Header["DPoP-Nonce"] == nonce {
		t.Errorf("with another secret: status %d", v.Status)
	}
	at = now.Add(time.Minute)
	v = asks(here, nonce)
	next := v.Respond["DPoP-Nonce"]
	if !v.Forward || len(next) != 22 || next == nonce {
		t.Errorf("the minute after: %s, next %q", v.Body, next)
	}
	at = now.Add(2 * time.Minute)
	if v := asks(here, nonce); v.Status != 401 || v.Header["DPoP-Nonce"] == nonce || v.Header["DPoP-Nonce"] == next {
		t.Errorf("two minutes after: status %d, %v", v.Status, v.Header)
	}
	at = now
	if v := asks(there, next); !v.Forward {
		t.Errorf("at an edge whose clock is behind: %s", v.Body)
	}
	at = now.Add(-time.Minute)
	if v := asks(there, next); v.Status != 401 {
		t.Errorf("long before its time: status %d", v.Status)
	}
}

// A proof that is wrong in another way learns no nonce: it would not help.
func TestABadProofIsAskedForNoNonce(t *testing.T) {
	t.Parallel()
	h, at := newHolder(t), now
	g := nonced(t, h, &used{by: map[string]string{}}, &at, nonceSecret)
	for what, proof := range map[string]string{"another's": newHolder(t).proof(t, "", nil), "for another method": h.proof(t, "", map[string]any{"htm": "POST"})} {
		if v := g.Check(t.Context(), shows("DPoP", proof)); problem(t, v).Code != "dpop_proof_invalid" || v.Header["DPoP-Nonce"] != "" {
			t.Errorf("%s: %s", what, v.Body)
		}
	}
}

func TestNoncesNeedASecret(t *testing.T) {
	t.Parallel()
	for want, n := range map[string]guard.DPoPNonce{
		"config.dpop.nonce_secret": {Every: time.Minute, Secret: "canary"}, "config.dpop.nonce_seconds": {Every: 2 * time.Hour, Secret: nonceSecret},
	} {
		c := config()
		c.DPoP = guard.DPoP{Mode: guard.DPoPOptional, Origins: []string{"https://api.test"}, Algorithms: []string{"ES256"}, Window: time.Minute, Nonce: n}
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+": ") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v", err)
		}
	}
}
