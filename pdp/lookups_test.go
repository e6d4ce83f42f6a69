package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

const (
	byOwner = "package gatehouse.authz\n\ndefault decision := {\"allow\": false, \"reasons\": [\"not_owner\"]}\n\ndecision := {\"allow\": true} if input.resource.properties.owner == input.subject.id\n"
	bySight = "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if input.subject.id == \"ann\"\n"
	single  = "lookups:\n  order:\n    url: http://orders/orders/{id}\n    properties: {owner: /owner}\n    deadline: 2s\n"
	several = single + "    batch: {url: \"http://orders/orders?ids={ids}\"}\n"
)

// S59, S64: a batch of evaluations asks an API once where its look-up says how, and not at all for a policy that does not look; what does
// not come back does not exist.
func TestABatchOfEvaluationsLooksItsObjectsUpAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy, lookups string
		ids             []string
		want            []bool
		asked           []string
	}{
		"at once":        {byOwner, several, []string{"1", "2", "1"}, []bool{true, true, true}, []string{"/orders?ids=1,2"}},
		"one is another": {byOwner, several, []string{"1", "5", "2"}, []bool{true, false}, []string{"/orders?ids=1,2,5"}},
		"one is missing": {byOwner, several, []string{"1", "9"}, []bool{true, false}, []string{"/orders?ids=1,9"}},
		"one alone":      {byOwner, several, []string{"1"}, []bool{true}, []string{"/orders/1"}},
		"one by one":     {byOwner, single, []string{"1", "2"}, []bool{true, true}, []string{"/orders/1", "/orders/2"}},
		"nothing read":   {bySight, several, []string{"1", "9"}, []bool{true, true}, nil},
		"the collection": {byOwner, several, []string{"/orders", "1", "2"}, []bool{false}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var asked []string
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked = append(asked, r.RequestURI)
				mu.Unlock()
				owner := func(id string) string { return map[bool]string{true: "ann", false: "bob"}[id < "5"] }
				if id, one := strings.CutPrefix(r.URL.Path, "/orders/"); one {
					fmt.Fprintf(w, `{"owner":%q}`, owner(id))
					return
				}
				var items []string
				for id := range strings.SplitSeq(r.URL.Query().Get("ids"), ",") {
					if id != "9" {
						items = append(items, fmt.Sprintf(`{"id":%q,"owner":%q}`, id, owner(id)))
					}
				}
				fmt.Fprintf(w, "[%s]", strings.Join(items, ","))
			}))
			defer api.Close()
			quiet := slog.New(slog.DiscardHandler)
			e, err := engine.Open(t.Context(), engine.Options{
				Policies: fstest.MapFS{"gatehouse/authz.rego": {Data: []byte(c.policy)}, "gatehouse/lookups.yaml": {Data: []byte(c.lookups)}},
				Services: map[string][]string{"orders": {api.URL}}, Deadline: 5 * time.Second, Log: quiet,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			pdp := httptest.NewServer(server.New(server.Options{Engine: e, DecisionLog: decisionlog.New(quiet), Log: quiet, BatchTime: 20 * time.Second}))
			defer pdp.Close()
			client, err := authzen.NewClient(pdp.URL, 20*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var on []authzen.Resource
			for _, id := range c.ids {
				on = append(on, authzen.Resource{Type: "order", ID: id})
			}
			answers, err := client.EvaluateAll(t.Context(), authzen.Request{Subject: authzen.Subject{Type: "user", ID: "ann"}, Action: authzen.Action{Name: "GET"}}, on)
			if err != nil {
				t.Fatal(err)
			}
			var got []bool
			for _, a := range answers {
				got = append(got, a.Decision)
			}
			if slices.Sort(asked); !slices.Equal(got, c.want) || !slices.Equal(asked, c.asked) {
				t.Errorf("decided %v, asked %v; want %v, %v", got, asked, c.want, c.asked)
			}
		})
	}
}
