package decisionlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Path is the rule that decides, as OPA names it.
const Path = "gatehouse/authz/decision"

// The outcomes of a decision, in XACML's terms.
const (
	Permit        = "permit"
	Deny          = "deny"
	NotApplicable = "not_applicable" // no rule covers what is asked
	Indeterminate = "indeterminate"  // no decision could be made
	Document      = "document"       // a document was told that is neither yes nor no
)

// Event is one decision, whole.
type Event struct {
	Time        time.Time     // when it was asked for
	Duration    time.Duration // until it was made
	DecisionID  string
	TraceID     string // W3C trace id; that of the input's context goes before it
	Path        string // default Path
	Route       string // by which the rate of samples is chosen
	Outcome     string
	Revision    string // of the policy
	Directory   string // revision of what is known of subjects
	RequestedBy string // address of the enforcement point
	PEP         string // its name, where it has shown one
	EvaluatedBy string // the way to the decision, such as topdown or cache
	Input       any    // authzen.Request or what JSON has
	Result      any    // authzen.Response or what JSON has; nil where no decision was made
	LookedUp    map[string]any
	Rules       []string // ids of those that a denial came to be by
	Err         error    // why no decision was made; only a fault's reason and detail are written
}

// maxRecord bounds a record, in bytes. A larger one is written again without what makes it so.
const maxRecord = 60 << 10

// appendRecord appends e as a JSON object in the schema of OPA's decision log (https://www.openpolicyagent.org/docs/management-decision-logs),
// with Gatehouse's own members in the object "gatehouse". labels is JSON.
func (enc *encoder) appendRecord(e *Event, labels []byte, rate float64) {
	start := len(enc.dst)
	enc.record(e, labels, rate, false)
	if len(enc.dst)-start <= maxRecord {
		return
	}
	short := *e
	short.LookedUp, short.Path, short.Rules = nil, cut(e.Path), nil
	for _, id := range e.Rules {
		short.Rules = append(short.Rules, cut(id))
	}
	switch in := e.Input.(type) {
	case authzen.Request:
		short.Input = authzen.Request{
			Subject: authzen.Subject{Type: cut(in.Subject.Type), ID: cut(in.Subject.ID)}, Action: authzen.Action{Name: cut(in.Action.Name)},
			Resource: authzen.Resource{Type: cut(in.Resource.Type), ID: cut(in.Resource.ID)},
		}
	default:
		short.Input = nil
	}
	switch out := e.Result.(type) {
	case authzen.Response:
		kept := authzen.Response{Decision: out.Decision}
		if out.Context != nil {
			kept.Context = &authzen.ResponseContext{}
			for _, r := range out.Context.Reasons[:min(len(out.Context.Reasons), 16)] {
				kept.Context.Reasons = append(kept.Context.Reasons, cut(r))
			}
		}
		short.Result = kept
	default:
		short.Result = nil
	}
	enc.reset(enc.dst[:start], enc.masks)
	enc.record(&short, labels, rate, true)
}

// Encode answers the record of one event, as a journal with these masks writes it, without a line's end.
func Encode(e Event, masks *Masks, rate float64) []byte {
	enc := &encoder{}
	enc.reset(nil, masks)
	enc.appendRecord(&e, []byte(`{"app":"gatehouse-pdp"}`), rate)
	return enc.dst
}

func (enc *encoder) record(e *Event, labels []byte, rate float64, short bool) {
	root := enc.masks.root
	enc.dst = append(enc.dst, `{"labels":`...)
	enc.dst = append(enc.dst, labels...)
	enc.text("decision_id", e.DecisionID)
	enc.text("trace_id", traceOf(e, enc.masks))
	enc.key("timestamp")
	enc.dst = append(enc.dst, '"')
	enc.dst = e.Time.UTC().AppendFormat(enc.dst, time.RFC3339Nano)
	enc.dst = append(enc.dst, '"')
	enc.begin("bundles")
	enc.bundle("policies", e.Revision)
	enc.bundle("directory", e.Directory)
	enc.end()
	path := e.Path
	if path == "" {
		path = Path
	}
	enc.text("path", path)
	if e.Input != nil {
		enc.member("input", e.Input, root)
	}
	if e.Result != nil && e.Err == nil {
		enc.member("result", e.Result, root)
	}
	if e.Err != nil {
		enc.failure(e.Err)
	}
	enc.text("requested_by", e.RequestedBy)
	enc.begin("metrics")
	enc.count("timer_server_handler_ns", int64(e.Duration))
	enc.end()
	enc.gatehouse(e, rate, short, root.child("gatehouse"))
	enc.list("erased", enc.erased)
	enc.list("masked", enc.masked)
	enc.end()
}

