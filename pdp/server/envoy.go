package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/requestline"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// EnvoyOptions say how a request at Envoy reads as an access evaluation.
type EnvoyOptions struct {
	Resources []EnvoyResource // tried in their order; a path that none covers is refused, unless there are none at all
	// Claims names the verified claims of the caller's token among what Envoy's filters know, as "filter/key"; "" for none.
	Claims  string
	Headers []string // that obligations may set on the request or the answer, each beginning with "X-"

	// Document is a path such as "envoy/authz/allow", whose value decides in place of all this: it is asked with the input of
	// opa-envoy-plugin, and answers as that plug-in's documents do.
	Document string
}

// EnvoyResource names what a path stands for: {id} in a pattern is one segment.
type EnvoyResource struct{ Pattern, Type string }

// envoyDeadline bounds one check, far below what anybody waits.
const envoyDeadline = 5 * time.Second

var (
	errNotForwarded = fault.New(fault.Forbidden, "You may not do this.").Named("forbidden")
	errWeak         = fault.New(fault.Unauthenticated, "A stronger or fresher login is needed.").Named("insufficient_user_authentication")
	errUncovered    = fault.New(fault.Forbidden, "No rule covers this path.").Named("resource_unknown")
	errCheck        = fault.New(fault.Invalid, "The request cannot be read.").Named("bad_request")
	errTwoWays      = fault.New(fault.Invalid, "The path can be read in more than one way.").Named("bad_path")
	errObligation   = fault.New(fault.Internal, "").Named("obligation_unmet")

	// An unknown caller is a mistake of whoever runs Envoy, not of the client who gets to see this.
	errProxy = fault.New(fault.Unavailable, "No decision could be made.").Named("caller_unknown")
)

// envoyDoor answers Envoy.
type envoyDoor struct {
	*server
	resources      []envoyPattern
	filter, claims string
	headers        map[string]bool // by canonical name
	document       []string
}

// Envoy answers Envoy's ext_authz over gRPC by the same engine. Whatever goes wrong is a refusal in an answer of its own, not a failed
// call: Envoy lets a request pass where calls fail, if it is told to (failure_mode_allow).
func (s *Server) Envoy(opts EnvoyOptions) (http.Handler, error) {
	d := &envoyDoor{server: s.shared, headers: map[string]bool{}}
	var err error
	if opts.Document != "" {
		if len(opts.Resources) > 0 || opts.Claims != "" || len(opts.Headers) > 0 {
			return nil, errors.New("document: its input and its results are opa-envoy-plugin's, so that resources, claims and headers say nothing")
		}
		if d.document, err = dataPath(opts.Document); err != nil || len(d.document) == 0 {
			return nil, errors.New("document: must be a path such as envoy/authz/allow")
		}
	}
	if d.resources, err = envoyPatterns(opts.Resources); err != nil {
		return nil, err
	}
	if opts.Claims != "" {
		at := strings.LastIndexByte(opts.Claims, '/')
		if at <= 0 || at == len(opts.Claims)-1 {
			return nil, errors.New("claims: must be filter/key, as envoy.filters.http.jwt_authn/payload")
		}
		d.filter, d.claims = opts.Claims[:at], opts.Claims[at+1:]
	}
	for _, name := range opts.Headers {
		if !settable(name) {
			return nil, fmt.Errorf("headers: %q: must be a name that begins with X-, and not one that tells who or whence a request is", name)
		}
		d.headers[http.CanonicalHeaderKey(name)] = true
	}
	return web.Trace(web.Recover(d.Log, d)), nil
}

// settable reports whether a decision may be let to set a header: one of the operator's own.
func settable(name string) bool {
	n := strings.ToLower(name)
	if !strings.HasPrefix(n, "x-") || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return false
	}
	for _, not := range []string{"x-gatehouse-", "x-forwarded-", "x-envoy-", "x-real-ip", "x-request-id", "x-original-"} {
		if strings.HasPrefix(n, not) {
			return false
		}
	}
	return true
}

// ServeHTTP implements http.Handler.
func (d *envoyDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != extauthz.Path {
		problem(w, r, fault.New(fault.NotFound, "There is nothing at this path."))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), envoyDeadline)
	defer cancel()
	name, err := d.Callers.Identify(r)
	if err != nil { // before anything of its message is read
		d.Meter.Stranger()
		extauthz.Reply(w, d.refusal(ctx, "", nil, errProxy.Because(err)))
		return
	}
	most := uint32(extauthz.MaxMessage)
	if d.document != nil {
		most = extauthz.MaxWithBody
	}
	message, err := extauthz.ReceiveUpTo(w, r, most)
	if err != nil {
		d.Log.WarnContext(ctx, "call by Envoy failed", "error", err)
		return
	}
	if name != "" {
		ctx = context.WithValue(ctx, callerKey{}, name)
	}
	extauthz.Reply(w, d.check(ctx, message))
}

