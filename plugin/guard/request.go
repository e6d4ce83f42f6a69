package guard

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/requestline"
)

// Request is what the gateway tells of a request.
type Request struct {
	ID               string // the gateway's own, the same when an event is run again; "" where it gives none
	Method           string
	Path             string // as the client sent it, without the query
	Query            string
	UpstreamPath     string // what the upstream will get; "" where it is Path
	Host             string
	Route            string              // the gateway's name of the route
	Header           map[string][]string // names in lower case, every value
	HeadersTruncated bool                // there were more than the gateway tells of
	Addr             netip.Addr          // the client's, by the gateway's own trust in its hops
	Body             Body                // nil where the gateway shows none
	Malformed        string              // why the gateway's words could not be read; answered with 400
}

var (
	errRequest = fault.New(fault.Invalid, "The request cannot be read.").Named("bad_request")
	errHeader  = fault.New(fault.Invalid, "A header is malformed or reserved.").Named("bad_header")
	errPath    = fault.New(fault.Invalid, "The path can be read in more than one way.").Named("bad_path")
	errTokens  = fault.New(fault.Invalid, "The request carries more than one token.").Named("two_tokens")
)

// path is what the policy decides on: what the upstream will get.
func (r Request) path() string {
	if r.UpstreamPath != "" {
		return r.UpstreamPath
	}
	return r.Path
}

// check refuses what two parsers could read differently (S39, S54, S55).
func (r Request) check() error {
	if r.Malformed != "" || r.Method == "" {
		return errRequest
	}
	if r.HeadersTruncated {
		return errHeader
	}
	for name, values := range r.Header {
		if strings.HasPrefix(strings.ReplaceAll(name, "_", "-"), "x-gatehouse-") && strings.Contains(name, "_") {
			return errHeader // some upstreams read X_Gatehouse_Subject as X-Gatehouse-Subject
		}
		for _, v := range values {
			if !plain(v) {
				return errHeader
			}
		}
	}
	if !canonical(r.Path) || !canonical(r.path()) {
		return errPath
	}
	return nil
}

// plain reports whether a header value is UTF-8 without control characters.
func plain(s string) bool { return requestline.Plain(s) }

// portable reports whether a header carries s unchanged: HTTP drops white space around a value (RFC 9110 section 5.5).
func portable(s string) bool { return plain(s) && strings.TrimSpace(s) == s }

// canonical reports whether every parser sees the same segments in the path.
func canonical(p string) bool { return requestline.Canonical(p) }

// Ambiguous answers the refusal of a path that two parsers could read differently, nil for any other; it is for those who look
// for a request's route before they ask a guard.
func Ambiguous(path string) error {
	if canonical(path) {
		return nil
	}
	return errPath
}

// header answers the only value of a header; ok is false for none, err for several that differ.
func (r Request) header(name string) (value string, ok bool) {
	values := r.Header[name]
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// action is the method that policies see: HEAD asks for what GET does.
func (r Request) action() string {
	if r.Method == http.MethodHead {
		return http.MethodGet
	}
	return r.Method
}
