package api_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/api"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// ledger keeps what would have been stored.
type ledger struct {
	role.Store
	stored any
}

func (*ledger) Held(context.Context, string) (role.Held, error) {
	return role.Held{Account: []string{role.Admin}}, nil
}
func (*ledger) Graph(context.Context) (role.Graph, error) { return role.Graph{}, nil }

func (l *ledger) CreateRole(_ context.Context, _ role.Cause, r role.Role, _ role.Guard) (role.Role, uint64, error) {
	l.stored = r
	return r, 1, nil
}

func (l *ledger) UpdateRole(_ context.Context, _ role.Cause, name string, fn func(*role.Role) error, _ role.Guard) (role.Role, uint64, error) {
	r := role.Role{Name: name, Version: 1}
	err := fn(&r)
	l.stored = r
	return r, 1, err
}

func (l *ledger) Grant(_ context.Context, _ role.Cause, b role.Binding, _ role.Guard, _ ...job.Job) (uint64, error) {
	l.stored = b
	return 1, nil
}

func (l *ledger) SetSubject(_ context.Context, _ role.Cause, id string, fn func(*role.Subject) error) (role.Subject, uint64, error) {
	n := role.Subject{ID: id}
	err := fn(&n)
	l.stored = n
	return n, 1, err
}

// FuzzAdminBody: whatever an admin sends, it is stored in a form that can be stored and shown, or the answer is a problem that repeats
// nothing and is never our fault.
func FuzzAdminBody(f *testing.F) {
	paths := []string{"POST /roles", "PUT /roles/reader", "POST /bindings", "PUT /subjects/ada"}
	f.Add(uint8(0), []byte(`{"name":"reader","description":"d","protected":true,"inherits":["a"],"permissions":[{"action":"a","resource":"r","conditions":["own"]}],"reason":"r"}`))
	f.Add(uint8(1), []byte(`{"inherits":["b","a","a"],"permissions":[{"action":"","resource":"canary-9f3b "}]}`))
	f.Add(uint8(2), []byte(`{"subject":"ada","role":"reader","tenant":"acme","until":"2026-03-01T13:00:00.123456789+01:00","break_glass":true,"reason":"r","ticket":"t"}`))
	f.Add(uint8(2), []byte(`{"subject":"ada","role":"reader","until":"9999-12-31T23:59:59-23:59"}`))
	f.Add(uint8(3), []byte(`{"tenant":"acme","groups":["a"],"attributes":{"a":1e15,"b":[null,{"c":"\u0000canary-9f3b"}],"d":-0.0,"e":1e-300}}`))
	f.Add(uint8(3), []byte(`{"attributes":{"a":{"a":{"a":{"a":{"a":1}}}}}}`))
	l := &ledger{}
	log := slog.New(slog.DiscardHandler)
	handler := api.NewAdmin(api.AdminOptions{ // once: it takes a hundred times as long as a request
		Roles: &role.Service{Store: l, Now: noon, NewID: func() string { return "id" }, Log: log}, Log: log,
		Authenticate: func(context.Context, string) (principal.Principal, error) {
			return principal.Principal{Subject: "boss"}, nil
		},
	})
	f.Fuzz(func(t *testing.T, i uint8, body []byte) {
		l.stored = nil
		method, path, _ := strings.Cut(paths[int(i)%len(paths)], " ")
		r := httptest.NewRequestWithContext(t.Context(), method, "/admin/v1"+path, strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer x")
		r.Header.Set("If-Match", `"1"`)
		if method == http.MethodPut && path == "/subjects/ada" {
			r.Header.Del("If-Match")
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code >= 400 {
			var p struct{ Status int }
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || w.Code >= 500 || l.stored != nil {
				t.Errorf("%d %s, stored %v", w.Code, w.Body, l.stored)
			}
			if strings.Contains(w.Body.String(), canary) {
				t.Errorf("it comes back: %s", w.Body)
			}
			return
		}
		stored, err := json.Marshal(l.stored)
		if err != nil || strings.Contains(string(stored), `\u0000`) || len(stored) > 1<<20 {
			t.Errorf("stored: %v: %.200s", err, stored)
		}
		if b, is := l.stored.(role.Binding); is && b.Until != nil && (!b.Until.After(noon()) || b.Until.Nanosecond()%int(time.Microsecond) != 0) {
			t.Errorf("it ends at %v", b.Until)
		}
	})
}
