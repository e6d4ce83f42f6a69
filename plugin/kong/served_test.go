package kong_test

import (
	"testing"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// What the edge has itself, such as the script that solves challenges, is an exit too, and no failure.
func TestWhatTheEdgeHasItselfIsAnExit(t *testing.T) {
	t.Parallel()
	for status, body := range map[int]string{200: "script", 303: ""} {
		socket, _ := serve(t, func(guard.Request) guard.Verdict {
			return guard.Verdict{Served: true, Status: status, Header: map[string]string{"X-A": "b"}, Body: []byte(body)}
		})
		p := dial(t, socket)
		o := p.event(p.start(open), request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"})
		if int(o.exit.GetStatus()) != status || string(o.exit.GetBody()) != body || o.exit.GetHeaders().GetFields()["X-A"].GetStringValue() != "b" {
			t.Errorf("outcome %+v", o)
		}
	}
}
