package server

import (
	"context"
	"errors"
	"maps"
	"net/http"

	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// serveHealth answers whoever asks, however busy the server is. Why policies do not load is for known callers, and for Status.
func (s *server) serveHealth(mux *http.ServeMux) {
	checks := map[string]web.Check{"policies": func(ctx context.Context) error {
		err := s.Engine.Ready()
		if err != nil && s.Callers.Required() && ctx.Value(tellAll{}) == nil {
			return vague(err)
		}
		return err
	}}
	maps.Copy(checks, s.Checks)
	health := web.Health(checks)
	told := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.Callers.Identify(r); err == nil {
			r = r.WithContext(context.WithValue(r.Context(), tellAll{}, true))
		}
		health.ServeHTTP(w, r)
	})
	mux.Handle("GET /healthz", told)
	mux.Handle("GET /readyz", told)
}

type tellAll struct{}

// vague keeps of an error whether the program goes on all the same.
func vague(err error) error {
	if isDegraded(err) {
		return web.Degraded("The newest policies do not load; older ones decide.")
	}
	return errors.New("not ready")
}

func isDegraded(err error) bool { return errors.Is(err, web.Degraded("")) }

// Status is the handler of a private listener: health with all that is known, and metrics (S69).
func Status(e Engine, metrics http.Handler, others map[string]web.Check) http.Handler {
	checks := map[string]web.Check{"policies": func(context.Context) error { return e.Ready() }}
	maps.Copy(checks, others)
	health := web.Health(checks)
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", health)
	mux.Handle("GET /readyz", health)
	mux.Handle("GET /metrics", metrics)
	return web.Trace(web.Mux(mux))
}
