package forwardauth

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// meter keeps the last decision.
type meter struct {
	guard.Meter
	last guard.Decision
}

func (m *meter) Decided(d *guard.Decision) { m.last = *d }

// S56: a proxy takes 2xx for a pass, so that nothing but a pass may be one.
func TestWhatIsNoPassIsNo2xx(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(guard.Request) guard.Verdict{
		"a panic":         func(guard.Request) guard.Verdict { panic("secret-canary") },
		"nothing":         func(guard.Request) guard.Verdict { return guard.Verdict{} },
		"a denial by 204": func(guard.Request) guard.Verdict { return guard.Verdict{Status: 204} },
	} {
		for _, proxy := range []Proxy{Traefik, NGINX} {
			h, g, log := handler(t, proxy, nil)
			g.answer = answer
			w := ask(h, "GET", "/check", "X-Forwarded-Method", "GET", "X-Forwarded-Host", "x", "X-Forwarded-Uri", "/things", "X-Forwarded-For", "192.0.2.1",
				"X-Original-Method", "GET", "X-Original-Host", "x", "X-Original-URI", "/things", "X-Real-IP", "192.0.2.1")
			if w.Code < 400 || strings.Contains(w.Body.String(), "canary") || log.Len() == 0 {
				t.Errorf("%s, %s: %d %s", proxy, name, w.Code, w.Body)
			}
		}
	}
}

func TestOtherProxiesThanNGINXGetTheGuardsAnswerAsItIs(t *testing.T) {
	t.Parallel()
	h, g, _ := handler(t, Traefik, nil)
	g.answer = func(guard.Request) guard.Verdict {
		return guard.Verdict{Status: 429, Header: map[string]string{"Retry-After": "7", "Content-Type": "application/problem+json"}, Body: []byte(`{"code":"rate_limited"}`)}
	}
	w := ask(h, "GET", "/check", "X-Forwarded-Method", "GET", "X-Forwarded-Host", "x", "X-Forwarded-Uri", "/things", "X-Forwarded-For", "192.0.2.1")
	if w.Code != 429 || w.Header().Get("Retry-After") != "7" || code(t, w) != "rate_limited" || w.Header().Get("X-Gatehouse-Refusal") != "" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestARefusalComesBackFromNGINXAsItWent(t *testing.T) {
	t.Parallel()
	h, g, log := handler(t, NGINX, nil)
	nginx := []string{"X-Original-Method", "GET", "X-Original-Host", "x", "X-Original-URI", "/things", "X-Real-IP", "192.0.2.1"}
	for _, v := range []guard.Verdict{
		{Status: 401, Header: map[string]string{"Www-Authenticate": "Bearer"}, Body: []byte(`{"code":"token_missing"}`)},
		{Status: 503, Header: map[string]string{"Retry-After": "1"}, Body: []byte("\x00\xff\r\n")},
		{Status: 303, Header: map[string]string{"Location": "/login"}},
	} {
		g.answer = func(guard.Request) guard.Verdict { return v }
		w := ask(h, "GET", "/check", nginx...)
		if want := map[bool]int{true: 401, false: 403}[v.Status == 401]; w.Code != want {
			t.Errorf("%d became %d", v.Status, w.Code)
		}
		back := ask(h, "GET", "/refusal", "X-Gatehouse-Refusal", w.Header().Get("X-Gatehouse-Refusal"))
		if back.Code != v.Status || back.Body.String() != string(v.Body) {
			t.Errorf("%d came back as %d %q", v.Status, back.Code, back.Body)
		}
		for name, value := range v.Header {
			if back.Header().Get(name) != value {
				t.Errorf("%d came back with %v", v.Status, back.Header())
			}
		}
	}
	g.answer = func(guard.Request) guard.Verdict {
		return guard.Verdict{Status: 429, Body: bytes.Repeat([]byte("x"), maxRefusal)}
	}
	w := ask(h, "GET", "/check", nginx...)
	if back := ask(h, "GET", "/refusal", "X-Gatehouse-Refusal", w.Header().Get("X-Gatehouse-Refusal")); w.Code != 403 || back.Code != 429 || back.Body.Len() != 0 {
		t.Errorf("too large: %d, then %d with %d bytes", w.Code, back.Code, back.Body.Len())
	}
	if !strings.Contains(log.String(), "refusal goes without its body") {
		t.Errorf("logged %s", log)
	}
	for _, forged := range []string{"", "x", "eyJzIjoyMDB9" /* 200 */, "eyJzIjo0MDMsImgiOnsiWC1BY2NlbC1SZWRpcmVjdCI6Ii94In19" /* X-Accel-Redirect */} {
		if back := ask(h, "GET", "/refusal", "X-Gatehouse-Refusal", forged); back.Code != 403 || code(t, back) != "forbidden" || back.Header().Get("X-Accel-Redirect") != "" {
			t.Errorf("%q: %d %v", forged, back.Code, back.Header())
		}
	}
}

// FuzzRefusal: what comes back as a refusal is never a pass, whoever sends it.
func FuzzRefusal(f *testing.F) {
	good, err := pack(guard.Verdict{Status: 429, Header: map[string]string{"Retry-After": "1"}, Body: []byte("{}")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("eyJzIjoyMDB9")
	f.Fuzz(func(t *testing.T, packed string) {
		v, err := unpack(packed)
		if err != nil {
			return
		}
		if v.Status < 300 || v.Status > 599 {
			t.Fatalf("status %d", v.Status)
		}
		again, err := pack(v)
		if err != nil {
			return // larger than what it came from: escapes differ
		}
		if back, err := unpack(again); err != nil || back.Status != v.Status || string(back.Body) != string(v.Body) {
			t.Fatalf("%+v came back as %+v, %v", v, back, err)
		}
	})
}
