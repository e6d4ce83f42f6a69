package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// S58: a role that an admin takes away is gone at the edge, although the token that says otherwise has not expired; who it was taken
// from is still logged in, with what is left.
func TestARoleThatIsTakenAwayIsGoneAtTheEdge(t *testing.T) {
	t.Parallel()
	s := open(t)
	if s.stack == nil {
		t.Skip("the interface of admins is not to be reached from here")
	}
	ann := s.join(t)
	want(t, send(t, ann.Client, http.MethodGet, "/orders", nil), http.StatusOK, "")

	email, password, err := s.Admin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boss := tokens(t, send(t, s.guest(), http.MethodPost, "/auth/login", map[string]string{"email": email, "password": password}))
	admins := story.Client{HTTP: s.HTTP, Base: "http://" + s.stack.Addresses.Admin, Token: boss.Access}
	want(t, send(t, admins.As(ann.Access), http.MethodGet, "/admin/v1/roles", nil), http.StatusForbidden, "admin_required")
	want(t, send(t, admins, http.MethodDelete, "/admin/v1/subjects/"+ann.ID+"/roles/customer?reason=left", nil), http.StatusNoContent, "")
	until(t, 20*time.Second, ann.Client, http.MethodGet, "/orders", http.StatusUnauthorized, "session_revoked")

	// A token of the same second is refused like those before it.
	refresh := ann.Refresh
	err = story.Until(t.Context(), 20*time.Second, 300*time.Millisecond, func(ctx context.Context) (bool, error) {
		a, err := s.guest().Send(ctx, story.Request{Method: http.MethodPost, Path: "/auth/refresh", Body: map[string]string{"refresh_token": refresh}})
		if err != nil {
			return false, err
		}
		next := tokens(t, a)
		refresh = next.Refresh
		a, err = s.guest().As(next.Access).Send(ctx, story.Request{Method: http.MethodGet, Path: "/orders"})
		if err == nil {
			err = a.Is(http.StatusForbidden, "forbidden")
		}
		return err == nil, err
	})
	if err != nil {
		t.Error(err)
	}
	audit := send(t, admins, http.MethodGet, "/admin/v1/audit?target="+ann.ID, nil)
	if !strings.Contains(string(audit.Body), `"action":"binding.revoked"`) || !strings.Contains(string(audit.Body), `"reason":"left"`) {
		t.Errorf("the audit says %s", audit.Body)
	}
}

// S58: what an admin grants, and takes away again, counts at the gateway at once, by the token that is there and says nothing of it.
func TestWhatAnAdminGrantsCountsByTheTokenThatIsThere(t *testing.T) {
	t.Parallel()
	s := open(t)
	if s.stack == nil {
		t.Skip("the interface of admins is not to be reached from here")
	}
	ann, bob := s.join(t), s.join(t)
	made := send(t, ann.Client, http.MethodPost, "/orders", map[string]any{"item": "a lamp", "amount": 100, "department": "sales"})
	want(t, made, http.StatusCreated, "")
	var order struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(made.Body, &order); err != nil {
		t.Fatal(err)
	}
	path := "/orders/" + order.ID
	want(t, send(t, bob.Client, http.MethodGet, path, nil), http.StatusForbidden, "forbidden")

	email, password, err := s.Admin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boss := tokens(t, send(t, s.guest(), http.MethodPost, "/auth/login", map[string]string{"email": email, "password": password}))
	admins := story.Client{HTTP: s.HTTP, Base: "http://" + s.stack.Addresses.Admin, Token: boss.Access}
	role := "clerk" // as policies/ know it; another run may have made it
	if a := send(t, admins, http.MethodPost, "/admin/v1/roles", map[string]any{"name": role, "description": "Reads the orders of a department."}); a.Status != http.StatusConflict {
		want(t, a, http.StatusCreated, "")
	}
	want(t, send(t, admins, http.MethodPut, "/admin/v1/subjects/"+bob.ID, map[string]any{"attributes": map[string]any{"department": "sales"}}), http.StatusOK, "")
	granted := send(t, admins, http.MethodPost, "/admin/v1/bindings", map[string]any{"subject": bob.ID, "role": role, "reason": "joined sales"})
	want(t, granted, http.StatusCreated, "")
	until(t, 20*time.Second, bob.Client, http.MethodGet, path, http.StatusOK, "")

	var binding struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(granted.Body, &binding); err != nil {
		t.Fatal(err)
	}
	want(t, send(t, admins, http.MethodDelete, "/admin/v1/bindings/"+binding.ID+"?reason=left+sales", nil), http.StatusNoContent, "")
	until(t, 20*time.Second, bob.Client, http.MethodGet, path, http.StatusForbidden, "forbidden")
	want(t, send(t, bob.Client, http.MethodGet, "/orders", nil), http.StatusOK, "") // what is left of him
}

type pair struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func tokens(t *testing.T, a story.Answer) (p pair) {
	t.Helper()
	if err := json.Unmarshal(a.Body, &p); err != nil || p.Access == "" {
		t.Fatal(fmt.Errorf("no tokens: %d %s", a.Status, a.Body))
	}
	return p
}
