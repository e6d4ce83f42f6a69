package guard

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

var errObligation = fault.New(fault.Internal, "").Named("obligation_unmet")

// maxObliged bounds one header that a decision sets, in bytes.
const maxObliged = 4 << 10

// Headers that no decision may set: identity, who connects, and what frames a message are not the policy's. A name that ends
// in a dash stands for all that begin with it.
var (
	upstreamReserved = []string{
		"authorization", "connection", "content-", "cookie", "expect", "forwarded", "host", "keep-alive", "proxy-", "te", "traceparent", "tracestate",
		"trailer", "transfer-", "upgrade", "via", "x-forwarded-", "x-gatehouse-", "x-real-ip",
	}
	responseReserved = []string{
		"access-control-", "connection", "content-encoding", "content-length", "content-type", "keep-alive", "location", "proxy-", "ratelimit", "ratelimit-",
		"retry-after", "set-cookie", "te", "trailer", "transfer-", "upgrade", "www-authenticate", "x-gatehouse-",
	}
)

// reserved answers why a decision may not set the header, or "". An underscore is refused, for some servers read it as a dash.
func reserved(name string, not []string) string {
	if !isToken(name) || strings.Contains(name, "_") {
		return "expected a header name of letters, digits and -"
	}
	name = strings.ToLower(name)
	if slices.ContainsFunc(not, func(r string) bool { return name == r || (strings.HasSuffix(r, "-") && strings.HasPrefix(name, r)) }) {
		return "is not for a decision to set"
	}
	return ""
}

// oblige does what an allowance asks for. What it cannot do refuses the request: the policy allowed it on that condition. So does
// what an earlier allowance, of another object, wants otherwise.
func (g *Guard) oblige(s *state, about *authzen.ResponseContext) error {
	if about == nil {
		return nil
	}
	for name, v := range about.Obligations {
		headers, ok := v.(map[string]any)
		if !ok {
			return errObligation.Because(fmt.Errorf("%q is no object", name))
		}
		var err error
		switch name {
		case authzen.UpstreamHeaders:
			err = obliged(headers, g.upstreamHeaders, s.upstream, s.toUpstream)
		case authzen.ResponseHeaders:
			err = obliged(headers, g.responseHeaders, s.response, s.respond)
		default:
			err = fmt.Errorf("%q is not known", name)
		}
		if err != nil {
			return errObligation.Because(err)
		}
	}
	return nil
}

func obliged(headers map[string]any, allowed []string, already map[string]string, set func(name, value string)) error {
	for name, v := range headers {
		canonical := http.CanonicalHeaderKey(name)
		if !slices.Contains(allowed, canonical) {
			return fmt.Errorf("header %q is not on the route's list", name)
		}
		value, ok := v.(string)
		if !ok || !portable(value) || len(value) > maxObliged {
			return fmt.Errorf("header %q: the value is no text that a header can carry", name)
		}
		if other, given := already[canonical]; given && other != value {
			return fmt.Errorf("header %q: two decisions want two values", name)
		}
		set(canonical, value)
	}
	return nil
}

func canonicalNames(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = http.CanonicalHeaderKey(n)
	}
	return out
}
