package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
)

const outcomeSchema = `{"Protocol":"ProtoBuf:1","SocketPath":"/nowhere","Plugins":[{"Name":"gatehouse-outcome","Version":"1.0.0","Priority":10,"Phases":["log"],
"Schema":{"name":"gatehouse-outcome","fields":[{"config":{"type":"record","fields":[{"statuses":{"type":"array","default":[401],"elements":{"type":"integer"}}}]}}]}}]}`

// A plugin of the phase log is told what the client got, and whether it is the upstream's, once the client has it.
func TestAnswersAreToldInThePhaseLog(t *testing.T) {
	t.Parallel()
	told, exit := make(chan string, 10), false
	f := newFake(t, func(p *peer) {
		if p.phase == "access" {
			if exit {
				_ = p.ask("kong.response.exit", &protocol.ExitArgs{Status: 403}, nil)
				p.gone = true
			}
			return
		}
		var said struct {
			Response struct{ Status int }  `json:"response"`
			Source   string                `json:"source"`
			Address  string                `json:"client_ip"`
			Route    struct{ Name string } `json:"route"`
			Request  struct{ ID string }   `json:"request"`
		}
		if err := json.Unmarshal([]byte(p.text("kong.log.serialize", nil)), &said); err != nil || len(said.Request.ID) != 32 {
			t.Errorf("%v: %+v", err, said)
		}
		told <- fmt.Sprintln(p.phase, said.Route.Name, said.Response.Status, said.Source, said.Address)
	})
	api := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "refused") {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, "x")
	})
	config := strings.Replace(testConfig, "here}\"}}]", "here}\"}}, {name: gatehouse-outcome}]", 1)
	s := serve(t, config, f, map[string]string{"a:1": api, "b:2": api}, func(o *Options) {
		o.Outcome.Describe = func(w io.Writer) error { _, err := io.WriteString(w, outcomeSchema); return err }
	})
	for path, want := range map[string]string{"/things/a": "log things 200 upstream 127.0.0.1\n", "/things/refused": "log things 401 upstream 127.0.0.1\n"} {
		get(t, s.URL+path)
		if got := <-told; got != want {
			t.Errorf("%s: told %q", path, got)
		}
	}
	get(t, s.URL+"/open/refused")
	exit = true
	if resp, _ := get(t, s.URL+"/things/a"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", resp.StatusCode)
	}
	if got := <-told; got != "log things 403 kong 127.0.0.1\n" {
		t.Errorf("of the plugin's own answer: told %q", got)
	}
}
