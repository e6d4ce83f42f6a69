package web

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
)

type traceKey struct{}

// traced is what a context carries of a request: one value for all, since each costs a copy of the request.
type traced struct {
	id     string
	remote string
}

// Trace gives each request a trace id: that of a valid traceparent header (W3C Trace Context, section 3.2), else a new one.
func Trace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := ParseTraceparent(r.Header.Get("Traceparent"))
		if !ok {
			id = NewTraceID()
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), traceKey{}, &traced{id, r.RemoteAddr})))
	})
}

// WithTraceID returns a context that carries id.
func WithTraceID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, traceKey{}, &traced{id, RemoteAddr(ctx)})
}

// TraceID answers the request's trace id, or "" outside a request.
func TraceID(ctx context.Context) string {
	if t, ok := ctx.Value(traceKey{}).(*traced); ok {
		return t.id
	}
	return ""
}

// RemoteAddr answers the address that the request came from, or "" outside a request.
func RemoteAddr(ctx context.Context) string {
	if t, ok := ctx.Value(traceKey{}).(*traced); ok {
		return t.remote
	}
	return ""
}

// NewTraceID makes 16 random bytes in hexadecimal.
func NewTraceID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	return hex.EncodeToString(b[:])
}

// ParseTraceparent answers the trace id of a traceparent header, and false for one that is malformed or all zeros.
func ParseTraceparent(h string) (traceID string, ok bool) {
	if len(h) < 55 || h[2] != '-' || h[35] != '-' || h[52] != '-' {
		return "", false
	}
	if h[:2] == "ff" || (h[:2] == "00" && len(h) != 55) {
		return "", false
	}
	for _, part := range []string{h[:2], h[3:35], h[36:52], h[53:55]} {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return "", false
		}
	}
	if strings.Trim(h[3:35], "0") == "" || strings.Trim(h[36:52], "0") == "" {
		return "", false
	}
	return h[3:35], true
}
