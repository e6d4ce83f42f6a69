package edge_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// send posts a body, by its length or in pieces.
func (e *edge) send(t *testing.T, token, body string, pieces bool) answer {
	t.Helper()
	var from io.Reader = strings.NewReader(body)
	if pieces {
		from = io.MultiReader(from) // whose length net/http does not see
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/orders/delete", from)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := testhttp.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if text, err := io.ReadAll(res.Body); err == nil && res.StatusCode >= 400 {
		if err := json.Unmarshal(text, &a.problem); err != nil {
			t.Errorf("problem %q", text)
		}
	}
	return a
}

// S56: what a gateway shows of a body is all of it or nothing, whoever the gateway is; the upstream gets what the client sent.
func TestABodyIsShownToTheEdgeAndReachesTheUpstream(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, nil)
	const small = "{ \"ids\": [\"1\",\n2], \"note\": \"\u00e4\" }"
	for _, pieces := range []bool{false, true} {
		e.got.Store("")
		if want(t, "a small body", e.send(t, token, small, pieces), 200, ""); e.got.Load() != small {
			t.Errorf("the upstream got %q", e.got.Load())
		}
	}
	full := `{"ids":["1"],"note":"` + strings.Repeat("x", 16<<10-len(`{"ids":["1"],"note":""}`)) + `"}`
	if want(t, "a body as large as it may be", e.send(t, token, full, false), 200, ""); e.got.Load() != full {
		t.Errorf("the upstream got %d bytes", len(e.got.Load().(string)))
	}
	reached := e.upstream.Load()
	want(t, "one byte more", e.send(t, token, full+" ", false), 413, "body_too_large")
	want(t, "much more, in pieces", e.send(t, token, full+strings.Repeat(" ", 1<<20), true), 413, "body_buffered")
	want(t, "nothing", e.send(t, token, "", false), 400, "body_malformed")
	e.decide(authzen.Response{})
	want(t, "denied", e.send(t, token, small, false), 403, "forbidden")
	if e.upstream.Load() != reached {
		t.Error("a refused request reached the upstream")
	}
}
