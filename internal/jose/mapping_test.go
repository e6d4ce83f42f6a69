package jose_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

func TestAPathNamesOneClaim(t *testing.T) {
	t.Parallel()
	c := map[string]any{
		"roles": "flat", "realm_access": map[string]any{"roles": "nested"}, "https://example.com/roles": "namespaced", "a.b": "dotted",
		"resource_access": map[string]any{"my.app": map[string]any{"roles": "pointed"}}, "x/y": map[string]any{"~": "escaped"},
		"https://example.com/deep": map[string]any{"roles": "unreachable"}, "": "empty",
	}
	for path, want := range map[jose.Path]any{
		"roles": "flat", "realm_access.roles": "nested", "https://example.com/roles": "namespaced", "a.b": nil, "/a.b": "dotted",
		"/resource_access/my.app/roles": "pointed", "/x~1y/~0": "escaped", "": nil, "roles.roles": nil, "realm_access.roles.x": nil, "missing": nil,
		"https://example.com/deep.roles": nil, "/": "empty",
	} {
		if got := path.In(c); got != want {
			t.Errorf("%q names %v, want %v", path, got, want)
		}
	}
}

// The tokens of the issuers that teams have already, as these write them.
func TestThirdPartyClaimsMakeAPrincipal(t *testing.T) {
	t.Parallel()
	std := jose.StandardClaims
	for name, c := range map[string]struct {
		mapping jose.Mapping
		claims  map[string]any
		want    principal.Principal
	}{
		"Keycloak": {
			func() jose.Mapping {
				m := std()
				m.Roles, m.ClientID = []jose.Path{"realm_access.roles", "/resource_access/orders.api/roles"}, []jose.Path{"azp"}
				m.AttributeClaims = map[string]jose.Path{"department": "department"}
				return m
			}(),
			map[string]any{
				"realm_access": map[string]any{"roles": []string{"clerk", "user"}}, "resource_access": map[string]any{"orders.api": map[string]any{"roles": []string{"user", "editor"}}},
				"azp": "spa", "client_id": nil, "scope": "openid email", "department": "sales", "groups": []string{"/staff"}, "attributes": nil,
			},
			principal.Principal{Roles: []string{"clerk", "user", "editor"}, Groups: []string{"/staff"}, ClientID: "spa", SessionID: "s1", Scope: []string{"openid", "email"}, Attributes: map[string]any{"department": "sales"}},
		},
		"Entra": {
			func() jose.Mapping {
				m := std()
				m.Scope, m.ClientID = []jose.Path{"scp"}, []jose.Path{"azp", "appid"}
				return m
			}(),
			map[string]any{"roles": []string{"Orders.Read"}, "scp": "read write", "appid": "11-22", "tid": "tenant-1", "client_id": nil, "attributes": nil},
			principal.Principal{Roles: []string{"Orders.Read"}, ClientID: "11-22", SessionID: "s1", Tenant: "tenant-1", Scope: []string{"read", "write"}},
		},
		"Auth0": {
			func() jose.Mapping {
				m := std()
				m.Roles, m.Tenant = []jose.Path{"https://shop.example/roles"}, "org_id"
				return m
			}(),
			map[string]any{"https://shop.example/roles": []string{"admin"}, "org_id": "org_1", "roles": []string{"not these"}, "attributes": nil},
			principal.Principal{Roles: []string{"admin"}, ClientID: "c1", SessionID: "s1", Tenant: "org_1", Scope: []string{"a", "b"}},
		},
		"Okta": {
			func() jose.Mapping {
				m := std()
				m.Scope, m.ClientID, m.Roles = []jose.Path{"scp"}, []jose.Path{"cid"}, nil
				return m
			}(),
			map[string]any{"scp": []string{"orders.read", "openid"}, "cid": "0oa1", "groups": []string{"Everyone", "Team A"}, "attributes": nil},
			principal.Principal{Groups: []string{"Everyone", "Team A"}, ClientID: "0oa1", SessionID: "s1", Scope: []string{"orders.read", "openid"}},
		},
		"spaces": {
			func() jose.Mapping { m := std(); m.Separator = " "; return m }(), map[string]any{"roles": "clerk  admin", "attributes": nil},
			principal.Principal{Roles: []string{"clerk", "admin"}, ClientID: "c1", SessionID: "s1", Scope: []string{"a", "b"}},
		},
		"commas": {
			func() jose.Mapping { m := std(); m.Separator = ","; return m }(), map[string]any{"roles": "clerk, shift lead,,", "groups": []string{"a,b"}, "attributes": nil},
			principal.Principal{Roles: []string{"clerk", "shift lead"}, Groups: []string{"a,b"}, ClientID: "c1", SessionID: "s1", Scope: []string{"a", "b"}},
		},
		"a text is one role unless the issuer is said to separate": {
			std(), map[string]any{"roles": "not admin", "attributes": nil},
			principal.Principal{Roles: []string{"not admin"}, ClientID: "c1", SessionID: "s1", Scope: []string{"a", "b"}},
		},
		"what is not a list of texts is no list": {
			std(), map[string]any{"roles": []any{"admin", 1}, "groups": map[string]any{"admin": true}, "scope": 7, "attributes": "x", "tid": []string{"t"}},
			principal.Principal{ClientID: "c1", SessionID: "s1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := policy()
			p.Claims = c.mapping
			got, err := jose.Verify(t.Context(), must(jose.Sign(testKey(), "at+jwt", claims(c.claims))), p, keys(t, testKey()))
			if err != nil {
				t.Fatal(err)
			}
			only := principal.Principal{Roles: got.Roles, Groups: got.Groups, Scope: got.Scope, ClientID: got.ClientID, SessionID: got.SessionID, Tenant: got.Tenant, Attributes: got.Attributes}
			if d := cmp.Diff(c.want, only); d != "" {
				t.Error(d)
			}
		})
	}
}

// S35: where an issuer's access tokens say typ JWT, as Keycloak's do, a claim tells them from others.
func TestARequiredClaimMustBeThere(t *testing.T) {
	t.Parallel()
	p := policy()
	p.Types, p.Require = []string{"JWT"}, map[jose.Path]string{"typ": "Bearer"}
	for typ, good := range map[any]bool{"Bearer": true, "ID": false, "Refresh": false, nil: false, 7: false} {
		_, err := jose.Verify(t.Context(), must(jose.Sign(testKey(), "JWT", claims(map[string]any{"typ": typ}))), p, keys(t, testKey()))
		if (err == nil) != good {
			t.Errorf("claim typ %v: %v", typ, err)
		}
	}
}

// S49: who holds the key that the token is bound to is part of who it stands for.
func TestABoundTokenNamesItsKey(t *testing.T) {
	t.Parallel()
	got, err := jose.Verify(t.Context(), must(jose.Sign(testKey(), "at+jwt", claims(map[string]any{"cnf": map[string]any{"jkt": "print"}}))), policy(), keys(t, testKey()))
	if err != nil || got.Thumbprint != "print" || slices.Contains(got.Roles, "print") {
		t.Errorf("%+v, %v", got, err)
	}
}
