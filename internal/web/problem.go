// Package web is what the programs share to speak HTTP: problem documents (RFC 9457), the one place where a fault becomes
// a status, and the middleware around every handler.
package web

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// problemTypes is where each problem's type is described; the code is its fragment.
const problemTypes = "https://gatehouse-auth.github.io/problems#"

// ProblemDocument is the body of every error answer (RFC 9457 section 3), with Gatehouse's members.
type ProblemDocument struct {
	Type       string       `json:"type"`
	Title      string       `json:"title"`
	Status     int          `json:"status"`
	Detail     string       `json:"detail"`
	Code       string       `json:"code"`     // stable and snake_case, for programs
	TraceID    string       `json:"trace_id"` // W3C trace id, 32 hexadecimal digits
	DecisionID string       `json:"decision_id,omitempty"`
	Errors     []FieldError `json:"errors,omitempty"`
	Challenge  any          `json:"challenge,omitempty"`
}

// FieldError says what is wrong with one field, never what its value was.
type FieldError struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// NewProblem makes a problem document whose title is the status's standard text.
func NewProblem(traceID string, status int, code, detail string) *ProblemDocument {
	return &ProblemDocument{
		Type: problemTypes + code, Title: http.StatusText(status), Status: status,
		Detail: detail, Code: code, TraceID: traceID,
	}
}

// Problem turns err into the answer for it. An error without a fault is a 500 that says nothing of its cause.
func Problem(ctx context.Context, err error) *ProblemDocument {
	f, ok := fault.As(err)
	if !ok {
		f = fault.New(fault.Internal, "")
	}
	detail := f.Detail
	if f.Code == fault.Internal {
		detail = "Something went wrong on our side; the trace id finds it in the log."
	}
	return NewProblem(TraceID(ctx), statusOf(f), f.Reason, detail)
}

// statusOf prefers the status of a reason that HTTP has a number of its own for.
func statusOf(f *fault.Error) int {
	switch f.Reason {
	case "body_late":
		return http.StatusRequestTimeout
	case "body_too_large", "body_buffered":
		return http.StatusRequestEntityTooLarge
	case "unsupported_media_type":
		return http.StatusUnsupportedMediaType
	case "unprocessable":
		return http.StatusUnprocessableEntity
	case "precondition_failed":
		return http.StatusPreconditionFailed
	case "precondition_required":
		return http.StatusPreconditionRequired
	case "search_unsupported":
		return http.StatusNotImplemented
	}
	switch f.Code {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Limited:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func (p *ProblemDocument) Error() string { return p.Code + ": " + p.Detail }

// GetStatus answers the HTTP status (huma.StatusError).
func (p *ProblemDocument) GetStatus() int { return p.Status }

// ContentType answers the media type of problem documents whatever the handler's own is (huma.ContentTypeFilter).
func (p *ProblemDocument) ContentType(string) string { return problemJSON }

const problemJSON = "application/problem+json"

// JSON encodes p.
func (p *ProblemDocument) JSON() []byte {
	b, err := json.Marshal(p)
	if err != nil { // only Challenge can fail to encode
		bare := *p
		bare.Challenge = nil
		b, _ = json.Marshal(&bare)
	}
	return b
}

// WriteProblem answers p.
func WriteProblem(w http.ResponseWriter, p *ProblemDocument) {
	body := p.JSON()
	h := w.Header()
	h.Set("Content-Type", problemJSON)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
		h.Set("WWW-Authenticate", `Bearer realm="gatehouse"`)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the caller is gone; there is nobody to tell
}