// check answers a CheckResponse.
func (d *envoyDoor) check(ctx context.Context, message []byte) []byte {
	if !d.gate.enter() {
		d.Meter.Shed(apiEnvoy)
		return d.refusal(ctx, "", nil, errOverloaded)
	}
	defer d.gate.leave()
	if d.document != nil {
		return d.checkDocument(ctx, message)
	}
	c, err := extauthz.Read(message)
	if err != nil {
		return d.refusal(ctx, "", nil, errCheck.Because(err))
	}
	if values := c.Header["traceparent"]; len(values) == 1 {
		if id, ok := web.ParseTraceparent(values[0]); ok {
			ctx = web.WithTraceID(ctx, id)
		}
	}
	req, err := d.evaluation(ctx, &c)
	if err != nil {
		return d.refusal(ctx, "", nil, err)
	}
	res, err := d.decideFor(ctx, apiEnvoy, req)
	about := res.Context
	if about == nil {
		about = &authzen.ResponseContext{}
	}
	switch {
	case err != nil:
		return d.refusal(ctx, about.DecisionID, nil, err)
	case !res.Decision && about.Need != nil:
		return d.refusal(ctx, about.DecisionID, about.Need, errWeak)
	case !res.Decision:
		return d.refusal(ctx, about.DecisionID, nil, errNotForwarded)
	}
	pass := extauthz.Pass{Set: identity(req.Subject, about.DecisionID), Respond: map[string]string{}}
	if err := d.oblige(&pass, about.Obligations); err != nil {
		return d.refusal(ctx, about.DecisionID, nil, errObligation.Because(err))
	}
	return pass.Append(nil)
}

// identity overwrites every identity header, so that none can be the client's own word (S54).
func identity(s authzen.Subject, decision string) map[string]string {
	set := map[string]string{}
	for _, name := range principal.IdentityHeaders() {
		set[name] = ""
	}
	set[principal.HeaderDecision] = decision
	if s.Type == anonymous {
		return set
	}
	set[principal.HeaderSubject] = portable(s.ID)
	if tenant, ok := s.Properties["tenant"].(string); ok {
		set[principal.HeaderTenant] = portable(tenant)
	}
	var roles []string
	for _, role := range texts(s.Properties["roles"]) {
		if portable(role) != "" && !strings.Contains(role, ",") {
			roles = append(roles, role)
		}
	}
	set[principal.HeaderRoles] = strings.Join(roles, ",")
	if claims, ok := s.Properties["claims"].(map[string]any); ok {
		set[principal.HeaderScope] = portable(strings.Join(texts(claims["scope"]), " "))
	}
	return set
}

// portable is the text if a header carries it unchanged, else nothing.
func portable(s string) string {
	if !requestline.Plain(s) || strings.TrimSpace(s) != s {
		return ""
	}
	return s
}

func texts(v any) []string {
	list, _ := v.([]string)
	return list
}

// maxObliged bounds one header that a decision sets, in bytes.
const maxObliged = 4 << 10

// oblige does what an allowance asks for. What it cannot do refuses the request: the policy allowed it on that condition.
func (d *envoyDoor) oblige(pass *extauthz.Pass, obligations map[string]any) error {
	for name := range d.headers {
		pass.Set[name] = "" // none is the client's own word, whether a decision set it or not
	}
	for name, v := range obligations {
		to := map[string]map[string]string{authzen.UpstreamHeaders: pass.Set, authzen.ResponseHeaders: pass.Respond}[name]
		headers, ok := v.(map[string]any)
		if to == nil || !ok {
			return fmt.Errorf("%q is not known", name)
		}
		for header, v := range headers {
			canonical := http.CanonicalHeaderKey(header)
			value, ok := v.(string)
			if !d.headers[canonical] || !ok || len(value) > maxObliged || value != "" && portable(value) == "" {
				return fmt.Errorf("header %q is not among those that decisions may set, or its value is no text that a header can carry", header)
			}
			to[canonical] = value
		}
	}
	return nil
}

// refusal answers a problem document as a CheckResponse.
func (d *envoyDoor) refusal(ctx context.Context, decision string, need *authzen.Need, err error) []byte {
	p := web.Problem(ctx, err)
	p.DecisionID = decision
	if f, ok := fault.As(err); !ok || f != errNotForwarded && f != errWeak { // those two stand in the decision log
		level := slog.LevelWarn
		if p.Status == http.StatusInternalServerError {
			level = slog.LevelError
		}
		d.Log.Log(ctx, level, "request at Envoy refused", "code", p.Code, "decision_id", decision, "trace_id", p.TraceID, "error", err)
	}
	header := map[string]string{"Content-Type": p.ContentType(""), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
	if decision != "" {
		header[principal.HeaderDecision] = decision
	}
	if errors.Is(err, errOverloaded) {
		header["Retry-After"] = retryAfter
	}
	if p.Status == http.StatusUnauthorized {
		header["WWW-Authenticate"] = challenge(need)
	}
	return extauthz.Refusal{Status: p.Status, Header: header, Body: p.JSON()}.Append(nil)
}

// challenge asks for a step-up (RFC 9470 section 3).
func challenge(need *authzen.Need) string {
	out := `Bearer realm="gatehouse", error="insufficient_user_authentication"`
	if need == nil {
		return out
	}
	if acr := strings.ToLower(need.ACR); acr != "" && strings.Trim(acr, "abcdefghijklmnopqrstuvwxyz0123456789-._:/") == "" {
		out += `, acr_values="` + need.ACR + `"`
	}
	if need.MaxAge > 0 {
		out += `, max_age="` + strconv.Itoa(need.MaxAge) + `"`
	}
	return out
}
