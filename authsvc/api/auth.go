package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

func (h *handler) auth(routes huma.API) {
	huma.Register(routes, operation("register", http.MethodPost, "/auth/register",
		"Register an address; a code that proves it goes by mail", http.StatusAccepted), h.register)
	huma.Register(routes, operation("verify-email", http.MethodPost, "/auth/verify-email",
		"Prove an address with the code", http.StatusNoContent), h.verifyEmail)
	huma.Register(routes, operation("login", http.MethodPost, "/auth/login", "Log in", http.StatusOK), h.login)
	huma.Register(routes, operation("refresh", http.MethodPost, "/auth/refresh",
		"Exchange a refresh token for its successor and a new access token", http.StatusOK), h.refresh)
	huma.Register(routes, operation("logout", http.MethodPost, "/auth/logout",
		"End the session of the access token", http.StatusNoContent), h.logout)
	huma.Register(routes, operation("me", http.MethodGet, "/auth/me", "Read the own account", http.StatusOK), h.me)
}

type registerInput struct {
	Body struct {
		Email    string `json:"email" maxLength:"254"`
		Password string `json:"password" maxLength:"1024" doc:"at least 15 characters, counted in code points; at most 1024 bytes"`
		Name     string `json:"name,omitempty" maxLength:"100"`
	}
}

type statusOutput struct {
	Body struct {
		Status string `json:"status" doc:"what happens next, the same for a new and a known address"`
	}
}

func (h *handler) register(ctx context.Context, in *registerInput) (*statusOutput, error) {
	if err := h.Logins.Register(ctx, in.Body.Email, in.Body.Password, in.Body.Name); err != nil {
		return nil, h.fail(ctx, err)
	}
	out := &statusOutput{}
	out.Body.Status = "mail_sent"
	return out, nil
}

type verifyInput struct {
	Body struct {
		Email string `json:"email" maxLength:"254"`
		Code  string `json:"code" maxLength:"64"`
	}
}

func (h *handler) verifyEmail(ctx context.Context, in *verifyInput) (*struct{}, error) {
	if err := h.Logins.VerifyEmail(ctx, in.Body.Email, in.Body.Code); err != nil {
		return nil, h.fail(ctx, err)
	}
	return nil, nil
}

type loginInput struct {
	Body struct {
		Email    string `json:"email" maxLength:"254"`
		Password string `json:"password" maxLength:"1024"`
	}
}

// grantOutput has the shape of RFC 6749 section 5.1.
type grantOutput struct {
	Body struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in" doc:"seconds"`
		RefreshToken string `json:"refresh_token"`
		SessionID    string `json:"session_id"`
	}
}

func grantOf(g login.Grant) *grantOutput {
	out := &grantOutput{}
	out.Body.AccessToken, out.Body.TokenType = g.AccessToken, "Bearer"
	out.Body.ExpiresIn = int64(g.ExpiresIn / time.Second)
	out.Body.RefreshToken, out.Body.SessionID = g.RefreshToken, g.SessionID
	return out
}

func (h *handler) login(ctx context.Context, in *loginInput) (*grantOutput, error) {
	g, err := h.Logins.Login(ctx, in.Body.Email, in.Body.Password)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return grantOf(g), nil
}

type refreshInput struct {
	Body struct {
		RefreshToken string `json:"refresh_token" maxLength:"512"`
	}
}

func (h *handler) refresh(ctx context.Context, in *refreshInput) (*grantOutput, error) {
	g, err := h.Logins.Refresh(ctx, in.Body.RefreshToken)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return grantOf(g), nil
}

// CallerInput is what says who asks. Like all that is embedded in an input, it is exported for huma to see it.
type CallerInput struct {
	Authorization string `header:"Authorization" doc:"Bearer and an access token"`
}

func (h *handler) caller(ctx context.Context, authorization string) (principal.Principal, error) {
	token, err := bearer(authorization)
	if err != nil {
		return principal.Principal{}, err
	}
	return h.Authenticate(ctx, token)
}

type logoutOutput struct {
	ClearSiteData string `header:"Clear-Site-Data"`
}

func (h *handler) logout(ctx context.Context, in *CallerInput) (*logoutOutput, error) {
	p, err := h.caller(ctx, in.Authorization)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	if err := h.Logins.Logout(ctx, p); err != nil {
		return nil, h.fail(ctx, err)
	}
	return &logoutOutput{ClearSiteData: `"cache", "cookies", "storage"`}, nil
}

type meOutput struct {
	Body struct {
		ID            string    `json:"id"`
		Email         string    `json:"email"`
		EmailVerified bool      `json:"email_verified"`
		Roles         []string  `json:"roles"`
		CreatedAt     time.Time `json:"created_at"`
	}
}

func (h *handler) me(ctx context.Context, in *CallerInput) (*meOutput, error) {
	p, err := h.caller(ctx, in.Authorization)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	u, err := h.Logins.User(ctx, p)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	out := &meOutput{}
	out.Body.ID, out.Body.Email, out.Body.EmailVerified = u.ID, u.Email, u.Verified()
	out.Body.Roles, out.Body.CreatedAt = append([]string{}, u.Roles...), u.CreatedAt.UTC()
	return out, nil
}
