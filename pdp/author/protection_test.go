package author_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

// protection says of each operation how it stands, by the shipped policies.
func protection(t *testing.T, file, text string) (author.Protection, []string) {
	t.Helper()
	r, err := author.ParseRoutes(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	all, err := shipped(t).Protection(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range all.Operations {
		lines = append(lines, fmt.Sprintf("%d %s %s %s", s.Line, s.Method, s.Pattern, s.State))
	}
	return all, lines
}

const guardedShop = `_format_version: "3.0"
plugins:
  - {name: cors}
services:
  - name: shop
    url: http://shop
    plugins: [{name: cors}, {name: rate-limiting}]
    routes:
      - name: bare
        paths: [/bare, /naked]
      - {name: off, paths: [/off], methods: [GET], plugins: [{name: gatehouse, enabled: false}]}
      - name: watched
        paths: [/watched]
        methods: [GET]
        plugins:
          - {name: cors}
          - {name: gatehouse, config: {mode: observe, resources: [{pattern: /orders, type: order}]}}
      - {name: let in, paths: [/in], methods: [GET], plugins: [{name: gatehouse, config: {mode: observe, authorize: false}}]}
      - {name: login, paths: [/login], methods: [POST], plugins: [{name: gatehouse, config: {identify: none, authorize: false}}]}
      - name: orders
        paths: [/orders]
        plugins:
          - name: gatehouse
            config:
              resources:
                - &orders {pattern: /orders, type: order}
                - {pattern: "/orders/{id}", type: order}
                - {pattern: "/orders/{a}/parts", type: order}
                - {pattern: /unheard-of, type: unheard, action: MEASURE}
      - {name: nothing, paths: [/nothing], methods: [GET], plugins: [{name: gatehouse, config: {}}]}
`

func TestProtectionOfAGateway(t *testing.T) {
	t.Parallel()
	all, have := protection(t, "kong.yml", guardedShop)
	want := []string{
		"9 any /bare unprotected", "9 any /naked unprotected", "11 GET /off unprotected", "17 GET /orders unprotected", "18 GET /in unprotected",
		"19 POST /login open", "26 GET /orders protected", "26 POST /orders protected", "27 GET /orders/{id} protected", "27 PUT /orders/{id} denied",
		"27 PATCH /orders/{id} protected", "27 DELETE /orders/{id} protected", "28 any /orders/{a}/parts unprotected", "29 MEASURE /unheard-of unprotected", "30 any  unprotected",
	}
	if !slices.Equal(have, want) {
		t.Errorf("operations\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	if all.Protected != 5 || all.Unprotected != 8 || all.Open != 1 || all.Requests == 0 {
		t.Errorf("%+v", all)
	}
	if closed := all.Closed(); closed.Unprotected != 9 || closed.Open != 0 || closed.Percent >= all.Percent || all.Open != 1 {
		t.Errorf("%+v", closed)
	}
	for _, s := range all.Operations { // a case says that nobody may
		if s.Method == "PATCH" && !strings.Contains(s.Why, "policies/cases/orders.matrix.yaml:") {
			t.Errorf("%+v", s)
		}
	}
}

func TestProtectionOfAnAPI(t *testing.T) {
	t.Parallel()
	all, have := protection(t, "shop.yaml", shop+"  /orders:\n    put: {}\n    get: {}\n")
	want := []string{
		"11 GET / unprotected", "9 GET /health open", "13 GET /orders protected", "12 PUT /orders unprotected", "4 GET /v1/orders protected", "5 POST /v1/orders protected",
		"8 GET /v1/orders/{id} protected", "8 DELETE /v1/orders/{id} protected", "9 GET /v1/orders/{id}/entries unprotected",
	}
	if len(have) != len(want) || all.Open != 1 || all.Unprotected != 3 {
		t.Errorf("operations\n%s", strings.Join(have, "\n"))
	}
	for i, line := range want { // without the numbers, but there must be some
		_, wanted, _ := strings.Cut(line, " ")
		number, had, _ := strings.Cut(have[i], " ")
		if had != wanted || number == "0" {
			t.Errorf("%s, want %s", have[i], line)
		}
	}
}

// An empty requirement is met by anybody, whatever stands beside it (OpenAPI 3.1.1 section 4.8.30).
func TestAnAlternativeThatAsksNothingLeavesOpen(t *testing.T) {
	t.Parallel()
	all, have := protection(t, "shop.yaml", "openapi: 3.1.0\nsecurity: [{}, {bearer: []}]\npaths:\n  /orders:\n    get: {}\n    post: {security: [{}]}\n    put: {security: [{bearer: []}]}\n")
	if all.Open != 2 || all.Protected != 0 {
		t.Errorf("operations\n%s", strings.Join(have, "\n"))
	}
}

// A policy of which nothing is known that could be asked must not be told to leave everything unprotected.
func TestNobodyToAskFor(t *testing.T) {
	t.Parallel()
	p := read(t, fstest.MapFS{"gatehouse/authz.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n")}})
	r, err := author.ParseRoutes("shop.yaml", []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := p.Protection(t.Context(), r); err == nil || !strings.Contains(err.Error(), "speaks of anybody") {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := p.Protection(t.Context(), author.Routes{}); err == nil {
		t.Errorf("%+v", all)
	}
}
