package guard

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Login says where a browser is sent that shows no good token.
type Login struct {
	URL       string // https, or a path of the same site; "" to answer a problem as to every other client
	Parameter string // names the query's parameter that holds where the browser wanted to go
	Origin    string // put before that path, where the log-in is on another site; "" for the path alone
}

func (c Config) validateLogin(wrong reject) {
	l := c.Login
	if l.URL == "" {
		return
	}
	u, err := url.Parse(l.URL)
	switch {
	case err != nil || !plain(l.URL) || u.Fragment != "" || u.User != nil || u.Opaque != "" || !l.local() && !isOrigin(u.Scheme+"://"+u.Host):
		wrong("login.url", "expected an https URL, or a path that begins with one /")
	case u.Scheme == "http" && u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1":
		wrong("login.url", "expected https")
	case l.Parameter != "" && u.Query().Has(l.Parameter):
		wrong("login.return_parameter", "is in login.url already")
	}
	if l.Parameter != "" && !isToken(l.Parameter) {
		wrong("login.return_parameter", "expected letters, digits, - and _")
	}
	if l.Origin != "" && !isOrigin(l.Origin) {
		wrong("login.return_origin", "expected an origin such as https://app.example.com")
	}
	if c.Identify == None {
		wrong("login.url", "needs identify")
	}
}

// local reports whether the URL is a path of the same site. Two slashes, or a slash and a backslash, begin another host.
func (l Login) local() bool {
	return strings.HasPrefix(l.URL, "/") && !strings.HasPrefix(l.URL, "//") && !strings.Contains(l.URL, `\`)
}

// maxReturn bounds where the browser wanted to go, in bytes; beyond it only the path is kept.
const maxReturn = 2 << 10

// redirects reports whether the denial sends the browser to the log-in: a page that a person opens and has no good token for.
// What a script fetches gets a problem, for it could make nothing of a log-in page.
func (g *Guard) redirects(s *state, f *fault.Error) bool {
	if g.cfg.Login.URL == "" || f.Code != fault.Unauthenticated || s.Method != http.MethodGet || f.Reason == errStepUp.Reason {
		return false
	}
	if g.cfg.Login.local() {
		if path, _, _ := strings.Cut(g.cfg.Login.URL, "?"); path == s.Path {
			return false // it would go round in circles
		}
	}
	return s.navigates()
}

// navigates reports whether a person's browser opens a page, as far as its headers tell.
func (r Request) navigates() bool {
	if mode := r.Header["sec-fetch-mode"]; len(mode) > 0 {
		return mode[0] == "navigate"
	}
	for _, accept := range r.Header["accept"] {
		if strings.Contains(strings.ToLower(accept), "text/html") {
			return true
		}
	}
	return false
}

// login sends the browser to the log-in. Both places are the configuration's: the request gives the path alone, which has been
// found to be one of this site (S51).
func (g *Guard) login(s *state, f *fault.Error) Verdict {
	s.decision.Code = f.Reason
	to := g.cfg.Login.URL
	if name := g.cfg.Login.Parameter; name != "" {
		wanted := s.Path
		if s.Query != "" && len(s.Path)+len(s.Query) < maxReturn {
			wanted += "?" + s.Query
		}
		if len(wanted) < maxReturn {
			join := "?"
			if strings.Contains(to, "?") {
				join = "&"
			}
			to += join + name + "=" + url.QueryEscape(g.cfg.Login.Origin+wanted)
		}
	}
	return Verdict{Status: http.StatusSeeOther, Decision: s.decision, Header: map[string]string{
		"Location": to, "Cache-Control": "no-store", principal.HeaderDecision: s.decision.ID,
	}}
}
