package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/api"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// office is the interface of admins on real parts, behind a real socket of its own.
type office struct {
	*server // of admins
	public  *server
	roles   *role.Service
	bossID  string
	boss    []string // header of an admin

	mu        sync.Mutex
	published []job.Revocation
}

func inOffices(t *testing.T, test func(t *testing.T, o *office)) {
	t.Helper()
	dbtest.OnBoth(t, func(t *testing.T, db dbtest.DB) { test(t, newOffice(t, db)) })
}

func newOffice(t *testing.T, db dbtest.DB) *office {
	t.Helper()
	s := newServer(t, db)
	o := &office{public: s}
	log := telemetry.Logger(s.log, slog.LevelDebug)
	o.roles = &role.Service{
		Store: db.Roles(), TokenLife: 6 * time.Minute, Now: s.clock, NewID: func() string { return uuid.Must(uuid.NewV7()).String() }, Log: log,
		Publish: func(_ context.Context, r job.Revocation) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.published = append(o.published, r)
			return nil
		},
	}
	ts := httptest.NewServer(api.NewAdmin(api.AdminOptions{
		Roles: o.roles, Authenticate: s.logins.Authenticate, Checks: map[string]web.Check{"database": db.Ready}, Log: log,
	}))
	t.Cleanup(ts.Close)
	o.server = &server{URL: ts.URL, db: db, log: s.log, http: ts.Client()}
	o.bossID, o.boss = o.person(t, "boss@x.test", role.Admin)
	return o
}

// person makes an account that carries these roles, and answers its id and the header of its token. No password is hashed for it.
func (o *office) person(t *testing.T, email string, roles ...string) (id string, header []string) {
	t.Helper()
	id, now := uuid.NewString(), o.public.clock()
	u := account.User{ID: id, Email: email, Roles: roles, VerifiedAt: &now, CreatedAt: now, UpdatedAt: now}
	if err := o.public.db.Accounts().Create(t.Context(), u, nil); err != nil {
		t.Fatal(err)
	}
	return id, o.token(t, id, roles...)
}

// token answers the header of a token of a new session.
func (o *office) token(t *testing.T, id string, roles ...string) (header []string) {
	t.Helper()
	opened, _, err := o.public.logins.Sessions.Start(t.Context(), id, login.ClientID, []string{"pwd"})
	if err != nil {
		t.Fatal(err)
	}
	access, _, err := o.public.logins.Tokens.Mint(t.Context(), token.Claims{
		Subject: id, ClientID: login.ClientID, SessionID: opened.ID, Roles: roles, AMR: opened.AMR, AuthTime: opened.CreatedAt,
	})
	if err != nil {
		t.Fatal(err)
	}
	return []string{"Authorization", "Bearer " + access}
}

// ask asks as the boss, unless headers say otherwise. A body other than nil is sent as JSON.
func (o *office) ask(t *testing.T, method, path string, body any, headers ...string) answer {
	t.Helper()
	if !slices.Contains(headers, "Authorization") {
		headers = append(slices.Clone(o.boss), headers...)
	}
	text := ""
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text, headers = string(encoded), append(headers, "Content-Type", "application/json")
	}
	return o.send(t, method, "/admin/v1"+path, text, headers...)
}

// done is ask for what has to be answered so, and answers the body.
func (o *office) done(t *testing.T, status int, method, path string, body any, headers ...string) map[string]any {
	t.Helper()
	a := o.ask(t, method, path, body, headers...)
	if a.Status != status {
		t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
	if a.Body == "" {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(a.Body), &m); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, a.Body)
	}
	return m
}

func (o *office) revision(t *testing.T) uint64 {
	t.Helper()
	at, err := o.db.Directory().At(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return at.Revision
}

// items answers one field of each item of a list.
func items(m map[string]any, field string) string {
	var all []string
	for _, i := range m["items"].([]any) {
		all = append(all, fmt.Sprint(i.(map[string]any)[field]))
	}
	return strings.Join(all, " ")
}

// again gives the boss a token of the present moment.
func (o *office) again(t *testing.T) []string {
	t.Helper()
	o.boss = o.token(t, o.bossID, role.Admin)
	return o.boss
}

// operations are those that the OpenAPI document names, as method and path.
func (o *office) operations(t *testing.T) (all []string) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct{ Security []map[string][]string }
	}
	if err := json.Unmarshal([]byte(o.send(t, "GET", "/admin/v1/openapi.json", "").Body), &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			all = append(all, strings.ToUpper(method)+" "+strings.TrimPrefix(path, "/admin/v1"))
			if len(op.Security) != 1 {
				t.Errorf("%s %s names no token", method, path)
			}
		}
	}
	slices.Sort(all)
	if len(all) < 14 {
		t.Fatalf("that cannot be all: %v", all)
	}
	return all
}

func filled(path string) string {
	return strings.NewReplacer("{name}", "reader", "{id}", "bob", "{role}", "reader").Replace(path)
}
