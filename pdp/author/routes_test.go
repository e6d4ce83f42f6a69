package author_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/policies"
)

const shop = `openapi: 3.1.0
security: [{bearer: []}]
paths:
  /v1/orders:
    get: {}
    post: {}
  /v1/orders/{orderId}:
    parameters: [{name: orderId, in: path}]
    get: {}
    delete: {}
  /v1/orders/{orderId}/entries:
    get: {}
  /health:
    get: {security: []}
  /:
    get: {}
`

func gateway(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("../../kong.yml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// begun is the policy that Skeleton makes.
func begun(t *testing.T, r author.Routes) *author.Policy {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new")
	written, err := author.Skeleton(r, policies.FS, dir)
	if err != nil || len(written) != 5 {
		t.Fatalf("written %v, %v", written, err)
	}
	if _, err := author.Skeleton(r, policies.FS, dir); err == nil {
		t.Error("a policy was written over")
	}
	if found, err := author.Lint(dir); err != nil || len(found) != 0 {
		t.Errorf("found %+v, %v", found, err)
	}
	p, err := author.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if failed := run(t, p).Failed(); len(failed) != 0 {
		t.Errorf("failed %+v", failed)
	}
	return p
}

func TestAPolicyBeginsWithAGateway(t *testing.T) {
	t.Parallel()
	r, err := author.ParseRoutes("kong.yml", gateway(t))
	if err != nil {
		t.Fatal(err)
	}
	deleting := func(pattern string) bool {
		return slices.Contains(r.Operations, author.Operation{Method: "DELETE", Pattern: pattern, Type: "order"})
	}
	if len(r.Operations) != 7 || !deleting("/orders/{id}") || !deleting("/orders/delete/{id}") {
		t.Errorf("operations %+v", r.Operations)
	}
	if !slices.Contains(r.Open, "route auth-login (~/auth/login$)") || slices.ContainsFunc(r.Open, func(s string) bool { return strings.Contains(s, "orders") }) {
		t.Errorf("open %q", r.Open)
	}
	begun(t, r)
}

func TestAPolicyBeginsWithAnAPI(t *testing.T) {
	t.Parallel()
	r, err := author.ParseRoutes("shop.yaml", []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	want := []author.Operation{
		{Method: "GET", Pattern: "/v1/orders", Type: "order"}, {Method: "POST", Pattern: "/v1/orders", Type: "order"},
		{Method: "GET", Pattern: "/v1/orders/{id}", Type: "order"}, {Method: "DELETE", Pattern: "/v1/orders/{id}", Type: "order"},
		{Method: "GET", Pattern: "/v1/orders/{id}/entries", Type: "entry"},
	}
	if !slices.Equal(r.Operations, want) || !slices.Equal(r.Open, []string{"GET /health"}) || !slices.Equal(r.Nowhere, []string{"GET /"}) {
		t.Errorf("routes %+v", r)
	}
	p := begun(t, r)
	if len(p.Cases) != 3*2+3*2*2+3*2 {
		t.Errorf("%d cases", len(p.Cases))
	}
}

func TestWhatIsNoRoutesIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "a list": "[]", "Swagger": "swagger: '2.0'", "no YAML": "a: [", "OpenAPI without a mapping": "openapi: 3.0.0\npaths: [1]",
		"a gateway without patterns": "_format_version: '3.0'\nservices: [{name: a, url: http://a, routes: [{name: b, paths: [/b], plugins: [{name: gatehouse, config: {resources: [{}]}}]}]}]",
	} {
		if r, err := author.ParseRoutes("f", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), "f") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, err := author.Skeleton(author.Routes{}, policies.FS, filepath.Join(t.TempDir(), "new")); err == nil {
		t.Error("a policy of nothing was made")
	}
}

// What a document calls things must not come to mean something else in the files that are made of it.
func TestUnusualNamesAreLeftOut(t *testing.T) {
	t.Parallel()
	r, err := author.ParseRoutes("f", []byte("openapi: 3.0.0\nsecurity: [{a: []}]\npaths:\n  '/a: [allow]': {get: {}}\n  \"/b\\n\": {get: {}}\n  /ok: {get: {}}\n"))
	if err != nil || len(r.Operations) != 1 || len(r.Nowhere) != 2 {
		t.Errorf("routes %+v, %v", r, err)
	}
}

func FuzzParseRoutes(f *testing.F) {
	f.Add([]byte(shop))
	f.Add(gateway(f))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := author.ParseRoutes("f", text)
		for _, o := range r.Operations {
			if err != nil || o.Method == "" || o.Type == "" || strings.ContainsAny(o.Pattern, " \n:#\"'") {
				t.Errorf("%+v, %v", o, err)
			}
		}
	})
}

func TestACaseNamesWhatTheEdgeWould(t *testing.T) {
	t.Parallel()
	for asks, want := range map[string]struct {
		collection bool
		path, id   string
	}{
		"GET /orders":                        {false, "/orders", "/orders"},
		"GET /orders/17":                     {false, "/orders/17", "17"},
		"GET /v1/orders":                     {true, "/v1/orders", "/v1/orders"},
		"GET /v1/orders/{id=17}":             {false, "/v1/orders/17", "17"},
		"GET /v1/orders/{order=17}":          {false, "/v1/orders/17", "/v1/orders/{order}"},
		"GET /v1/orders/{id=17}/items/{n=2}": {false, "/v1/orders/17/items/2", "17"},
	} {
		c := author.Case{Asks: asks, Collection: want.collection}
		r := c.Request()
		if r.Resource.ID != want.id || r.Resource.Properties["path"] != want.path {
			t.Errorf("%s: %+v", asks, r.Resource)
		}
	}
	if _, err := author.ParseCases("c.yaml", []byte("a:\n  asks: GET /orders/{id}\n  decision: deny\n")); err == nil || !strings.Contains(err.Error(), "{name=value}") {
		t.Errorf("a pattern was read as a path: %v", err)
	}
}
