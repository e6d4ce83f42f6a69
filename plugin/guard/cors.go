package guard

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CORS says which other sites' pages may use a route (the CORS protocol of the Fetch standard).
type CORS struct {
	Origins     []string // none: the edge says nothing of CORS; "*" alone: any, without credentials
	Methods     []string
	Headers     []string // that pages may send
	Expose      []string // that pages may read, beside the edge's own
	Credentials bool
	MaxAge      time.Duration
	// Upstream passes preflights on to an upstream that answers them itself, and its own answers too; the edge then adds
	// headers to its own errors only.
	Upstream bool
}

func (c Config) validateCORS(wrong reject) {
	if len(c.CORS.Origins) == 0 {
		if c.CORS.Credentials {
			wrong("cors.origins", "at least one is needed for cors.credentials")
		}
		return
	}
	if slices.Contains(c.CORS.Origins, "*") {
		if c.CORS.Credentials {
			wrong("cors.origins", "* and cors.credentials exclude each other: every site could act for its visitors")
		}
		if len(c.CORS.Origins) > 1 {
			wrong("cors.origins", "expected * alone, or origins")
		}
	} else {
		validateOrigins(wrong, "cors.origins", c.CORS.Origins)
	}
	for path, names := range map[string][]string{"cors.methods": c.CORS.Methods, "cors.headers": c.CORS.Headers, "cors.expose": c.CORS.Expose} {
		if slices.ContainsFunc(names, func(n string) bool { return !isToken(n) }) {
			wrong(path, "expected names of letters, digits, - and _")
		}
	}
	if c.CORS.MaxAge < 0 {
		wrong("cors.max_age_seconds", "expected a time of zero or more")
	}
}

// corsRule is a route's CORS, made ready; nil where it has none.
type corsRule struct {
	CORS
	any                              bool
	methods, headers, expose, maxAge string
}

func (c Config) corsRule() *corsRule {
	if len(c.CORS.Origins) == 0 {
		return nil
	}
	headers := slices.Clone(c.CORS.Headers)
	expose := append([]string{"X-Gatehouse-Decision", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"}, c.CORS.Expose...)
	if c.Challenge.on() {
		headers = append(headers, "X-Gatehouse-Challenge")
		if c.Challenge.Clearance.TTL > 0 && c.Challenge.Clearance.By.header() {
			headers, expose = append(headers, clearanceHeader), append(expose, clearanceHeader)
		}
	}
	if c.DPoP.on() {
		headers = append(headers, "DPoP")
	}
	if c.DPoP.Nonce.Every > 0 {
		expose = append(expose, nonceHeader)
	}
	return &corsRule{
		CORS: c.CORS, any: slices.Contains(c.CORS.Origins, "*"), methods: strings.Join(c.CORS.Methods, ", "), headers: strings.Join(headers, ", "),
		expose: strings.Join(expose, ", "), maxAge: strconv.Itoa(int(c.CORS.MaxAge / time.Second)),
	}
}

// origin answers the origin of the page that asks, if it is one of those allowed.
func (c *corsRule) origin(r Request) (string, bool) {
	values := r.Header["origin"]
	if len(values) != 1 || !c.any && !slices.Contains(c.Origins, values[0]) {
		return "", false
	}
	if c.any {
		return "*", true
	}
	return values[0], true
}

// mark lets the page that asked read the answer: the edge's own, and the upstream's unless it does so itself. An answer for one
// origin must not be taken from a cache for another.
func (c *corsRule) mark(r Request, v *Verdict) {
	if v.Forward && c.Upstream {
		return
	}
	if v.Forward && v.Respond == nil {
		v.Respond = map[string]string{}
	}
	header := v.Header
	if v.Forward {
		header = v.Respond
	}
	if !c.any {
		header["Vary"] = strings.Join(slices.DeleteFunc([]string{header["Vary"], "Origin"}, func(s string) bool { return s == "" }), ", ")
	}
	origin, ok := c.origin(r)
	if !ok {
		return
	}
	header["Access-Control-Allow-Origin"] = origin
	if c.Credentials {
		header["Access-Control-Allow-Credentials"] = "true"
	}
	if v.Status != http.StatusNoContent {
		header["Access-Control-Expose-Headers"] = c.expose
	}
}

// preflight ends the way of a preflight of an allowed origin before anybody is asked for a token: browsers send none with it.
// What bears a token, or comes from elsewhere, goes the whole way.
func (g *Guard) preflight(ctx context.Context, s *state) error {
	c := g.cors
	if c == nil || s.Method != http.MethodOptions || len(s.Header["access-control-request-method"]) != 1 || s.shown.token != "" || moreThanPreflight(s.Request) {
		return nil
	}
	if _, ok := c.origin(s.Request); !ok {
		return nil
	}
	s.preflighted = true
	if c.Upstream { // it costs the upstream something
		return g.take(ctx, s, g.limitKeys(s, func(r *limitRule) bool { return !r.who }))
	}
	return nil
}

// moreThanPreflight reports whether a request bears what no browser puts into a preflight and an upstream could act on:
// credentials, a body, or another method in disguise.
func moreThanPreflight(r Request) bool {
	for _, name := range []string{"authorization", "transfer-encoding", "x-http-method-override", "x-http-method", "x-method-override"} {
		if len(r.Header[name]) > 0 {
			return true
		}
	}
	length, given := r.header("content-length")
	return given && length != "0"
}

// permit answers a preflight. What the page may not do is not listed, and its browser does not do it.
func (g *Guard) permit(s *state) Verdict {
	return Verdict{Status: http.StatusNoContent, Decision: s.decision, Header: map[string]string{
		"Access-Control-Allow-Methods": g.cors.methods, "Access-Control-Allow-Headers": g.cors.headers, "Access-Control-Max-Age": g.cors.maxAge,
		"X-Gatehouse-Decision": s.decision.ID,
	}}
}
