package golden_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
)

// What is written as a case asks what was asked.
func TestACaseOfARequestAsksTheSame(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 9, 30, 0, 0, time.UTC)
	request := func(path, id string, params map[string]any) authzen.Request {
		segments := strings.Split(strings.Trim(path, "/"), "/")
		return authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: "ann", Properties: map[string]any{
				"roles": []string{"clerk"}, "groups": []string{}, "tenant": "acme", "attributes": map[string]any{"department": "sales", "clearance": 3},
			}},
			Action:   authzen.Action{Name: "GET"},
			Resource: authzen.Resource{Type: "order", ID: id, Properties: map[string]any{"path": path, "segments": segments, "params": params}},
			Context:  map[string]any{"ip": "10.0.0.1", "acr": "2"},
		}
	}
	for _, r := range []authzen.Request{
		request("/orders/17", "17", map[string]any{"id": "17"}),
		request("/orders", "/orders", map[string]any{}),
		request("/v1/orders", "/v1/orders", map[string]any{}),
		request("/shops/7/orders/9", "9", map[string]any{"shop": "7", "id": "9"}),
		request("/shops/7/orders", "/shops/{shop}/orders", map[string]any{"shop": "7"}),
	} {
		c, err := golden.Of(r, map[string]any{"owner": "ann"}, at)
		if err != nil {
			t.Fatal(err)
		}
		c.Title, c.Decision, c.Reasons = "a case", "allow", []string{"owner"}
		text, err := golden.Format(c)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		read, err := golden.Parse("c.yaml", text)
		if err != nil || len(read) != 1 {
			t.Fatalf("%v: %s", err, text)
		}
		if got := read[0].Request(); !reflect.DeepEqual(got, r) {
			t.Errorf("%s\nasks %+v\nnot  %+v", text, got, r)
		}
		if !read[0].At.Equal(at) || read[0].Known["owner"] != "ann" || read[0].Decision != "allow" {
			t.Errorf("read %+v", read[0])
		}
	}
}

func TestPattern(t *testing.T) {
	t.Parallel()
	for asks, want := range map[string]string{
		"GET /orders/17": "/orders/{id}", "GET /orders": "/orders", "GET /v1/orders/{id=3}": "/v1/orders/{id}", "GET /shops/{shop=1}/orders": "/shops/{shop}/orders",
	} {
		c := golden.Case{Asks: asks}
		if got := c.Pattern(); got != want {
			t.Errorf("%s: %s, want %s", asks, got, want)
		}
	}
}
