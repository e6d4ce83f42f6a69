package author

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// Record is an entry of a decision log: Gatehouse's, or OPA's where its policy decides as Gatehouse's do.
type Record struct {
	Title string // where it stands
	ID    string
	Time  time.Time
	Rate  float64 // the share of such decisions that is recorded; 1 for all

	Decided  bool     // the record says what was decided
	Was      Decision // what
	Reasoned bool     // with all of its reasons
	Rules    []string // ids of those that a denial came to be by; nil where the record does not say

	text     map[string]any // the input, as it stands
	asked    bool           // text is an AuthZEN request, and not what a policy saw
	lookedUp map[string]any
	hidden   []string // JSON Pointers to what was masked or erased
	ours     bool     // by Gatehouse: what was looked up is said, and resource.properties is what the caller says
	cut      bool     // it was too large, and most of it left out
}

// Why a record is not decided again.
const (
	SkipUnread     = "no_decision"   // the line is no decision, or says not what was asked
	SkipOther      = "other_path"    // of another rule than the one that decides
	SkipUndecided  = "not_decided"   // a failure is no decision to compare with
	SkipMasked     = "masked"        // something that the policy looks at is hidden
	SkipCut        = "cut"           // it was too large for the log
	SkipNotLooked  = "not_looked_up" // the policy looks at what the one that decided did not look up
	SkipTimeless   = "no_time"       // the policy looks at the clock, and the record does not say when it was
	SkipOutOfRange = "out_of_range"  // before --since or after --until
)

// ParseRecord reads one entry. The error says why a line is none; reason is then SkipUnread.
func ParseRecord(title string, line []byte) (r Record, reason string, err error) {
	var e struct {
		ID        string          `json:"decision_id"`
		Timestamp string          `json:"timestamp"`
		Time      string          `json:"time"`
		Path      *string         `json:"path"`
		Input     map[string]any  `json:"input"`
		Result    json.RawMessage `json:"result"`
		Error     json.RawMessage `json:"error"`
		Erased    []string        `json:"erased"`
		Masked    []string        `json:"masked"`
		Gatehouse struct {
			Outcome  string         `json:"outcome"`
			Rate     *float64       `json:"sample_rate"`
			Rules    any            `json:"rules"` // texts, but for masks
			LookedUp map[string]any `json:"looked_up"`
			Cut      bool           `json:"cut"`
		} `json:"gatehouse"`
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if err := dec.Decode(&e); err != nil {
		return r, SkipUnread, fmt.Errorf("%s: %w", title, err)
	}
	r = Record{Title: title, ID: e.ID, Rate: 1, text: e.Input, lookedUp: e.Gatehouse.LookedUp, hidden: append(e.Masked, e.Erased...), cut: e.Gatehouse.Cut, ours: e.Gatehouse.Outcome != ""}
	if e.Gatehouse.Rate != nil && *e.Gatehouse.Rate > 0 && *e.Gatehouse.Rate <= 1 && e.Gatehouse.Outcome == string(authzen.Permit) {
		r.Rate = *e.Gatehouse.Rate
	}
	if r.Rules = textsOf(e.Gatehouse.Rules); slices.ContainsFunc(r.hidden, func(p string) bool { return strings.HasPrefix(p, "/gatehouse/rules") }) {
		r.Rules = nil
	}
	for _, text := range []string{e.Timestamp, e.Time} {
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil && r.Time.IsZero() {
			r.Time = at
		}
	}
	below := "" // what of a decision the record is of
	if e.Path != nil {
		rest, ok := strings.CutPrefix(strings.Trim(strings.TrimPrefix(strings.Trim(strings.ReplaceAll(*e.Path, ".", "/"), "/"), "v1/data"), "/")+"/", entryPath+"/")
		if below = strings.Trim(rest, "/"); !ok || below != "" && below != "allow" {
			return r, SkipOther, nil
		}
	}
	if e.Input == nil {
		return r, SkipUnread, errors.New(title + ": there is no input")
	}
	subject, okSubject := e.Input["subject"].(map[string]any)
	resource, okResource := e.Input["resource"].(map[string]any)
	action, okAction := e.Input["action"].(map[string]any)
	if !okSubject || !okResource || !okAction {
		return r, SkipUnread, errors.New(title + ": the input has no subject, action and resource")
	}
	r.asked = onlyHas(subject, "type", "id", "properties") && onlyHas(resource, "type", "id", "properties") && onlyHas(action, "name", "properties")
	if context, _ := e.Input["context"].(map[string]any); r.Time.IsZero() {
		text, _ := context["time"].(string)
		if at, err := time.Parse(time.RFC3339, text); err == nil {
			r.Time = at
		}
	}
	if e.Gatehouse.Outcome == string(authzen.Indeterminate) || len(e.Error) > 0 {
		return r, SkipUndecided, nil
	}
	var said struct {
		Allow   *bool    `json:"allow"`
		Reasons []string `json:"reasons"`
	}
	var plain bool
	switch {
	case len(e.Result) == 0:
	case json.Unmarshal(e.Result, &said) == nil && said.Allow != nil:
		r.Decided, r.Was = true, Decision{Allow: *said.Allow, Reasons: said.Reasons}
		r.Reasoned = true
		for _, p := range r.hidden {
			r.Reasoned = r.Reasoned && !strings.HasPrefix(p, "/result")
		}
	case json.Unmarshal(e.Result, &plain) == nil:
		r.Decided, r.Was = true, Decision{Allow: plain}
	default:
		return r, SkipUndecided, nil
	}
	return r, "", nil
}

// textsOf are texts, or nil if something else is among them.
func textsOf(v any) []string {
	var all []string
	list, _ := v.([]any)
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		all = append(all, s)
	}
	return all
}

