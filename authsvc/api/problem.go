package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// problems turns the errors that huma finds in a request into problem documents. It keeps where something is wrong and
// which rule it breaks, and drops what was sent.
func problems(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problemOf(ctx.Context(), m.Status)
	if m.Status != http.StatusUnprocessableEntity {
		return p, nil
	}
	for _, e := range m.Errors {
		if e == nil {
			continue
		}
		field := web.FieldError{Path: strings.TrimPrefix(e.Location, "body."), Message: e.Message}
		if strings.HasPrefix(e.Message, "unexpected property") { // its name is the sender's
			field = web.FieldError{Path: "body", Message: "unexpected property"}
		}
		p.Errors = append(p.Errors, field)
	}
	return p, nil
}

// problemOf says what a status means for a body.
func problemOf(ctx context.Context, status int) *web.ProblemDocument {
	code, detail := "internal", "Something went wrong on our side; the trace id finds it in the log."
	switch status {
	case http.StatusBadRequest:
		code, detail = "malformed_body", "The body is missing, breaks off, is not JSON, or names something twice."
	case http.StatusRequestTimeout:
		code, detail = "body_timeout", "The body did not arrive in time."
	case http.StatusRequestEntityTooLarge:
		code, detail = "body_too_large", "The body is too large."
	case http.StatusUnsupportedMediaType:
		code, detail = "unsupported_media_type", "The body has to be JSON."
	case http.StatusUnprocessableEntity:
		code, detail = "unprocessable", "The body is JSON, but not of the right shape."
	}
	return web.NewProblem(web.TraceID(ctx), status, code, detail)
}

// fail answers an error of the domain, and logs the cause of one that is ours.
func (h *handler) fail(ctx context.Context, err error) error {
	p := web.Problem(ctx, err)
	if p.Status >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		h.Log.ErrorContext(ctx, "request failed on our side", "trace_id", p.TraceID, "code", p.Code, "error", err)
	}
	return p
}

var (
	errNoToken   = fault.New(fault.Unauthenticated, "Send an access token as Authorization: Bearer.").Named("token_missing")
	errMediaType = fault.New(fault.Invalid, "The body has to be application/merge-patch+json.").Named("unsupported_media_type")
)

// bearer takes the access token out of an Authorization header (RFC 6750 section 2.1).
func bearer(header string) (string, error) {
	scheme, token, ok := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errNoToken
	}
	return token, nil
}
