package orders_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/orders"
)

func TestTwoListenersShareOneStore(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	store := orders.NewStore(func() time.Time { return now })
	a, b := orders.Handler(store, "a"), orders.Handler(store, "b")

	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", strings.NewReader(`{"item":"pen","amount":150,"department":"sales"}`))
	req.Header.Set("X-Gatehouse-Subject", "ada")
	rec := httptest.NewRecorder()
	a.ServeHTTP(rec, req)
	if rec.Code != http.StatusCreated {
		t.Fatalf("POST: %d %s", rec.Code, rec.Body)
	}
	var made orders.Order
	if err := json.Unmarshal(rec.Body.Bytes(), &made); err != nil {
		t.Fatal(err)
	}
	if want := (orders.Order{ID: made.ID, Owner: "ada", Department: "sales", Item: "pen", Amount: 150, CreatedAt: now}); made != want {
		t.Fatalf("order %+v, want %+v", made, want)
	}
	for _, step := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/orders/" + made.ID, http.StatusOK},
		{http.MethodDelete, "/orders/" + made.ID, http.StatusNoContent},
		{http.MethodDelete, "/orders/" + made.ID, http.StatusNotFound},
		{http.MethodGet, "/orders/" + made.ID, http.StatusNotFound},
	} {
		rec := httptest.NewRecorder()
		b.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), step.method, step.path, nil))
		if rec.Code != step.status {
			t.Errorf("%s %s: %d, want %d", step.method, step.path, rec.Code, step.status)
		}
		if got := rec.Header().Get("X-Orders-Copy"); got != "b" {
			t.Errorf("copy %q", got)
		}
	}
}

func TestBadOrdersAreRefused(t *testing.T) {
	t.Parallel()
	h := orders.Handler(orders.NewStore(time.Now), "a")
	for body, want := range map[string]int{
		`{`:                           http.StatusBadRequest,
		`{"item":1}`:                  http.StatusBadRequest,
		`{"item":"","amount":1}`:      http.StatusUnprocessableEntity,
		`{"item":"pen","amount":-1}`:  http.StatusUnprocessableEntity,
		strings.Repeat(" ", 64<<10+1): http.StatusBadRequest,
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", strings.NewReader(body)))
		if rec.Code != want {
			t.Errorf("%.20q: %d, want %d", body, rec.Code, want)
		}
	}
}
