package e2e_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// canary is in every bad value; no answer may repeat it.
const canary = "canary-9f3b"

// Bodies that cannot be read are answered with a problem that never repeats a value.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	const login, profile = "/auth/login", "/user/me"
	for name, c := range map[string]struct {
		method, path, contentType, body string
		status                          []int
	}{
		"not JSON":           {http.MethodPost, login, "application/json", canary, []int{400}},
		"truncated":          {http.MethodPost, login, "application/json", `{"email":"` + canary + `@example.com","pass`, []int{400}},
		"nothing":            {http.MethodPost, login, "application/json", "", []int{400, 422}},
		"null":               {http.MethodPost, login, "application/json", "null", []int{400, 422}},
		"a list":             {http.MethodPost, login, "application/json", `["` + canary + `"]`, []int{400, 422}},
		"wrong types":        {http.MethodPost, login, "application/json", `{"email":{"x":"` + canary + `"},"password":17}`, []int{400, 422}},
		"a member too few":   {http.MethodPost, login, "application/json", `{"email":"` + canary + `@example.com"}`, []int{422}},
		"a member too many":  {http.MethodPost, login, "application/json", `{"email":"a@example.com","password":"long enough","role":"` + canary + `"}`, []int{400, 422}},
		"not an address":     {http.MethodPost, login, "application/json", `{"email":"` + canary + `","password":"` + canary + ` long enough"}`, []int{401, 422}},
		"deeply nested":      {http.MethodPost, login, "application/json", strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000), []int{400, 413, 422}},
		"another media type": {http.MethodPost, login, "text/plain", `{"email":"` + canary + `"}`, []int{415}},
		"a form":             {http.MethodPost, login, "application/x-www-form-urlencoded", "email=" + canary, []int{415}},
		"2 MB":               {http.MethodPost, login, "application/json", `{"email":"` + strings.Repeat("a", 2<<20) + canary + `"}`, []int{413}},
		"2 MB, profile":      {http.MethodPatch, profile, "application/merge-patch+json", `{"name":"` + strings.Repeat("a", 2<<20) + canary + `"}`, []int{413}},
		"profile of numbers": {http.MethodPatch, profile, "application/merge-patch+json", `{"name":["` + canary + `"]}`, []int{400, 422, 428}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := ann.Client.Send(t.Context(), story.Request{
				Method: c.method, Path: c.path, Body: c.body,
				// A server ends the connection of a body that it has not read to its end, which is seen by the next request on it.
				Header: http.Header{"Content-Type": {c.contentType}, "If-Match": {"*"}, "Connection": {"close"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, status := range c.status {
				found = found || a.Status == status
			}
			if !found {
				t.Fatalf("want %v, got %d: %.300s", c.status, a.Status, a.Body)
			}
			want(t, a, a.Status, a.Problem().Code)
			if a.Problem().Code == "" {
				t.Errorf("not a problem document: %s %.300s", a.Header.Get("Content-Type"), a.Body)
			}
			if bytes.Contains(a.Body, []byte(canary)) {
				t.Errorf("the value is echoed: %.300s", a.Body)
			}
		})
	}
}

// A body that ends before its announced length is no request.
func TestBodyShorterThanAnnounced(t *testing.T) {
	t.Parallel()
	s := open(t)
	a := rawTruncated(t, s.Gateway, "POST /auth/login HTTP/1.1\nContent-Type: application/json", `{"email":"a@example.com"`, 4096)
	if a.Status != 0 && a.Status != http.StatusBadRequest && a.Status != http.StatusRequestTimeout {
		t.Errorf("%d: %.300s", a.Status, a.Body)
	}
}

// Registering, verifying and logging in tell nobody which addresses are known (S12).
func TestKnownAndUnknownAddressesAreAnsweredAlike(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	login := func(email string) story.Answer {
		return send(t, s.guest(), http.MethodPost, "/auth/login", map[string]string{"email": email, "password": "certainly not that one"})
	}
	known, unknown := login(ann.Email), login("nobody-"+ann.Email)
	for _, a := range []story.Answer{known, unknown} {
		want(t, a, http.StatusUnauthorized, known.Problem().Code)
	}
	if known.Problem().Detail != unknown.Problem().Detail {
		t.Errorf("%q and %q", known.Problem().Detail, unknown.Problem().Detail)
	}
	if err := story.Register(t.Context(), s.Site, ann.Email); err != nil {
		t.Errorf("a known address: %v", err)
	}
}

// The gateway answers for what no route and no rule names.
func TestUnknownPathsAreRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	want(t, send(t, ann.Client, http.MethodGet, "/orders/1/secret", nil), http.StatusForbidden, "resource_unknown")
	if a := send(t, ann.Client, http.MethodGet, "/nowhere", nil); a.Status != http.StatusNotFound {
		t.Errorf("no route: %d", a.Status)
	}
	want(t, send(t, ann.Client, http.MethodPut, "/orders/1", map[string]string{}), http.StatusForbidden, "forbidden")
}
