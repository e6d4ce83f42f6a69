package guard

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

const (
	clearanceCookie = "__Host-gatehouse-clearance"
	clearanceHeader = "X-Gatehouse-Clearance"
	onlyHeader      = "x-gatehouse-clearance-only" // solve, but do not go on: a page wants the clearance alone
	maxClearances   = 4                            // that one cookie holds, for as many actions and routes
)

// given answers the clearances that the request bears, the newest first.
func (g *Guard) given(s *state) []string {
	var all []string
	if g.cfg.Challenge.Clearance.By.header() {
		if token, ok := s.header(strings.ToLower(clearanceHeader)); ok {
			all = append(all, token)
		}
	}
	if g.cfg.Challenge.Clearance.By.cookie() {
		for _, line := range s.Header["cookie"] {
			for pair := range strings.SplitSeq(line, ";") {
				name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
				if name == clearanceCookie && len(all) < 2*maxClearances {
					all = append(all, strings.SplitN(value, ".", maxClearances+1)...)
				}
			}
		}
	}
	return all[:min(len(all), 2*maxClearances)]
}

// cleared reports whether the request bears a clearance for what it wants.
func (g *Guard) cleared(s *state, client challenge.Client) bool {
	if g.cfg.Challenge.Clearance.TTL <= 0 {
		return false
	}
	for _, token := range g.given(s) {
		if g.Clearances.Clears(token, client) {
			return true
		}
	}
	return false
}

// clear gives the client a clearance. Its cookie keeps the others that are not over, for other actions and routes.
func (g *Guard) clear(s *state, client challenge.Client) {
	how := g.cfg.Challenge.Clearance
	if how.TTL <= 0 {
		return
	}
	token := g.Clearances.Grant(client)
	if how.By.header() {
		s.respond(clearanceHeader, token)
	}
	if how.By.cookie() {
		all := []string{token}
		for _, other := range g.given(s) {
			if len(all) < maxClearances && g.Clearances.Unexpired(other) && !g.Clearances.Clears(other, client) {
				all = append(all, other)
			}
		}
		s.respond("Set-Cookie", fmt.Sprintf("%s=%s; Path=/; Max-Age=%d; Secure; HttpOnly; SameSite=Lax", clearanceCookie, strings.Join(all, "."), int(how.TTL.Seconds())))
	}
	if _, only := s.header(onlyHeader); only {
		// No 2xx: to a proxy that asks whether the request may pass, that would be a yes.
		s.served = &Verdict{Served: true, Status: http.StatusSeeOther, Header: map[string]string{"Cache-Control": "no-store", "Location": s.again()}}
	}
}

// again is what was asked for, on this very host.
func (r Request) again() string {
	if r.Query == "" || !plain(r.Query) {
		return r.Path
	}
	return r.Path + "?" + r.Query
}
