// Package server is the decision point over HTTP, in front of a policy engine. It speaks the OpenID AuthZEN Authorization API 1.0
// and, where it is told which documents may be asked for, OPA's Data API, read-only:
//
//	POST /access/v1/evaluation                 one decision
//	POST /access/v1/evaluations                several
//	POST /access/v1/search/{kind}              which subjects, resources or actions, for callers that were named for it
//	GET  /.well-known/authzen-configuration    where these are
//	POST, GET /v1/data/{path}                  the value of a rule or of data, as OPA answers it
//	POST /v0/data/{path}                       the same by OPA's older API: the body is the input, the answer the bare value
//	POST /                                     that of system/main, if it is among them
//	GET  /healthz, /readyz, /health            whether the program runs, and whether its newest policies decide
//
// In AuthZEN a 200 is a decision. Every other status means that none was made, and the enforcement point must deny.
package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// Defaults of Options.
const (
	DefaultMaxBody       = 1 << 20
	DefaultMaxBatch      = 100
	DefaultMaxConcurrent = 256
	DefaultBatchTime     = 2 * time.Second
)

// The names of the APIs, in metrics.
const (
	apiAuthZEN = "authzen"
	apiData    = "data"
	apiSearch  = "search"
	apiEnvoy   = "envoy"
)

// Engine decides. With an error, the response's context and the document still name the decision.
type Engine interface {
	Evaluate(ctx context.Context, r authzen.Request) (authzen.Response, error)
	Document(ctx context.Context, q dataapi.Question) (dataapi.Document, error)
	Ready() error
}

// Meter counts what the server does. An api is "authzen", "data", "search" or "envoy", an outcome one of authzen's or, of searches and of
// documents that are neither true nor false, "document".
type Meter interface {
	Decided(api, outcome string, took time.Duration)
	Shed(api string) // refused for want of room
	Stranger()       // refused because it is not known who asks
}

// Options is what the server is made of.
type Options struct {
	Engine      Engine
	DecisionLog *decisionlog.Log
	Checks      map[string]web.Check // of parts beside the policies, for /readyz; whoever asks may know what they say
	Log         *slog.Logger
	Now         func() time.Time // default time.Now
	BaseURL     string           // how enforcement points reach this server; default the scheme and Host of the request
	Meter       Meter            // default none
	Callers     caller.Check     // who may ask; default anybody

	// DataPaths are the documents that OPA's Data API answers, each with all below it, as "orders/allow"; "/" is all of data.
	// Without any the API is off: it tells whoever asks what roles, networks and grants there are, and believes of an object
	// what the caller says of it, where AuthZEN looks it up.
	DataPaths  []string
	OPAVersion string // for its provenance

	Search        Searcher // nil: there are no searches
	SearchCallers []string // the names of those who may search, or AnyCaller; without any there are no searches either

	MaxBody       int64         // bytes of a body
	MaxBatch      int           // evaluations in a request
	MaxConcurrent int           // requests decided on at the same moment; more are refused with 503
	BatchTime     time.Duration // for the evaluations of one request together
}

type server struct {
	Options
	gate      gate
	searching gate
	data      [][]string // DataPaths in segments
	answers   sync.Pool  // of *[]byte, for what is written
}

// Server is the handler of AuthZEN and the Data API, and makes that of Envoy, which takes of the same room.
type Server struct {
	http.Handler
	shared *server
}

// New makes the server.
func New(opts Options) *Server {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Meter == nil {
		opts.Meter = unmetered{}
	}
	opts.MaxBody = cmp.Or(opts.MaxBody, DefaultMaxBody)
	opts.MaxBatch = cmp.Or(opts.MaxBatch, DefaultMaxBatch)
	opts.MaxConcurrent = cmp.Or(opts.MaxConcurrent, DefaultMaxConcurrent)
	opts.BatchTime = cmp.Or(opts.BatchTime, DefaultBatchTime)
	s := &server{Options: opts, gate: gate{most: int64(opts.MaxConcurrent)}}
	mux := http.NewServeMux()
	mux.Handle("POST "+authzen.Path, s.known(problem, s.evaluate))
	mux.Handle("POST "+authzen.BatchPath, s.known(problem, s.evaluateBatch))
	mux.HandleFunc("GET "+authzen.MetadataPath, s.metadata)
	if s.offersSearch() {
		s.serveSearch(mux)
	}
	if len(opts.DataPaths) > 0 {
		s.serveData(mux)
	}
	s.serveHealth(mux)
	h := s.shortcut(web.Mux(mux))
	return &Server{echoRequestID(web.Trace(s.shed(web.Log(opts.Log, web.Recover(opts.Log, web.SecurityHeaders(h)))))), s}
}

