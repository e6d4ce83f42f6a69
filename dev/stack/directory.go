package stack

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

// openDirectory lets the decision point know subjects as authsvc does. Both are here, so the socket's mode says who may read.
func (s *Stack) openDirectory() error {
	d, err := directory.New(directory.Options{URL: app.UnixScheme + s.socket("directory"), Issuer: s.URL(), Log: s.log})
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	s.directory = d
	s.services = append(s.services, s.directory)
	return nil
}

// serveDirectory serves what authsvc knows of subjects.
func (s *Stack) serveDirectory(ctx context.Context, a *app.App) error {
	ln, err := web.ListenUnix(ctx, s.socket("directory"), 0o600)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	s.closers = append(s.closers, closing(ln))
	handler := a.Directory(func(*http.Request) (string, error) { return "gatehouse-pdp", nil })
	s.services = append(s.services, lifecycle.Func(func(ctx context.Context) error { return web.Serve(ctx, ln, handler, s.log) }))
	return nil
}
