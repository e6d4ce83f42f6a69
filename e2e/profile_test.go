package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// A profile is made by a job after the registration, and changed by whoever has read its newest version.
func TestAProfileIsReadAndChangedByItsOwner(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	until(t, 10*time.Second, ann.Client, http.MethodGet, "/user/me", http.StatusOK, "")
	read := func() (story.Answer, profile) {
		a := send(t, ann.Client, http.MethodGet, "/user/me", nil)
		want(t, a, http.StatusOK, "")
		return a, profileOf(t, a)
	}
	patch := func(ifMatch, body string) story.Answer {
		h := http.Header{"Content-Type": {"application/merge-patch+json"}}
		if ifMatch != "" {
			h.Set("If-Match", ifMatch)
		}
		a, err := ann.Client.Send(t.Context(), story.Request{Method: http.MethodPatch, Path: "/user/me", Body: body, Header: h})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	first, p := read()
	etag := first.Header.Get("ETag")
	if p.ID != ann.ID || p.Name != "A. Person" || etag == "" || p.CreatedAt.IsZero() || p.UpdatedAt.IsZero() {
		t.Fatalf("%s, ETag %q", first.Body, etag)
	}
	want(t, patch("", `{"name":"Ann"}`), http.StatusPreconditionRequired, "precondition_required")
	changed := patch(etag, `{"name":"Ann","preferences":{"theme":"dark","size":2}}`)
	want(t, changed, http.StatusOK, "")
	want(t, patch(etag, `{"name":"Ann again"}`), http.StatusPreconditionFailed, "precondition_failed")
	want(t, patch(changed.Header.Get("ETag"), `{"preferences":{"theme":null},"avatar_url":"https://example.com/a.png"}`), http.StatusOK, "")
	_, p = read()
	if p.Name != "Ann" || p.AvatarURL != "https://example.com/a.png" || string(p.Preferences) != `{"size":2}` {
		t.Errorf("%+v with preferences %s", p, p.Preferences)
	}
	want(t, send(t, s.guest(), http.MethodGet, "/user/me", nil), http.StatusUnauthorized, "token_missing")
}

type profile struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	AvatarURL   string          `json:"avatar_url"`
	Preferences json.RawMessage `json:"preferences"`
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
}

func profileOf(t *testing.T, a story.Answer) profile {
	t.Helper()
	var p profile
	if err := a.Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// S35, S46: what verifiers are told of the issuer is true.
func TestTheIssuerTellsWhereItsKeysAre(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	a := send(t, s.guest(), http.MethodGet, "/.well-known/openid-configuration", nil)
	want(t, a, http.StatusOK, "")
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := a.Decode(&metadata); err != nil {
		t.Fatal(err)
	}
	header, claims := parts(t, ann.Access)
	if metadata.Issuer != claims["iss"] || metadata.JWKSURI != metadata.Issuer+"/auth/.well-known/jwks.json" {
		t.Errorf("%s, but tokens are issued by %v", a.Body, claims["iss"])
	}
	if header["typ"] != "at+jwt" || header["alg"] != "RS256" || claims["sid"] != ann.SID || claims["sub"] != ann.ID {
		t.Errorf("header %v, claims %v", header, claims)
	}
	if len(ann.Access) > 1536 {
		t.Errorf("a token of %d bytes", len(ann.Access))
	}
}

// S25: what is ended is refused everywhere, the refresh token at once and the access token within a second.
func TestALogoutHoldsForEveryTokenOfTheSession(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	other, err := story.Login(t.Context(), s.Site, ann.Email, ann.Password)
	if err != nil {
		t.Fatal(err)
	}
	if other.SID == ann.SID { // S23
		t.Error("a second login continues the first session")
	}
	a := send(t, ann.Client, http.MethodPost, "/auth/logout", nil)
	want(t, a, http.StatusNoContent, "")
	if a.Header.Get("Clear-Site-Data") == "" { // S29
		t.Error("no Clear-Site-Data")
	}
	until(t, bound(time.Second), ann.Client, http.MethodGet, "/orders", http.StatusUnauthorized, "session_revoked")
	refresh := func(token string) story.Answer {
		return send(t, s.guest(), http.MethodPost, "/auth/refresh", map[string]string{"refresh_token": token})
	}
	want(t, refresh(ann.Refresh), http.StatusUnauthorized, "refresh_token_invalid")
	want(t, send(t, other.Client, http.MethodGet, "/auth/me", nil), http.StatusOK, "")
	want(t, refresh(other.Refresh), http.StatusOK, "")
}

// S72: many tabs refresh at once and all go on with one and the same token.
func TestManyRefreshesAtOnceGiveOneSuccessor(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	const tabs = 20
	type result struct {
		token string
		err   error
	}
	results := make(chan result, tabs)
	for range tabs {
		go func() {
			a, err := s.guest().Send(context.WithoutCancel(t.Context()), story.Request{
				Method: http.MethodPost, Path: "/auth/refresh", Body: map[string]string{"refresh_token": ann.Refresh},
			})
			if err == nil {
				err = a.Is(http.StatusOK, "")
			}
			var grant struct {
				RefreshToken string `json:"refresh_token"`
			}
			if err == nil {
				err = a.Decode(&grant)
			}
			results <- result{grant.RefreshToken, err}
		}()
	}
	successors := map[string]bool{}
	for range tabs {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		successors[r.token] = true
	}
	if len(successors) != 1 || successors[ann.Refresh] {
		t.Errorf("%d different tokens", len(successors))
	}
}
