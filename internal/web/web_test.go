package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

func TestEachFaultHasItsStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{fault.New(fault.Invalid, "x"), 400, "invalid"},
		{fault.New(fault.Invalid, "x").Named("body_too_large"), 413, "body_too_large"},
		{fault.New(fault.Invalid, "x").Named("unsupported_media_type"), 415, "unsupported_media_type"},
		{fault.New(fault.Invalid, "x").Named("body_buffered"), 413, "body_buffered"},
		{fault.New(fault.Invalid, "x").Named("body_late"), 408, "body_late"},
		{fault.New(fault.Invalid, "x").Named("unprocessable"), 422, "unprocessable"},
		{fault.New(fault.Unauthenticated, "x"), 401, "unauthenticated"},
		{fault.New(fault.Forbidden, "x").Named("email_not_verified"), 403, "email_not_verified"},
		{fault.New(fault.NotFound, "x"), 404, "not_found"},
		{fault.New(fault.Conflict, "x").Named("precondition_failed"), 412, "precondition_failed"},
		{fault.New(fault.Conflict, "x"), 409, "conflict"},
		{fault.New(fault.Conflict, "x").Named("precondition_required"), 428, "precondition_required"},
		{fault.New(fault.Limited, "x"), 429, "limited"},
		{fault.New(fault.Unavailable, "x"), 503, "unavailable"},
		{errors.New("x"), 500, "internal"},
	} {
		p := web.Problem(t.Context(), c.err)
		if p.Status != c.status || p.Code != c.code {
			t.Errorf("%v: %d %s, want %d %s", c.err, p.Status, p.Code, c.status, c.code)
		}
	}
}

// S69: the cause of a failure stays in the log.
func TestAnInternalErrorSaysNothingOfItsCause(t *testing.T) {
	t.Parallel()
	const canary = "dsn with password"
	for _, err := range []error{errors.New(canary), fault.New(fault.Unavailable, "try later").Because(errors.New(canary)), fault.New(fault.Internal, canary)} {
		if body := string(web.Problem(t.Context(), err).JSON()); strings.Contains(body, canary) {
			t.Errorf("the cause is shown: %s", body)
		}
	}
}

func TestAProblemKeepsItsShapeWhenTheChallengeCannotBeEncoded(t *testing.T) {
	t.Parallel()
	p := web.NewProblem("t", 403, "challenge_required", "d")
	p.Challenge = func() {}
	var doc map[string]any
	if err := json.Unmarshal(p.JSON(), &doc); err != nil || doc["code"] != "challenge_required" {
		t.Errorf("document %v, error %v", doc, err)
	}
}

func TestAPanicAnswersAProblemWithTheTraceOfTheRequest(t *testing.T) {
	t.Parallel()
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	log := slog.New(slog.DiscardHandler)
	h := web.Trace(web.Log(log, web.Recover(log, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") }))))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var p web.ProblemDocument
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w.Code != 500 || p.TraceID != trace || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("status %d, trace %q, type %q", w.Code, p.TraceID, w.Header().Get("Content-Type"))
	}
}

func TestOnlyAWellFormedTraceparentIsTaken(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if _, ok := web.ParseTraceparent(good); !ok {
		t.Error("a valid header is refused")
	}
	for _, bad := range []string{
		"", "00", good + "x", "ff" + good[2:], strings.ToUpper(good), strings.Replace(good, "-", "_", 1),
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
	} {
		if id, ok := web.ParseTraceparent(bad); ok {
			t.Errorf("%q is taken as trace %q", bad, id)
		}
	}
}

func TestAMuxMissIsAProblem(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	h := web.Mux(mux)
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{{"GET", "/a", 204, ""}, {"GET", "/b", 404, "not_found"}, {"POST", "/a", 405, "method_not_allowed"}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.code) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
		if c.status == 405 && !strings.Contains(w.Header().Get("Allow"), "GET") {
			t.Errorf("405 without Allow: %v", w.Header())
		}
	}
}

func TestABodyOverTheLimitIsRefusedWhetherDeclaredOrNot(t *testing.T) {
	t.Parallel()
	h := web.LimitBody(4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	declared := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("12345"))
	chunked := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", io.NopCloser(strings.NewReader("12345")))
	chunked.ContentLength = -1
	for _, c := range []struct {
		r    *http.Request
		want int
	}{{declared, 413}, {chunked, 418}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, c.r)
		if w.Code != c.want {
			t.Errorf("length %d: status %d, want %d", c.r.ContentLength, w.Code, c.want)
		}
	}
}

func TestReadinessTellsDegradedFromUnavailable(t *testing.T) {
	t.Parallel()
	ok := func(context.Context) error { return nil }
	less := func(context.Context) error { return web.Degraded("Redis is away; limits are counted locally.") }
	gone := func(context.Context) error { return errors.New("dial tcp: secret host") }
	for _, c := range []struct {
		checks map[string]web.Check
		status int
		word   string
	}{
		{map[string]web.Check{"a": ok}, 200, `"ok"`},
		{map[string]web.Check{"a": ok, "b": less}, 200, `"degraded"`},
		{map[string]web.Check{"a": less, "b": gone}, 503, `"unavailable"`},
	} {
		w := httptest.NewRecorder()
		web.Health(c.checks).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), `"status":`+c.word) || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%d %s, want %d %s", w.Code, w.Body, c.status, c.word)
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- web.Serve(ctx, ln, web.Health(nil), slog.New(slog.DiscardHandler)) }()
	res, err := testhttp.Client.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}
