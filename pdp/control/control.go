// Package control lets an operator of the decision point look at its candidate, put it in force, and take that back, through a Unix
// socket that only its own user may open. Every act is logged, with who asked as the kernel knows them.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/revision"
	"github.com/gatehouse-auth/gatehouse/pdp/shadow"
)

// Server is what the socket leads to. Shadow or Revisions may be missing.
type Server struct {
	Engine    *engine.Engine
	Shadow    *shadow.Shadow
	Revisions *revision.Store
	Bundles   *revision.Bundles                // in place of Revisions, where policies come as bundles
	Candidate func() map[string]*bundle.Bundle // what the shadow's candidate has of bundles
	Log       *slog.Logger
}

// Status is how policies and candidate are.
type Status struct {
	Revision string           `json:"revision"`
	Promoted bool             `json:"promoted"`         // and not the policy folder's own
	Pinned   string           `json:"pinned,omitempty"` // which sources of bundles are, for people
	History  []revision.Entry `json:"history,omitempty"`
	Shadow   *shadow.Status   `json:"shadow,omitempty"`
}

// Turned is what an act changed.
type Turned struct {
	Revision string `json:"revision"` // that decides now
	Before   string `json:"before"`
}

// Failed is the body of an answer that is none.
type Failed struct {
	Error string `json:"error"`
}

// Listen opens the socket.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	ln, err := web.ListenUnix(ctx, path, 0o600)
	if err != nil {
		return nil, err
	}
	return peers{ln}, nil
}

// Handler answers the socket.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.answer(func(*http.Request) (any, error) { return s.status(), nil }))
	mux.HandleFunc("GET /case/{id}", s.answer(func(r *http.Request) (any, error) {
		if s.Shadow == nil {
			return nil, errNoShadow
		}
		return s.Shadow.Case(r.Context(), r.PathValue("id"), r.FormValue("want"))
	}))
	mux.HandleFunc("POST /promote", s.answer(s.promote))
	mux.HandleFunc("POST /rollback", s.answer(s.rollback))
	mux.HandleFunc("POST /release", s.answer(s.release))
	return web.Recover(s.Log, http.MaxBytesHandler(mux, 64<<10))
}

var (
	errNoShadow    = errors.New("there is no candidate: the decision point was started without PDP_SHADOW_DIR")
	errNoRevisions = errors.New("nothing can be put in force from here: the decision point was started without PDP_REVISIONS")
)

func (s *Server) answer(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r)
		status := http.StatusOK
		if err != nil {
			status, v = http.StatusConflict, Failed{err.Error()}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v) // who asked is gone
	}
}

func (s *Server) status() Status {
	st := Status{Revision: s.Engine.Revision()}
	if s.Revisions != nil {
		st.History, st.Promoted = s.Revisions.History()
	}
	if s.Bundles != nil {
		st.History, st.Promoted = s.Bundles.History()
		st.Pinned = s.Bundles.Said()
	}
	if s.Shadow != nil {
		of := s.Shadow.Status()
		st.Shadow = &of
	}
	return st
}

// promote puts in force what has been compared, and nothing else: {"revision": …} is what the operator saw.
func (s *Server) promote(r *http.Request) (any, error) {
	switch {
	case s.Shadow == nil:
		return nil, errNoShadow
	case s.Revisions == nil && s.Bundles == nil:
		return nil, errNoRevisions
	}
	var seen struct {
		Revision string `json:"revision"`
	}
	if err := json.NewDecoder(r.Body).Decode(&seen); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("the body is not {\"revision\": …}")
	}
	candidate := s.Shadow.Candidate()
	if candidate == nil {
		return nil, errors.New("there is no candidate that loads; see gatehouse-pdp shadow status")
	}
	if s.Bundles != nil {
		return s.promoteBundles(r, candidate, seen.Revision)
	}
	part, err := engine.ReadFolder(os.DirFS(s.Shadow.Dir()))
	if err != nil {
		return nil, err
	}
	switch compared := candidate.Revision(); {
	case part.Digest() != compared:
		return nil, fmt.Errorf("the candidate's folder holds %s, and what was compared is %s", part.Digest(), compared)
	case seen.Revision != "" && seen.Revision != compared:
		return nil, fmt.Errorf("the candidate is %s by now, and not %s", compared, seen.Revision)
	}
	before := s.Engine.Revision()
	err = s.Revisions.Promote(r.Context(), s.Engine, part, r.RemoteAddr)
	s.did(r, "policies promoted", "policies not promoted", before, part.Digest(), err)
	return Turned{s.Engine.Revision(), before}, err
}

