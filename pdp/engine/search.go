package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// SearchPath is the package whose rules subjects, resources and actions answer what a search may find, as
// {"complete": bool, "candidates": [{"type", "id", "properties"}]}, or [{"name", "properties"}] for actions. Their input is that of a
// decision, without the id that is searched for.
const SearchPath = "gatehouse/search"

// Bounds of one page of a search.
const (
	maxCandidates = 100_000
	maxAsked      = 10_000
)

// How many candidates are looked up at once: as many as the page still wants, which will all be asked about, within these bounds. More
// at a time could leave a search whose time is over with nothing.
const (
	leastAhead = 16
	mostAhead  = 100
)

var searchRules = map[authzen.Kind]string{authzen.Subjects: "subjects", authzen.Resources: "resources", authzen.Actions: "actions"}

var (
	errUnsearchable = fault.New(fault.Unavailable, "The policies do not say what such a search could find.").Named("search_unsupported")
	errMoved        = fault.New(fault.Invalid, "The policies have changed since the page before; begin anew.").Named("page_token_invalid")
)

// candidate is what a search may find.
type candidate struct {
	authzen.Entity
	properties map[string]any
}

// Searches answers which kinds the policies that decide now can be searched for.
func (e *Engine) Searches() (kinds []authzen.Kind) {
	snap := e.current.Load()
	if snap == nil {
		return nil
	}
	for _, kind := range []authzen.Kind{authzen.Subjects, authzen.Resources, authzen.Actions} {
		if snap.searchable(kind) || e.knows(kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func searchRef(kind authzen.Kind) ast.Ref {
	return ast.MustParseRef("data.gatehouse.search." + searchRules[kind])
}

func (s *snapshot) searchable(kind authzen.Kind) bool {
	return searchRules[kind] != "" && len(s.documents.compiler.GetRulesExact(searchRef(kind))) > 0
}

// Search decides on one candidate after the other, as Evaluate does, until the page is full, the deadline of ctx is over or enough
// were asked about. What it finds is permitted; what it could not decide on is counted and not found. Nothing of it is remembered,
// lest a search drive out what requests need.
func (e *Engine) Search(ctx context.Context, q authzen.Search) (found authzen.Found, err error) {
	snap := e.current.Load()
	found = authzen.Found{Results: []authzen.Entity{}, DecisionID: e.newID(new(idText), time.Now())}
	if snap == nil {
		return found, errNotLoaded
	}
	found.Revision = snap.revision
	defer func() {
		if p := recover(); p != nil {
			err = errFailed.Because(fmt.Errorf("panic: %v", p))
		}
		if err != nil {
			found = authzen.Found{Results: []authzen.Entity{}, DecisionID: found.DecisionID, Revision: found.Revision, Directory: found.Directory}
		}
	}()
	switch {
	case q.Revision != "" && q.Revision != snap.revision:
		return found, errMoved
	case !snap.searchable(q.For) && !e.knows(q.For):
		return found, errUnsearchable
	}
	if _, deny := e.stale(e.opts.Now()); deny {
		return found, errStale
	}
	if e.directoryStale(e.opts.Now()) {
		return found, errDirectoryStale
	}
	if d := e.opts.Directory; d != nil {
		view := d.View()
		if view == nil {
			return found, errNoDirectory
		}
		found.Directory = view.Word()
		if q.For != authzen.Subjects && byToken(d, view, snap.looksAt, q.Request.Subject) {
			found.Reasons = append(found.Reasons, authzen.ReasonToken)
		}
	}
	if !snap.searchable(q.For) {
		return e.searchNames(ctx, snap, q, found)
	}
	candidates, reasons, err := e.candidates(ctx, snap, q)
	if err != nil {
		return found, err
	}
	found.Reasons = append(found.Reasons, reasons...)
	i := min(max(q.From, 0), len(candidates))
	var looked map[string]any // of the one object that all are asked about
	if q.For != authzen.Resources && i < len(candidates) && q.Limit > 0 {
		if looked, err = snap.properties(ctx, q.Request.Resource, snap.looksUp(q.Request.Resource)); err != nil {
			return found, errFailed.Because(err)
		}
	}
	within, until := ctx, i
	for first := i; i < len(candidates) && len(found.Results) < q.Limit && i-first < maxAsked; i++ {
		if q.For == authzen.Resources && i == until {
			until = min(i+min(max(q.Limit-len(found.Results), leastAhead), mostAhead), len(candidates), first+maxAsked)
			within = snap.together(ctx, candidates[i:until])
		}
		allow, err := e.permits(within, snap, q, candidates[i], looked)
		if ctx.Err() != nil {
			if i == first {
				return found, errFailed.Because(errors.New("not one candidate was decided on in time"))
			}
			break // the next page begins with it
		}
		switch {
		case err != nil:
			found.Undecided++
		case allow:
			found.Results = append(found.Results, candidates[i].Entity)
		}
	}
	if found.Undecided > 0 {
		found.Reasons = append(found.Reasons, authzen.ReasonUndecided)
	}
	found.More, found.Next, found.Complete = i < len(candidates), i, len(found.Reasons) == 0
	return found, nil
}

// together lets candidates be looked up at once.
func (s *snapshot) together(ctx context.Context, candidates []candidate) context.Context {
	objects := make([]lookup.Object, 0, len(candidates))
	for _, c := range candidates {
		if s.looksUp(authzen.Resource{Type: c.Type, ID: c.ID}) {
			objects = append(objects, lookup.Object{Kind: c.Type, ID: c.ID})
		}
	}
	return lookup.Together(ctx, objects)
}

// permits decides on one candidate, with what was looked up of the request's object unless objects are searched for. What fails denies.
func (e *Engine) permits(ctx context.Context, snap *snapshot, q authzen.Search, c candidate, looked map[string]any) (bool, error) {
	r := q.Request
	switch q.For {
	case authzen.Subjects:
		r.Subject = authzen.Subject{Type: c.Type, ID: c.ID, Properties: c.properties}
	case authzen.Resources:
		r.Resource = authzen.Resource{Type: c.Type, ID: c.ID, Properties: c.properties}
	default:
		r.Action = authzen.Action{Name: c.Name, Properties: c.properties}
	}
	if q.For == authzen.Resources {
		var err error
		if looked, err = snap.properties(ctx, r.Resource, snap.looksUp(r.Resource)); err != nil {
			return false, err
		}
	}
	allow, _, err := e.verdict(ctx, snap, r, looked)
	return allow, err
}

// verdict decides on a request of which it is known what a look-up says, and answers what was read of the directory. Nothing is
// remembered or recalled.
func (e *Engine) verdict(ctx context.Context, snap *snapshot, r authzen.Request, looked map[string]any) (allow bool, read *readings, err error) {
	now := e.opts.Now()
	seen, err := e.consult(&snap.looksAt, &r, now)
	if err != nil {
		return false, nil, err
	}
	a, _, err := e.decide(ctx, snap, &seen, r, looked, now)
	return a.allow, seen.reads, err
}

// candidates asks the policy what a search may find, and why that may not be all.
func (e *Engine) candidates(ctx context.Context, snap *snapshot, q authzen.Search) (all []candidate, reasons []string, err error) {
	r := q.Request
	switch q.For {
	case authzen.Subjects:
		r.Subject.ID = ""
	case authzen.Resources:
		r.Resource.ID = ""
	default:
		r.Action = authzen.Action{}
	}
	now, looks := e.opts.Now(), looksAt{facts: true, directory: true} // which of it these rules look at is not known
	seen, err := e.consult(&looks, &r, now)
	if err != nil {
		return nil, nil, err
	}
	ctx, noting := seen.reading(ctx)
	f, err := e.prepared(ctx, &snap.documents, []string{"gatehouse", "search", searchRules[q.For]})
	if err != nil {
		return nil, nil, errFailed.Because(fmt.Errorf("prepare: %w", err))
	}
	got, _, err := e.ask(ctx, f, &question{request: r, now: now, seen: noting}, now)
	switch {
	case err != nil:
		return nil, nil, err
	case !got.defined:
		return nil, []string{authzen.ReasonUnknown}, nil
	}
	all, complete, err := candidatesOf(got.value, q)
	if err != nil {
		return nil, nil, errFailed.Because(fmt.Errorf("data.gatehouse.search.%s: %w", searchRules[q.For], err))
	}
	if !complete {
		reasons = append(reasons, authzen.ReasonPartial)
	}
	if len(all) > maxCandidates {
		all, reasons = all[:maxCandidates], append(reasons, authzen.ReasonTooMany)
	}
	return all, reasons, nil
}

// candidatesOf reads the value of a rule of SearchPath. It is as strict as decisionOf.
func candidatesOf(v any, q authzen.Search) (all []candidate, complete bool, err error) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil, false, errors.New("is not an object")
	}
	for name := range o {
		if name != "complete" && name != "candidates" {
			return nil, false, errors.New("has an unknown member")
		}
	}
	if complete, ok = o["complete"].(bool); !ok {
		return nil, false, errors.New("complete is not a boolean")
	}
	list, ok := o["candidates"].([]any)
	if !ok {
		return nil, false, errors.New("candidates is not an array or set")
	}
	wanted := map[authzen.Kind]string{authzen.Subjects: q.Request.Subject.Type, authzen.Resources: q.Request.Resource.Type}[q.For]
	seen := make(map[authzen.Entity]bool, len(list))
	for _, item := range list {
		c, err := candidateOf(item, q.For)
		if err != nil {
			return nil, false, err
		}
		if c.Type != wanted || seen[c.Entity] {
			continue
		}
		seen[c.Entity] = true
		all = append(all, c)
	}
	return all, complete, nil
}

var errCandidate = errors.New("a candidate needs type and id, or a name if it is an action, may have properties, and nothing else")

func candidateOf(v any, kind authzen.Kind) (c candidate, err error) {
	o, ok := v.(map[string]any)
	if !ok {
		return c, errCandidate
	}
	names := []string{"type", "id"}
	if kind == authzen.Actions {
		names = []string{"name"}
	}
	for name, v := range o {
		if name == "properties" {
			if c.properties, ok = v.(map[string]any); !ok {
				return c, errCandidate
			}
			continue
		}
		text, ok := v.(string)
		if !ok || text == "" || !slices.Contains(names, name) {
			return c, errCandidate
		}
		switch name {
		case "type":
			c.Type = text
		case "id":
			c.ID = text
		default:
			c.Name = text
		}
	}
	if kind == authzen.Actions && c.Name == "" || kind != authzen.Actions && (c.Type == "" || c.ID == "") {
		return c, errCandidate
	}
	return c, nil
}
