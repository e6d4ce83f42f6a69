// Package server speaks the OpenID AuthZEN Authorization API 1.0 over HTTP in front of a policy engine:
//
//	POST /access/v1/evaluation                 one decision
//	GET  /.well-known/authzen-configuration    where that is
//	GET  /healthz, /readyz                     whether the program runs, and whether its newest policies decide
//
// A 200 is a decision. Every other status means that none was made, and the enforcement point must deny.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// maxBody bounds a request, in bytes.
const maxBody = 1 << 20

// Engine decides. With an error, the response's context still names the decision.
type Engine interface {
	Evaluate(ctx context.Context, r authzen.Request) (authzen.Response, error)
	Ready() error
}

// Options is what the server is made of.
type Options struct {
	Engine      Engine
	DecisionLog *decisionlog.Log
	Log         *slog.Logger
	Now         func() time.Time // default time.Now
	BaseURL     string           // how enforcement points reach this server; default http://<the request's Host>
}

type server struct{ Options }

// New makes the handler.
func New(opts Options) http.Handler {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &server{opts}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+authzen.Path, s.evaluate)
	mux.HandleFunc("GET /.well-known/authzen-configuration", s.metadata)
	health := web.Health(map[string]web.Check{"policies": func(context.Context) error { return opts.Engine.Ready() }})
	mux.Handle("GET /healthz", health)
	mux.Handle("GET /readyz", health)
	h := web.LimitBody(maxBody, web.Mux(mux))
	return web.Trace(web.Log(opts.Log, web.Recover(opts.Log, web.SecurityHeaders(h))))
}

func (s *server) evaluate(w http.ResponseWriter, r *http.Request) {
	start := s.Now()
	echoRequestID(w, r)
	req, fields, err := readRequest(r)
	if err != nil {
		web.WriteProblem(w, web.Problem(r.Context(), err))
		return
	}
	if len(fields) > 0 {
		p := web.NewProblem(web.TraceID(r.Context()), http.StatusBadRequest, "bad_request", "The body is not an access evaluation request.")
		p.Errors = fields
		web.WriteProblem(w, p)
		return
	}
	res, err := s.Engine.Evaluate(r.Context(), req)
	if err != nil || !res.Decision {
		s.record(r.Context(), start, req, res, err)
	}
	if err != nil {
		p := web.Problem(r.Context(), err)
		if res.Context != nil {
			p.DecisionID = res.Context.DecisionID
		}
		web.WriteProblem(w, p)
		return
	}
	answer(w, r, res)
}

func (s *server) record(ctx context.Context, start time.Time, req authzen.Request, res authzen.Response, err error) {
	e := decisionlog.Entry{
		Time: start, TraceID: web.TraceID(ctx),
		SubjectType: req.Subject.Type, SubjectID: req.Subject.ID, Action: req.Action.Name,
		ResourceType: req.Resource.Type, ResourceID: req.Resource.ID,
		Duration: s.Now().Sub(start), Err: err,
	}
	e.Address, _ = req.Context["ip"].(string)
	if id, ok := req.Context["request_id"].(string); ok && len(id) == 32 {
		e.TraceID = id // that of the request at the edge
	}
	if res.Context != nil {
		e.DecisionID, e.Revision, e.Reasons = res.Context.DecisionID, res.Context.Revision, res.Context.Reasons
	}
	s.DecisionLog.Record(e)
}

func readRequest(r *http.Request) (authzen.Request, []web.FieldError, error) {
	mt, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, named := params["charset"]
	if err != nil || mt != "application/json" || named && !strings.EqualFold(charset, "utf-8") || r.Header.Get("Content-Encoding") != "" {
		return authzen.Request{}, nil, fault.New(fault.Invalid, "The body must be application/json, not encoded.").Named("unsupported_media_type")
	}
	body, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return authzen.Request{}, nil, fault.New(fault.Invalid, "The body is too large.").Named("body_too_large")
	case err != nil:
		return authzen.Request{}, nil, badBody("The body could not be read.").Because(err)
	}
	return parse(body)
}

// echoRequestID answers with the caller's X-Request-ID, as AuthZEN asks, if it is one.
func echoRequestID(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Request-ID")
	hidden := func(c rune) bool { return c < '!' || c > '~' }
	if id != "" && len(id) <= 128 && !strings.ContainsFunc(id, hidden) {
		w.Header().Set("X-Request-ID", id)
	}
}

// metadata says where the endpoints are (AuthZEN 1.0, section on PDP metadata).
func (s *server) metadata(w http.ResponseWriter, r *http.Request) {
	base := strings.TrimRight(s.BaseURL, "/")
	if base == "" {
		base = "http://" + r.Host
	}
	answer(w, r, map[string]string{
		"policy_decision_point":      base,
		"access_evaluation_endpoint": base + authzen.Path,
	})
}

func answer(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil { // an obligation of the policy that is no JSON
		web.WriteProblem(w, web.Problem(r.Context(), err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the caller is gone; there is nobody to tell
}