func (s *Server) promoteBundles(r *http.Request, candidate *engine.Engine, seen string) (any, error) {
	compared := candidate.Revision()
	switch {
	case s.Shadow.Dir() != "":
		return nil, errors.New("policies that come as bundles are promoted from bundles: see candidates in the file of PDP_BUNDLES")
	case compared == "":
		return nil, errors.New("there is no candidate that loads; see gatehouse-pdp shadow status")
	case seen != "" && seen != compared:
		return nil, fmt.Errorf("the candidate is %s by now, and not %s", compared, seen)
	}
	before := s.Engine.Revision()
	// What is asked for is done, whoever hangs up meanwhile.
	err := s.Bundles.Promote(context.WithoutCancel(r.Context()), s.Candidate(), compared, r.RemoteAddr)
	s.did(r, "policies promoted", "policies not promoted", before, compared, err)
	return Turned{s.Engine.Revision(), before}, err
}

// release lets what the sources send decide again.
func (s *Server) release(r *http.Request) (any, error) {
	if s.Bundles == nil {
		return nil, errors.New("there are no sources of bundles that could be pinned, or the decision point was started without PDP_REVISIONS")
	}
	before := s.Engine.Revision()
	err := s.Bundles.Release(context.WithoutCancel(r.Context()), r.RemoteAddr)
	s.did(r, "policies released", "policies not released", before, s.Engine.Revision(), err)
	return Turned{s.Engine.Revision(), before}, err
}

func (s *Server) rollback(r *http.Request) (any, error) {
	if s.Revisions == nil && s.Bundles == nil {
		return nil, errNoRevisions
	}
	before := s.Engine.Revision()
	var to string
	var err error
	if s.Bundles != nil {
		to, err = s.Bundles.Back(context.WithoutCancel(r.Context()), r.RemoteAddr)
	} else {
		to, err = s.Revisions.Back(r.Context(), s.Engine, r.RemoteAddr)
	}
	s.did(r, "policies rolled back", "policies not rolled back", before, to, err)
	return Turned{s.Engine.Revision(), before}, err
}

func (s *Server) did(r *http.Request, done, not, from, to string, err error) {
	if err != nil {
		s.Log.ErrorContext(r.Context(), not, "by", r.RemoteAddr, "from", from, "to", to, "error", err) //nolint:sloglint // one of two constants
		return
	}
	s.Log.WarnContext(r.Context(), done, "by", r.RemoteAddr, "from", from, "to", to) //nolint:sloglint // one of two constants
}

// Ask asks the decision point behind a socket.
func Ask(ctx context.Context, socket, method, path string, body, into any) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(socket, "unix://"))
	}
	transport := &http.Transport{DialContext: dial}
	defer transport.CloseIdleConnections()
	var text strings.Builder
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, strings.NewReader(text.String()))
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", socket, errors.Unwrap(err))
	}
	defer res.Body.Close()
	dec := json.NewDecoder(io.LimitReader(res.Body, 64<<20))
	if res.StatusCode != http.StatusOK {
		var failed Failed
		if err := dec.Decode(&failed); err != nil || failed.Error == "" {
			return fmt.Errorf("%s: %s", socket, res.Status)
		}
		return errors.New(failed.Error)
	}
	return dec.Decode(into)
}
