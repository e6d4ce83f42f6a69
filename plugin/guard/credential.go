package guard

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Cookie names a cookie that may carry the token, for browsers.
type Cookie struct {
	Name string // "" for none
	// Keep lets the upstream see the cookie; else it is taken out of the request, whoever it stands for.
	Keep bool
	// Origins whose pages may make unsafe requests with the cookie, beside those that the browser calls same-origin.
	Origins []string
}

func (c Config) validateCookie(wrong reject) {
	if c.Cookie.Name == "" {
		if len(c.Cookie.Origins) > 0 {
			wrong("token_cookie.origins", "are of no use without token_cookie.name")
		}
		return
	}
	if !isToken(strings.ReplaceAll(c.Cookie.Name, ".", "")) {
		wrong("token_cookie.name", "expected letters, digits, -, _ and .")
	}
	if c.Identify == None {
		wrong("token_cookie.name", "needs identify")
	}
	validateOrigins(wrong, "token_cookie.origins", c.Cookie.Origins)
}

// credential is the token of a request and how it came.
type credential struct {
	token  string
	dpop   bool // by the scheme DPoP (RFC 9449 section 7.1), not Bearer
	cookie bool
}

// credential finds the one token of a request. Where a cookie may carry it, an Authorization header beside the cookie is
// refused unless both say the same: an upstream might believe the other (S39).
func (g *Guard) credential(r Request) (credential, error) {
	c, err := r.authorization()
	if err != nil || g.cfg.Cookie.Name == "" || g.cfg.Identify == None {
		return c, err
	}
	token, err := cookieToken(r.Header["cookie"], g.cfg.Cookie.Name)
	switch {
	case err != nil:
		return credential{}, err
	case token == "":
		return c, nil
	case len(r.Header["authorization"]) == 0:
		return credential{token: token, cookie: true}, nil
	case token != c.token:
		return credential{}, errTokens
	}
	return c, nil
}

// authorization finds the one token of the Authorization header (RFC 6750 section 2.1, RFC 9449 section 7.1). Several such
// headers are refused even where they are equal: another parser may join them.
func (r Request) authorization() (credential, error) {
	values := r.Header["authorization"]
	switch len(values) {
	case 0:
		return credential{}, nil
	case 1:
	default:
		return credential{}, errTokens
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	dpop := strings.EqualFold(scheme, "DPoP")
	if token == "" || !dpop && !strings.EqualFold(scheme, "Bearer") {
		return credential{}, nil
	}
	if strings.ContainsAny(token, ", \t") {
		return credential{}, errTokens
	}
	return credential{token: token, dpop: dpop}, nil
}

// cookieToken answers the value of the cookie (RFC 6265 section 4.2.1). Two of that name are refused even where they are equal.
func cookieToken(headers []string, name string) (token string, err error) {
	seen := 0
	for pair := range cookies(headers) {
		if n, v, _ := strings.Cut(pair, "="); strings.TrimSpace(n) == name {
			token = strings.TrimSpace(v)
			seen++
		}
	}
	if seen > 1 {
		return "", errTokens
	}
	return token, nil
}

// cookies ranges over the pairs of all Cookie headers; HTTP/2 may send several (RFC 9113 section 8.2.3).
func cookies(headers []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, h := range headers {
			for pair := range strings.SplitSeq(h, ";") {
				if pair = strings.TrimSpace(pair); pair != "" && !yield(pair) {
					return
				}
			}
		}
	}
}

// withoutToken is the Cookie header without the one that carries the token; changed is false where there is none.
func withoutToken(headers []string, name string) (rest string, changed bool) {
	var kept []string
	for pair := range cookies(headers) {
		if n, _, _ := strings.Cut(pair, "="); strings.TrimSpace(n) == name {
			changed = true
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "; "), changed
}

var errCrossSite = fault.New(fault.Forbidden, "A request that changes something by a cookie must come from a page of this site.").Named("same_origin_unproved")

// sameOrigin refuses an unsafe request by a cookie unless the browser says that the site's own page, or one of an origin
// that the configuration names, has made it: browsers send cookies whoever asks (S28). Neither header can be set by a page.
func (g *Guard) sameOrigin(r Request) error {
	if safe(r) {
		return nil
	}
	if site := r.Header["sec-fetch-site"]; len(site) == 1 && site[0] == "same-origin" {
		return nil
	}
	if origin := r.Header["origin"]; len(origin) == 1 && slices.Contains(g.cfg.Cookie.Origins, origin[0]) {
		return nil
	}
	return errCrossSite
}

// safe reports whether the request is meant to change nothing (RFC 9110 section 9.2.1). A GET that asks for a WebSocket does not
// count: what goes over it is not known.
func safe(r Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return len(r.Header["upgrade"]) == 0
	}
	return false
}
