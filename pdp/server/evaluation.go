package server

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// evaluate answers POST /access/v1/evaluation.
func (s *server) evaluate(w http.ResponseWriter, r *http.Request) {
	body, ok := s.readJSON(w, r)
	if !ok {
		return
	}
	req, fields, err := parse(body)
	if !wellFormed(w, r, fields, err) || !s.admit(w, r, apiAuthZEN, problem) {
		return
	}
	defer s.gate.leave()
	s.answerOne(w, r, req)
}

// evaluateBatch answers POST /access/v1/evaluations: a batch, or what is a single evaluation because it has none.
func (s *server) evaluateBatch(w http.ResponseWriter, r *http.Request) {
	body, ok := s.readJSON(w, r)
	if !ok {
		return
	}
	b, fields, err := parseBatch(body, s.MaxBatch)
	if !wellFormed(w, r, fields, err) || !s.admit(w, r, apiAuthZEN, problem) {
		return
	}
	defer s.gate.leave()
	if b.single {
		s.answerOne(w, r, b.requests[0])
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.BatchTime)
	defer cancel()
	answer(w, r, authzen.BatchResponse{Evaluations: s.decideAll(together(ctx, b), b)})
}

// decideAll decides one after the other: a batch takes the room of one request. What fails is a denial that says so.
func (s *server) decideAll(ctx context.Context, b batch) []authzen.Response {
	all := make([]authzen.Response, 0, len(b.requests))
	for _, req := range b.requests {
		res, err := s.decide(ctx, req)
		if err != nil {
			res = failed(ctx, res, err)
		}
		all = append(all, res)
		if b.semantic == authzen.DenyOnFirstDeny && !res.Decision || b.semantic == authzen.PermitOnFirstPermit && res.Decision {
			break
		}
	}
	return all
}

// failed is the denial for an evaluation that could not be made.
func failed(ctx context.Context, res authzen.Response, err error) authzen.Response {
	p := web.Problem(ctx, err)
	about := &authzen.ResponseContext{Outcome: authzen.Indeterminate, Error: &authzen.Error{Status: p.Status, Code: p.Code, Message: p.Detail}}
	if res.Context != nil {
		about.DecisionID, about.Revision = res.Context.DecisionID, res.Context.Revision
	}
	return authzen.Response{Context: about}
}

func (s *server) answerOne(w http.ResponseWriter, r *http.Request, req authzen.Request) {
	res, err := s.decide(r.Context(), req)
	if err != nil {
		p := web.Problem(r.Context(), err)
		if res.Context != nil {
			p.DecisionID = res.Context.DecisionID
		}
		web.WriteProblem(w, p)
		return
	}
	buf, _ := s.answers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	if *buf, err = res.AppendJSON((*buf)[:0]); err != nil { // an obligation of the policy that is no JSON
		web.WriteProblem(w, web.Problem(r.Context(), err))
		return
	}
	write(w, http.StatusOK, *buf)
	if cap(*buf) <= mostKept {
		s.answers.Put(buf)
	}
}

// mostKept is up to how many bytes the memory of an answer is used again. Net/http copies as much; of more it may still be writing,
// by HTTP/2 to a caller who has gone, when it says that it has written.
const mostKept = 4 << 10

func (s *server) decide(ctx context.Context, req authzen.Request) (authzen.Response, error) {
	return s.decideFor(ctx, apiAuthZEN, req)
}

// decideFor asks the engine, and sees to it that the decision is counted and, unless it allows, logged. A panic is an error.
func (s *server) decideFor(ctx context.Context, api string, req authzen.Request) (res authzen.Response, err error) {
	start := s.Now()
	func() {
		defer func() {
			if p := recover(); p != nil {
				s.Log.ErrorContext(ctx, "engine panicked", "trace_id", web.TraceID(ctx), "stack", string(debug.Stack()))
				err = fmt.Errorf("panic: %T", p)
			}
		}()
		res, err = s.Engine.Evaluate(ctx, req)
	}()
	outcome := OutcomeOf(res, err)
	took := s.Now().Sub(start)
	s.Meter.Decided(api, string(outcome), took)
	if err != nil || !res.Decision {
		s.record(ctx, start, took, req, res, outcome, err)
	}
	return res, err
}

// OutcomeOf says what an engine's answer amounts to.
func OutcomeOf(res authzen.Response, err error) authzen.Outcome {
	switch {
	case err != nil:
		return authzen.Indeterminate
	case res.Decision:
		return authzen.Permit
	case res.Context == nil || res.Context.Outcome == "":
		return authzen.Deny
	default:
		return res.Context.Outcome
	}
}

func (s *server) record(ctx context.Context, start time.Time, took time.Duration, req authzen.Request, res authzen.Response, outcome authzen.Outcome, err error) {
	e := decisionlog.Entry{
		Time: start, TraceID: web.TraceID(ctx), Caller: CallerOf(ctx), Outcome: string(outcome),
		SubjectType: req.Subject.Type, SubjectID: req.Subject.ID, Action: req.Action.Name,
		ResourceType: req.Resource.Type, ResourceID: req.Resource.ID,
		Duration: took, Err: err,
	}
	e.Address, _ = req.Context["ip"].(string)
	if id, ok := req.Context["request_id"].(string); ok && len(id) == 32 {
		e.TraceID = id // that of the request at the edge
	}
	if res.Context != nil {
		e.DecisionID, e.Revision = res.Context.DecisionID, res.Context.Revision
		e.Reasons, e.Rules = res.Context.Reasons, res.Context.Rules
	}
	s.DecisionLog.Record(e)
}

func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	mt, params, err := mime.ParseMediaType(contentType)
	charset, named := params["charset"]
	return err == nil && mt == "application/json" && (!named || strings.EqualFold(charset, "utf-8"))
}

// readJSON reads a body that says it is JSON, or answers why it does not.
func (s *server) readJSON(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	if !isJSON(r.Header.Get("Content-Type")) || r.Header.Get("Content-Encoding") != "" {
		problem(w, r, fault.New(fault.Invalid, "The body must be application/json, not encoded.").Named("unsupported_media_type"))
		return nil, false
	}
	body, err := s.readAll(w, r)
	if err != nil {
		problem(w, r, err)
		return nil, false
	}
	return body, true
}

// wellFormed answers what is wrong with a body, if anything is.
func wellFormed(w http.ResponseWriter, r *http.Request, fields []web.FieldError, err error) bool {
	switch {
	case err != nil:
		problem(w, r, err)
		return false
	case len(fields) > 0:
		p := web.NewProblem(web.TraceID(r.Context()), http.StatusBadRequest, "bad_request", "The body is not an access evaluation request.")
		p.Errors = fields
		web.WriteProblem(w, p)
		return false
	}
	return true
}
