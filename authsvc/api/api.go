// Package api is authsvc's HTTP interface. A handler decodes, calls one method and answers; what can go wrong is named by
// the domain's faults and turned into problem documents in one place. Access tokens are verified here again, although the
// edge has done so: whoever reaches this service past the edge gains nothing.
package api

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// Logins is what the auth role serves.
type Logins interface {
	Register(ctx context.Context, email, password, name string) error
	VerifyEmail(ctx context.Context, email, code string) error
	Login(ctx context.Context, email, password string) (login.Grant, error)
	Refresh(ctx context.Context, presented string) (login.Grant, error)
	Logout(ctx context.Context, p principal.Principal) error
	User(ctx context.Context, p principal.Principal) (account.User, error)
}

// Profiles is what the profile role serves.
type Profiles interface {
	Get(ctx context.Context, userID string) (profile.Profile, error)
	Patch(ctx context.Context, userID string, patch []byte, ifMatch string) (profile.Profile, error)
}

// Options are the parts behind the interface.
type Options struct {
	Logins       Logins   // nil leaves the auth role out
	Profiles     Profiles // nil leaves the profile role out
	Authenticate func(ctx context.Context, accessToken string) (principal.Principal, error)
	KeySet       func(ctx context.Context) ([]byte, error)
	Issuer       string
	Checks       map[string]web.Check // for /readyz
	Log          *slog.Logger
}

type handler struct{ Options }

// New makes the whole handler, middleware included.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	h := &handler{o}
	routes := humago.New(mux, config())
	if o.Logins != nil {
		h.auth(routes)
		h.discovery(mux)
	}
	if o.Profiles != nil {
		h.profile(routes)
	}
	return chained(mux, o.Checks, o.Log)
}

// chained puts health and middleware around an interface.
func chained(mux *http.ServeMux, checks map[string]web.Check, log *slog.Logger) http.Handler {
	health := web.Health(checks)
	mux.Handle("GET /healthz", health)
	mux.Handle("GET /readyz", health)

	chain := whole(web.Mux(mux))
	chain = web.LimitBody(maxBody, chain)
	chain = challenge(chain)
	chain = web.SecurityHeaders(chain)
	chain = web.Recover(log, chain)
	chain = web.Log(log, chain)
	return web.Trace(chain)
}

func config() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Gatehouse authsvc", Version: "1"},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			},
		},
		Formats:       map[string]huma.Format{"application/json": format(), "json": format()},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{problems},
	}
}

// operation describes an endpoint; every body has the same bound, and is there when the endpoint is asked.
func operation(id, method, path, summary string, status int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: status,
		MaxBodyBytes: maxBody, BodyReadTimeout: -1,
	}
}

// challenge adds WWW-Authenticate to each 401 (RFC 9110 section 15.5.2).
func challenge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&challenger{ResponseWriter: w}, r)
	})
}

type challenger struct{ http.ResponseWriter }

func (c *challenger) WriteHeader(status int) {
	if status == http.StatusUnauthorized && c.Header().Get("WWW-Authenticate") == "" {
		c.Header().Set("WWW-Authenticate", `Bearer realm="gatehouse"`)
	}
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the writer underneath.
func (c *challenger) Unwrap() http.ResponseWriter { return c.ResponseWriter }
