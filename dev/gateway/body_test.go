package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// As in Kong 3.9: a plugin server gets the body, or the path of the file that it is in; the upstream gets all of it in either case.
func TestAPluginSeesTheBodyThatTheUpstreamGets(t *testing.T) {
	t.Parallel()
	var seen atomic.Pointer[protocol.RawBodyResult]
	var lost atomic.Bool
	f := newFake(t, func(p *peer) {
		answer := &protocol.RawBodyResult{}
		if p.gone = p.ask("kong.request.get_raw_body", nil, answer) != nil; p.gone {
			return
		}
		seen.Store(answer)
		p.gone = !lost.Swap(true) // the event is run again, and the body still there
	})
	type sent struct{ body, length string }
	reached := make(chan sent, 1)
	target := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		reached <- sent{string(body), fmt.Sprint(r.ContentLength)}
	})
	s := serve(t, testConfig, f, map[string]string{"a:1": target, "b:2": target})
	for _, c := range []struct {
		name, body string
		chunked    bool
		file       bool
	}{
		{"none", "", false, false},
		{"small", `{"ids":[1]}`, false, false},
		{"in pieces", `{"ids":[2]}`, true, false},
		{"as large as the buffer", strings.Repeat("x", bodyBuffer), false, false},
		{"larger", strings.Repeat("y", bodyBuffer+1), false, true},
		{"much larger, in pieces", strings.Repeat("z", 1<<20), true, true},
	} {
		var from io.Reader = strings.NewReader(c.body)
		if c.chunked {
			from = io.MultiReader(from) // hides its length
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/things", from)
		if err != nil {
			t.Fatal(err)
		}
		res, err := testhttp.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d", c.name, res.StatusCode)
		}
		if got := <-reached; got.body != c.body || c.chunked != (got.length == "-1") {
			t.Errorf("%s: the upstream got %d bytes of %s", c.name, len(got.body), got.length)
		}
		if saw := seen.Load(); c.file && saw.GetBodyFilepath() == "" || !c.file && string(saw.GetContent()) != c.body {
			t.Errorf("%s: the plugin saw %.100v", c.name, saw)
		}
	}
}

// As in Kong, no plugin decides on a body that never came.
func TestABodyThatEndsEarlyIsABadRequest(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(p *peer) {
		p.gone = p.ask("kong.request.get_raw_body", nil, nil) != nil
	})
	target := upstream(t, func(http.ResponseWriter, *http.Request) { t.Error("the upstream was asked") })
	s := serve(t, testConfig, f, map[string]string{"a:1": target, "b:2": target})
	res, body := raw(t, s.URL, "POST /things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno chunk\r\n")
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
