package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// drain is how long requests under way may take to end at shutdown.
const drain = time.Second

// Serve serves h on ln until ctx ends, then lets requests under way end for a second and cuts the rest.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	return serve(ctx, ln, h, log, nil)
}

// ServeHTTP2 is Serve for HTTP/2 alone, which is what gRPC speaks: over a listener of TLS, or else by prior knowledge (RFC 9113
// section 3.3).
func ServeHTTP2(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	p.SetHTTP2(true)
	return serve(ctx, ln, h, log, p)
}

func serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger, p *http.Protocols) error {
	s := &http.Server{
		Protocols:         p,
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := s.Shutdown(stop); err != nil {
		if err := s.Close(); err != nil {
			return fmt.Errorf("close %s: %w", ln.Addr(), err)
		}
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return nil
}

// Check says whether one part works. A fault named "degraded" means that the program goes on with less.
type Check = func(ctx context.Context) error

// Degraded makes the error of a part that the program can do without for a while.
func Degraded(detail string) error {
	return fault.New(fault.Unavailable, detail).Named("degraded")
}

// Health serves /healthz (the process runs) and /readyz (every check): 200 with status "ok" or "degraded", 503 with
// "unavailable".
func Health(checks map[string]Check) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, health{Status: "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		status, answer := http.StatusOK, health{Status: "ok", Checks: map[string]string{}}
		for name, check := range checks {
			err := check(ctx)
			answer.Checks[name] = describe(err)
			switch {
			case err == nil:
			case errors.Is(err, Degraded("")):
				if answer.Status == "ok" {
					answer.Status = "degraded"
				}
			default:
				answer.Status, status = "unavailable", http.StatusServiceUnavailable
			}
		}
		writeHealth(w, status, answer)
	})
	return mux
}

type health struct {
	Status string            `json:"status"`
	Checks map[string]string `json:"checks,omitempty"`
}

// describe shows a fault's detail and hides what any other error might give away.
func describe(err error) string {
	if err == nil {
		return "ok"
	}
	if f, ok := fault.As(err); ok && f.Detail != "" {
		return f.Detail
	}
	return "failed; see the log"
}

func writeHealth(w http.ResponseWriter, status int, h health) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(h) // the caller is gone; there is nobody to tell
}
