package guard

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// pointers are the inputs that a policy may look at, short of objects.
var pointers = []string{
	"/subject/type", "/subject/id", "/subject/properties/roles", "/subject/properties/roles/0", "/subject/properties/groups", "/subject/properties/tenant",
	"/subject/properties/session", "/subject/properties/attributes", "/subject/properties/attributes/department", "/subject/properties/attributes/a~1b",
	"/subject/properties/attributes/nested/x", "/subject/properties/claims/iss", "/subject/properties/claims/client_id", "/subject/properties/claims/scope",
	"/subject/properties/claims/acr", "/subject/properties/claims/amr", "/subject/properties/nothing", "/subject", "/action/name", "/action/properties", "/resource/type",
	"/action", "/action/properties", "/action/properties/method", "/resource/id", "/resource/properties", "/resource/properties/path", "/resource/properties/segments", "/resource/properties/route", "/resource/properties/params",
	"/resource/properties/params/id", "/resource/properties/owner", "/resource/properties/", "/resource/properties/params/", "/resource/properties/params/other", "/context/ip", "/context/user_agent", "/context/acr", "/context/auth_time",
	"/context/request_id", "/context", "/elsewhere", "",
}

// S58: what the cache takes for the same input is the same input of the evaluation request, and what it takes for another is another.
func TestTheCacheSeesTheInputsThatThePolicySees(t *testing.T) {
	t.Parallel()
	rules := patterns([]Resource{
		{Pattern: "/orders/{id}", Type: "order"}, {Pattern: "/orders", Type: "order"}, {Pattern: "/shops/{id}/items/{other}", Type: "item"},
		{Pattern: "/orders/delete", Type: "order", Action: "DELETE"},
	})
	g := &Guard{patterns: rules}
	objects := map[string][]string{"/orders/o1": {""}, "/orders": {""}, "/shops/s/items/a%20b": {""}, "/orders/delete": {"o1", "o2"}} // that are named elsewhere
	var all []*question
	for _, who := range []principal.Principal{
		{},
		{Subject: "u1"},
		{Subject: "anonymous", Roles: []string{}},
		{Subject: "u1", Roles: []string{"a"}, Groups: []string{"g"}, Tenant: "t", SessionID: "s", Issuer: "i", ClientID: "c", ACR: "aal2", AMR: []string{"pwd"}, Scope: []string{"x", "y"}},
		{Subject: "u1", Roles: []string{"a", "b"}, Attributes: map[string]any{"department": "sales", "a/b": 1.0, "nested": map[string]any{"x": true}}, AuthTime: time.Unix(7, 0)},
		{Subject: "u1", Roles: []string{"a,b"}, Attributes: map[string]any{"department": []any{"sales"}}, AuthTime: time.Unix(8, 0)},
		{Subject: "u1", Attributes: map[string]any{"department": nil}},
	} {
		for _, r := range []Request{
			{Method: "GET", Path: "/orders/o1", Route: "r", Addr: netip.MustParseAddr("192.0.2.1")},
			{Method: "HEAD", Path: "/orders", Route: "r2", Addr: netip.MustParseAddr("::ffff:192.0.2.1"), Header: map[string][]string{"user-agent": {"x"}}},
			{Method: "POST", Path: "/shops/s/items/a%20b", Addr: netip.MustParseAddr("2001:db8::1")},
			{Method: "POST", Path: "/orders/delete", Route: "r", Addr: netip.MustParseAddr("192.0.2.1")},
		} {
			target, err := g.target(&r)
			if err != nil {
				t.Fatal(err)
			}
			for _, target.object = range objects[r.Path] {
				all = append(all, &question{state: &state{Request: r, who: who, target: target, decision: Decision{TraceID: r.Route}}, target: target})
			}
		}
	}
	for _, pointer := range pointers {
		cache, policy := make([][]byte, len(all)), make([][]byte, len(all))
		for i, q := range all {
			cache[i], policy[i] = seen(t, q, pointer)
		}
		for i := range all {
			for k := range all {
				if bytes.Equal(cache[i], cache[k]) != bytes.Equal(policy[i], policy[k]) {
					t.Errorf("%q: the cache has %q and %q, the policy %s and %s", pointer, cache[i], cache[k], policy[i], policy[k])
				}
			}
		}
	}
}

// seen is the value at the pointer as the cache has it, and in the JSON that the policy gets.
func seen(t *testing.T, q *question, pointer string) (cache, policy []byte) {
	t.Helper()
	cache, ok := q.Append(nil, pointer)
	if !ok {
		t.Fatalf("%q is no pointer", pointer)
	}
	tokens, err := authzen.ParsePointer(pointer)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := json.Marshal(q.evaluation())
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(whole, &v); err != nil {
		t.Fatal(err)
	}
	return cache, walk(t, v, tokens)
}

// walk follows the tokens through what encoding/json made; nil is no value.
func walk(t *testing.T, v any, tokens []string) []byte {
	t.Helper()
	for _, token := range tokens {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[token]
			if !ok {
				return nil
			}
			v = next
		case []any:
			if token != "0" || len(in) == 0 {
				return nil
			}
			v = in[0]
		default:
			return nil
		}
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