var entryPath = strings.ReplaceAll(strings.TrimPrefix(engine.Entrypoint, "data."), ".", "/")

// again knows what of a record a policy can look at.
type again struct {
	*program
	reads   engine.Reads
	lookups map[string]bool // types of resources that are looked up
}

func (p *Policy) again(ctx context.Context) (*again, error) {
	on, err := p.program(ctx)
	if err != nil {
		return nil, err
	}
	a := &again{program: on, lookups: map[string]bool{}}
	gatehouse, _ := p.Data["gatehouse"].(map[string]any)
	declared, _ := gatehouse["lookups"].(map[string]any)
	for kind := range declared {
		a.lookups[kind] = true
	}
	a.reads, err = engine.ReadsOf(on.compiler)
	return a, err
}

// question is what a policy sees of a record, at the record's own time; or why it cannot be decided as it was.
func (a *again) question(r Record) (Question, string) {
	hidden := slices.ContainsFunc(r.hidden, func(pointer string) bool { return a.reads.Matters(pointer, r.asked) })
	resource, _ := r.text["resource"].(map[string]any)
	kind, _ := resource["type"].(string)
	id, _ := resource["id"].(string)
	known := r.lookedUp
	switch {
	case r.cut:
		return Question{}, SkipCut
	case hidden:
		return Question{}, SkipMasked
	case !r.asked || !r.ours || len(known) > 0 || !a.lookups[kind]:
	case a.reads.Properties() && !strings.HasPrefix(id, "/"):
		return Question{}, SkipNotLooked
	default: // a collection, of which nothing is looked up
		known = map[string]any{}
	}
	q, err := r.question(known)
	if err != nil {
		return Question{}, SkipUnread
	}
	if at, _ := q.at([]string{"context", "time"}); at == nil && a.reads.Matters("/input/context/time", false) {
		return Question{}, SkipTimeless
	}
	return q, ""
}

// question is what any policy would see of the record, with what is hidden left out.
func (r Record) question(known map[string]any) (Question, error) {
	if !r.asked {
		q := Question{Title: r.Title, input: r.text}
		if _, ok := q.at([]string{"context", "time"}); !ok && !r.Time.IsZero() {
			q = q.with([]string{"context", "time"}, r.Time.UTC().Format(time.RFC3339), false)
		}
		return q, nil
	}
	b, err := json.Marshal(r.text)
	if err != nil {
		return Question{}, fmt.Errorf("%s: %w", r.Title, err)
	}
	var req authzen.Request
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&req); err != nil {
		return Question{}, fmt.Errorf("%s: %w", r.Title, err)
	}
	input, err := engine.Input(req, known, r.Time)
	if err != nil {
		return Question{}, fmt.Errorf("%s: %w", r.Title, err)
	}
	q, err := questionOf(r.Title, input)
	if err == nil && r.Time.IsZero() {
		q = q.with([]string{"context", "time"}, nil, true)
	}
	return q, err
}

// AsQuestion is what a policy sees of the record, and what of it is hidden.
func (r Record) AsQuestion() (q Question, hidden []string, err error) {
	q, err = r.question(r.lookedUp)
	return q, r.hidden, err
}