func (enc *encoder) bundle(name, revision string) {
	if revision != "" {
		enc.begin(name)
		enc.text("revision", revision)
		enc.end()
	}
}

// failure writes the reason and detail of a fault, which are the program's own words. What caused it may hold input.
func (enc *encoder) failure(err error) {
	f, ok := fault.As(err)
	if !ok {
		f = fault.New(fault.Internal, "")
	}
	enc.begin("error")
	enc.text("code", f.Reason)
	enc.text("message", f.Detail)
	enc.end()
}

func (enc *encoder) gatehouse(e *Event, rate float64, short bool, at *maskNode) {
	enc.begin("gatehouse")
	enc.text("outcome", e.Outcome)
	enc.text("evaluated_by", e.EvaluatedBy)
	enc.text("pep", e.PEP)
	enc.key("sample_rate")
	enc.value(rate, nil)
	if short {
		enc.key("cut")
		enc.dst = append(enc.dst, "true"...)
	}
	enc.path = append(enc.path, step{"gatehouse", -1})
	switch {
	case len(e.Rules) == 0:
	case enc.masks.reasons:
		enc.erased = append(enc.erased, "/gatehouse/rules")
	case at.child("rules") == nil:
		enc.list("rules", e.Rules) // words of the policy, none of which can be a caller's secret
	default:
		enc.member("rules", e.Rules, at)
	}
	if len(e.LookedUp) > 0 {
		enc.member("looked_up", e.LookedUp, at)
	}
	enc.leave()
	enc.end()
}

func (enc *encoder) list(name string, items []string) {
	if len(items) == 0 {
		return
	}
	enc.key(name)
	enc.dst = append(enc.dst, '[')
	for i, item := range items {
		if i > 0 {
			enc.dst = append(enc.dst, ',')
		}
		enc.dst = appendString(enc.dst, item)
	}
	enc.dst = append(enc.dst, ']')
}

// traceOf prefers the trace of the request at the edge, unless a mask hides it where it comes from.
func traceOf(e *Event, masks *Masks) string {
	if r, ok := e.Input.(authzen.Request); ok {
		if id, ok := r.Context["request_id"].(string); ok && isTrace(id) && !masks.hides("input", "context", "request_id") {
			return id
		}
	}
	return e.TraceID
}

func isTrace(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

// Rates say how many of the allowances are recorded, from 0 (none) to 1 (all). Every denial is.
type Rates struct {
	Default float64
	Routes  map[string]float64 // by name of the route
}

// Validate answers which rates are none.
func (r Rates) Validate() error {
	var errs []error
	check := func(name string, rate float64) {
		if math.IsNaN(rate) || rate < 0 || rate > 1 {
			errs = append(errs, fmt.Errorf("%s: a rate is from 0 to 1", name))
		}
	}
	check("default", r.Default)
	for _, route := range slices.Sorted(maps.Keys(r.Routes)) {
		check(route, r.Routes[route])
	}
	return errors.Join(errs...)
}

// sampled answers whether an allowance is recorded, and the rate by which that was chosen. One decision id always has one answer.
func (r Rates) sampled(route, id string) (rate float64, yes bool) {
	rate, ok := r.Routes[route]
	if !ok {
		rate = r.Default
	}
	switch {
	case rate <= 0:
		return 0, false
	case rate >= 1 || id == "":
		return rate, true
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	x := binary.LittleEndian.Uint64(h.Sum(nil))
	x ^= x >> 33 // FNV leaves its high bits alike for ids that are; these steps are MurmurHash3's last
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return rate, float64(x>>11)/(1<<53) < rate
}
