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
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/api"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// heard keeps what a handler has understood of a body.
type heard struct {
	values map[string]string
}

func (h *heard) Register(_ context.Context, email, password, name string) error {
	h.values = map[string]string{"email": email, "password": password, "name": name}
	return nil
}

func (h *heard) VerifyEmail(_ context.Context, email, code string) error {
	h.values = map[string]string{"email": email, "code": code}
	return nil
}

func (h *heard) Login(_ context.Context, email, password string) (login.Grant, error) {
	h.values = map[string]string{"email": email, "password": password}
	return login.Grant{ExpiresIn: time.Minute}, nil
}

func (h *heard) Refresh(_ context.Context, presented string) (login.Grant, error) {
	h.values = map[string]string{"refresh_token": presented}
	return login.Grant{ExpiresIn: time.Minute}, nil
}

func (*heard) Logout(context.Context, principal.Principal) error { return nil }

func (*heard) User(context.Context, principal.Principal) (account.User, error) {
	return account.User{}, nil
}

// FuzzBody: whatever is sent, a handler hears exactly what a plain reading of the body says, or the answer is a problem
// that repeats nothing and is never our fault.
func FuzzBody(f *testing.F) {
	paths := []string{"/auth/register", "/auth/verify-email", "/auth/login", "/auth/refresh"}
	for i, path := range paths {
		f.Add(uint8(i), "application/json", []byte(bodies()[path]))
	}
	f.Add(uint8(2), "", []byte(`{"email":"a","EMAIL":"b","password":"c"}`))
	f.Add(uint8(2), "application/json", []byte(`{"email":"a","\u0065mail":"canary-9f3b","password":"c"}`))
	f.Add(uint8(2), "a/b+json; c=d", []byte(`{"paſſword":"a","email":"\ud800"}`))
	f.Add(uint8(0), "application/json", []byte(`{"email":null,"password":{"canary-9f3b":[1e999]},"name":"\u0000"}`))
	f.Add(uint8(3), "text/plain", []byte("\xff"))
	f.Fuzz(func(t *testing.T, i uint8, media string, body []byte) {
		var h heard
		handler := api.New(api.Options{Logins: &h, Log: slog.New(slog.DiscardHandler)})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, paths[int(i)%len(paths)], strings.NewReader(string(body)))
		r.Header.Set("Content-Type", media)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code >= 400 {
			var p struct{ Status int }
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || w.Code >= 500 || h.values != nil {
				t.Errorf("%d %s, heard %v", w.Code, w.Body, h.values)
			}
			if strings.Contains(w.Body.String(), canary) {
				t.Errorf("it comes back: %s", w.Body)
			}
			return
		}
		plain := map[string]string{}
		var m map[string]string
		if err := json.Unmarshal(body, &m); err != nil || !utf8.Valid(body) {
			t.Fatalf("%q was taken: %v", body, err)
		}
		if _, named := h.values["name"]; named {
			plain["name"] = ""
		}
		for name, value := range m {
			for known := range h.values {
				if strings.EqualFold(name, known) {
					plain[known] = value
				}
			}
		}
		if diff := cmp.Diff(plain, h.values); diff != "" || len(m) > len(h.values) {
			t.Errorf("%q (-read +heard):\n%s", body, diff)
		}
	})
}
