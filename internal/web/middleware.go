package web

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"time"
)

// Recover answers 500 for a panicking handler and logs its stack.
func Recover(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			log.ErrorContext(r.Context(), "handler panicked", "trace_id", TraceID(r.Context()), "panic", p, "stack", string(debug.Stack()))
			WriteProblem(w, Problem(r.Context(), errors.New("panic")))
		}()
		next.ServeHTTP(w, r)
	})
}

// Log writes one line for each request that failed (status 400 and above). It logs the path without its query, which may
// hold a secret.
func Log(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		if rec.status < 400 {
			return
		}
		level := slog.LevelInfo
		if rec.status >= 500 {
			level = slog.LevelError
		}
		log.Log(r.Context(), level, "request failed", "method", r.Method, "path", r.URL.Path, "status", rec.status,
			"trace_id", TraceID(r.Context()), "duration", time.Since(start))
	})
}

type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote && status >= 200 {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the writer underneath.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// LimitBody makes reads beyond n bytes of a body fail with *http.MaxBytesError, and refuses at once a request that
// declares more.
func LimitBody(n int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > n {
			p := NewProblem(TraceID(r.Context()), http.StatusRequestEntityTooLarge, "body_too_large", "The body is too large.")
			w.Header().Set("Connection", "close")
			WriteProblem(w, p)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, n)
		next.ServeHTTP(w, r)
	})
}

// securityHeaders are shared by all answers: who sets one of them anew replaces it.
var securityHeaders = http.Header{
	"X-Content-Type-Options":    {"nosniff"},
	"Content-Security-Policy":   {"default-src 'none'; frame-ancestors 'none'"},
	"Referrer-Policy":           {"no-referrer"},
	"Cache-Control":             {"no-store"},
	"Strict-Transport-Security": {"max-age=31536000; includeSubDomains"},
}

// SecurityHeaders sets what suits an API that no page may frame, sniff or cache.
func SecurityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), securityHeaders)
		next.ServeHTTP(w, r)
	})
}

// Mux answers the 404 and 405 of next (a mux that says them in plain text) as problem documents.
func Mux(next *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := next.Handler(r); pattern != "" {
			next.ServeHTTP(w, r)
			return
		}
		miss := &missWriter{header: http.Header{}, status: http.StatusNotFound}
		next.ServeHTTP(miss, r)
		code, detail := "not_found", "There is nothing at this path."
		if miss.status == http.StatusMethodNotAllowed {
			code, detail = "method_not_allowed", "The path does not know this method."
			w.Header().Set("Allow", miss.header.Get("Allow"))
		} else {
			miss.status = http.StatusNotFound
		}
		WriteProblem(w, NewProblem(TraceID(r.Context()), miss.status, code, detail))
	})
}

// missWriter takes the mux's own answer, of which only the status and Allow are kept.
type missWriter struct {
	header http.Header
	status int
}

func (m *missWriter) Header() http.Header         { return m.header }
func (m *missWriter) WriteHeader(status int)      { m.status = status }
func (m *missWriter) Write(b []byte) (int, error) { return len(b), nil }
