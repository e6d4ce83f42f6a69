package guard

import (
	"net/http"
	"strings"

	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

// Asset answers the script or the style of the challenge page, or nil for all else. They are public and the same for all, so
// that any guarded route that takes their path serves them, and nothing of the way is asked about them.
func Asset(r *Request) *Verdict {
	if r.Malformed != "" || (r.Method != http.MethodGet && r.Method != http.MethodHead) || !strings.HasPrefix(r.Path, challenge.Assets) {
		return nil
	}
	body, kind := challenge.Asset(r.Path)
	if body == nil {
		return nil
	}
	if r.Method == http.MethodHead {
		body = nil
	}
	return &Verdict{Served: true, Status: http.StatusOK, Body: body, Header: map[string]string{
		"Content-Type": kind, "Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "cross-origin",
	}}
}

// wantsPage reports whether a person's browser navigates, and would keep the clearance that the page gets: then the answer is
// a page that solves the challenge, and not the problem document.
func (g *Guard) wantsPage(s *state) bool {
	ch := g.cfg.Challenge
	return ch.Page && ch.Clearance.TTL > 0 && ch.Clearance.By.cookie() && ch.Provider.Name.Shown() && (s.Method == http.MethodGet || s.Method == http.MethodHead) && s.navigates()
}

// challengePage answers the page and sets the headers that it needs; nil leaves header as it is.
func (g *Guard) challengePage(s *state, header map[string]string) []byte {
	accept, _ := s.header("accept-language")
	page, lang, err := challenge.Page(s.issued, accept, s.decision.TraceID)
	if err != nil {
		return nil
	}
	header["Content-Type"], header["Content-Language"] = "text/html; charset=utf-8", lang
	header["Content-Security-Policy"] = challenge.PagePolicy(g.cfg.Challenge.Provider.Name)
	header["Referrer-Policy"], header["Vary"] = "same-origin", "Accept, Accept-Language, Sec-Fetch-Mode"
	return page
}