// unmetered is no Meter.
type unmetered struct{}

func (unmetered) Decided(string, string, time.Duration) {}
func (unmetered) Shed(string)                           {}
func (unmetered) Stranger()                             {}

// refusal writes an error in the shape of an API.
type refusal func(w http.ResponseWriter, r *http.Request, err error)

// problem is AuthZEN's refusal.
func problem(w http.ResponseWriter, r *http.Request, err error) {
	web.WriteProblem(w, web.Problem(r.Context(), err))
}

type callerKey struct{}

// known lets only callers through that Callers knows, before anything of their body is read.
func (s *server) known(refuse refusal, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, err := s.Callers.Identify(r)
		if err != nil {
			s.Meter.Stranger()
			challenge := `Bearer realm="gatehouse-pdp"`
			if r.Header.Get("Authorization") != "" {
				challenge += `, error="invalid_token"`
			}
			w.Header().Set("WWW-Authenticate", challenge)
			refuse(w, r, err)
			return
		}
		if name != "" {
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, name))
		}
		next(w, r)
	})
}

// CallerOf answers the name of who asks in a request's context, "" if anybody may.
func CallerOf(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// shortcut spares the mux for what is asked all the time.
func (s *server) shortcut(next http.Handler) http.Handler {
	evaluate, document := s.known(problem, s.evaluate), s.known(dataRefusal, s.document)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch p := r.URL.Path; {
		case r.Method != http.MethodPost:
			next.ServeHTTP(w, r)
		case p == authzen.Path:
			evaluate.ServeHTTP(w, r)
		case len(s.data) > 0 && strings.HasPrefix(p, dataapi.Prefix+"/") && !strings.Contains(p, "//") && !strings.Contains(p, "/."):
			document.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

var errTooLarge = fault.New(fault.Invalid, "The body is too large.").Named("body_too_large")

// atOnce is up to how many bytes memory is made for a body before it has come.
const atOnce = 16 << 10

// readAll reads a body within its limit. One that declares more is not read, and answered in the shape of its API.
func (s *server) readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > s.MaxBody {
		return nil, errTooLarge
	}
	var body []byte
	var err error
	if r.ContentLength >= 0 && r.ContentLength <= atOnce {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, s.MaxBody))
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, errTooLarge
	case err != nil:
		return nil, badBody("The body could not be read.").Because(err)
	}
	return body, nil
}

// echoRequestID answers with the caller's X-Request-ID, as AuthZEN asks, if it is one; whatever the answer is.
func echoRequestID(next http.Handler) http.Handler {
	hidden := func(c rune) bool { return c < '!' || c > '~' }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-ID")
		if id != "" && len(id) <= 128 && !strings.ContainsFunc(id, hidden) {
			w.Header().Set("X-Request-ID", id)
		}
		next.ServeHTTP(w, r)
	})
}

// metadata says where the endpoints are (AuthZEN 1.0, section on PDP metadata). Only those searches are named that the policies
// know an answer to.
func (s *server) metadata(w http.ResponseWriter, r *http.Request) {
	base := strings.TrimRight(s.BaseURL, "/")
	if base == "" {
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		base = scheme + r.Host
	}
	told := map[string]string{
		"policy_decision_point":       base,
		"access_evaluation_endpoint":  base + authzen.Path,
		"access_evaluations_endpoint": base + authzen.BatchPath,
	}
	if s.offersSearch() {
		offered := s.Search.Searches()
		for _, of := range searches {
			if slices.Contains(offered, of.kind) {
				told[of.metadata] = base + of.path
			}
		}
	}
	answer(w, r, told)
}

func answer(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil { // an obligation of the policy that is no JSON
		web.WriteProblem(w, web.Problem(r.Context(), err))
		return
	}
	write(w, http.StatusOK, body)
}

var typeJSON = []string{"application/json"} // shared, as securityHeaders of package web are

// lengthKnown is up to how many bytes net/http finds the length of an answer out by itself.
const lengthKnown = 2048

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header()["Content-Type"] = typeJSON
	if len(body) > lengthKnown {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller is gone; there is nobody to tell
}
