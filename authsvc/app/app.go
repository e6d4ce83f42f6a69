// Package app reads authsvc's configuration and wires its parts. Build starts nothing; Run does.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/api"
	"github.com/gatehouse-auth/gatehouse/authsvc/directory"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
	"github.com/gatehouse-auth/gatehouse/authsvc/password"
	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/authsvc/work"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// maxSkew is how far the clocks of edge and authsvc may differ (S36); a revocation is kept that much longer.
const maxSkew = time.Minute

// Parts are what a main or the development set-up chooses.
type Parts struct {
	DB     *store.DB
	Redis  redis.UniversalClient
	Sender mail.Sender   // nil for the configuration's SMTP server
	Poll   time.Duration // see work.Options
	Now    func() time.Time
	Log    *slog.Logger
}

// App is authsvc, wired.
type App struct {
	Handler http.Handler // of the roles auth and profile
	Admin   http.Handler // of the role admin; nil without it
	Logins  *login.Service

	db     *store.DB
	now    func() time.Time
	tokens *token.Ring
	worker *work.Worker // nil without the role worker
	log    *slog.Logger
}

// Build wires the roles of c, which has been validated.
func Build(c Config, p Parts) (*App, error) {
	logins, tokens, err := Accounts(c, p)
	if err != nil {
		return nil, err
	}
	profiles := &profile.Service{Store: p.DB.Profiles(), Now: p.Now}
	roles := Roles(c, p)
	a := &App{Logins: logins, db: p.DB, now: p.Now, tokens: tokens, log: p.Log}
	o := api.Options{
		Authenticate: logins.Authenticate, KeySet: tokens.JWKS, Issuer: c.Issuer, Log: p.Log,
		Checks: map[string]web.Check{
			"database": p.DB.Ready,
			"keys":     tokens.Load,
			"redis": func(ctx context.Context) error {
				if p.Redis.Ping(ctx).Err() != nil {
					return web.Degraded("Redis is away: the edge learns of ended sessions when it is back.")
				}
				return nil
			},
		},
	}
	if c.Has(Auth) {
		o.Logins = logins
	}
	if c.Has(Profile) {
		o.Profiles = profiles
	}
	a.Handler = api.New(o)
	if c.Has(Admin) {
		a.Admin = api.NewAdmin(api.AdminOptions{Roles: roles, Authenticate: logins.Authenticate, Checks: o.Checks, Log: p.Log})
	}
	if !c.Has(Worker) {
		return a, nil
	}
	if p.Sender == nil {
		if c.SMTPURL == "" {
			return nil, errors.New("AUTHSVC_SMTP_URL: is needed by the role worker")
		}
		if p.Sender, err = mail.NewSMTP(c.SMTPURL, c.MailFrom); err != nil {
			return nil, fmt.Errorf("AUTHSVC_SMTP_URL: %w", err)
		}
	}
	renderer, err := mail.NewRenderer()
	if err != nil {
		return nil, err
	}
	a.worker, err = work.NewWorker(work.Options{
		Queue: p.DB.Queue(), Renderer: renderer, Sender: p.Sender, Profiles: profiles, Expire: roles.Expire, Poll: p.Poll, Now: p.Now, Log: p.Log,
		Address: func(ctx context.Context, userID string) (string, error) {
			u, err := p.DB.Accounts().ByID(ctx, userID)
			return u.Email, err
		},
		Publish: func(ctx context.Context, r job.Revocation) error {
			return redisx.PublishRevocation(ctx, p.Redis, redisx.Revocation(r), p.Now())
		},
	})
	return a, err
}

// Accounts wires what the commands need that work on accounts without serving.
func Accounts(c Config, p Parts) (*login.Service, *token.Ring, error) {
	root, err := c.rootKey()
	if err != nil {
		return nil, nil, err
	}
	box, err := seal.New(root)
	if err != nil {
		return nil, nil, err
	}
	pepper, err := box.Derive("password pepper")
	if err != nil {
		return nil, nil, err
	}
	codes, err := box.Derive("email codes")
	if err != nil {
		return nil, nil, err
	}
	tokens := token.New(token.Options{
		Store: p.DB.Keys(), Box: box, Issuer: c.Issuer, Audience: c.Audience, TTL: c.AccessTTL, Now: p.Now, NewID: newID,
	})
	sessions := &session.Service{
		Store: p.DB.Sessions(), Box: box, Publisher: publisher{p.Redis, p.Now}, TokenLife: c.AccessTTL + maxSkew,
		Now: p.Now, NewID: newID, Log: p.Log,
	}
	return &login.Service{
		Accounts: p.DB.Accounts(), Sessions: sessions, Passwords: password.New(password.Options{Pepper: pepper, AtOnce: c.HashAtOnce}),
		Tokens: tokens, Codes: account.Codes{Key: codes, Now: p.Now}, Check: password.Check, Now: p.Now, NewID: newID, Log: p.Log,
	}, tokens, nil
}

// Roles wires what administers roles. Without Redis the edge learns of a revocation when a worker has done its job.
func Roles(c Config, p Parts) *role.Service {
	return &role.Service{
		Store: p.DB.Roles(), TokenLife: c.AccessTTL + maxSkew, Now: p.Now, NewID: newID, Log: p.Log,
		Publish: func(ctx context.Context, r job.Revocation) error {
			if p.Redis == nil {
				return errors.New("no Redis is configured")
			}
			return redisx.PublishRevocation(ctx, p.Redis, redisx.Revocation(r), p.Now())
		},
	}
}

// Directory answers the handler by which those decision points that identify knows read roles and subjects.
func (a *App) Directory(identify func(*http.Request) (string, error)) http.Handler {
	return directory.New(directory.Options{Store: a.db.Directory(), Identify: identify, Now: a.now, Log: a.log})
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// publisher tells the edge by the stream that it reads.
type publisher struct {
	redis redis.UniversalClient
	now   func() time.Time
}

func (p publisher) Publish(ctx context.Context, r session.Revocation) error {
	return redisx.PublishRevocation(ctx, p.redis, redisx.Revocation{
		Kind: r.Kind, Value: r.Value, NotBefore: r.NotBefore, ExpiresAt: r.ExpiresAt,
	}, p.now())
}

// Serving answers what serves a handler on a listener, to be run beside the rest.
func (a *App) Serving(ln net.Listener, h http.Handler) lifecycle.Service {
	return lifecycle.Func(func(ctx context.Context) error { return web.Serve(ctx, ln, h, a.log) })
}

// Run serves on ln and works until ctx ends, with more beside it. The signing keys are made or loaded meanwhile; a database that is
// away does not end it.
func (a *App) Run(ctx context.Context, ln net.Listener, more ...lifecycle.Service) error {
	services := append([]lifecycle.Service{
		lifecycle.Func(func(ctx context.Context) error { return web.Serve(ctx, ln, a.Handler, a.log) }),
		lifecycle.Func(func(ctx context.Context) error {
			if err := a.tokens.Load(ctx); err != nil && ctx.Err() == nil {
				a.log.ErrorContext(ctx, "signing keys not loaded; they will be when they are needed", "error", err)
			}
			return nil
		}),
	}, more...)
	if a.worker != nil {
		services = append(services, a.worker)
	}
	if err := lifecycle.Run(ctx, services...); err != nil {
		return fmt.Errorf("authsvc: %w", err)
	}
	return nil
}
