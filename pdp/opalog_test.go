package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	opalogs "github.com/open-policy-agent/opa/v1/plugins/logs"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
)

// logService takes decision logs as a service of OPA's does: POST /logs, a gzipped array of OPA's own events.
type logService struct {
	*httptest.Server
	events chan opalogs.EventV1
}

func newLogService(t *testing.T) *logService {
	t.Helper()
	s := &logService{events: make(chan opalogs.EventV1, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plain, err := gzip.NewReader(r.Body)
		var batch []opalogs.EventV1
		if err == nil {
			err = json.NewDecoder(plain).Decode(&batch)
		}
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/logs" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %v: %v", r.Method, r.URL, r.Header, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, e := range batch {
			s.events <- e
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// recordsAreOPAs holds that what takes OPA's decision logs takes these: OPA itself and this program ship to the same service, whose
// events are OPA's own type, and say the same of the same question.
func recordsAreOPAs(t *testing.T, command string) {
	t.Helper()
	s := newLogService(t)
	file, _ := logFile(t, "spool: {dir: $DIR/spool}\nsample: {default: 1}\nlabels: {region: eu}\nmasks: [{erase: /input/client_ip}]\nsinks: [{http: "+s.URL+"}]\n")
	p := start(t, "-policies", dataFolder+"/policies", "-data-paths", "/", "-decision-log", file)
	d := newDepot(t)
	d.publish("/b", archived(t, dataFolder+"/policies"))
	theirs := runOPA(t, command, `
labels: {region: eu}
services: {depot: {url: `+d.URL+`}, logs: {url: `+s.URL+`}}
bundles: {policies: {service: depot, resource: /b}}
decision_logs: {service: logs, reporting: {min_delay_seconds: 1, max_delay_seconds: 1}}
`)
	await.That(t, "OPA has its policies", func() bool { status, _ := theirs.get(t, "/health?bundles"); return status == http.StatusOK })
	for _, c := range []struct{ path, body string }{
		{"kong/allow", kongsInput}, {"kong/detailed", kongsInput}, {"things/maybe", `{"input":{"yes":false}}`}, {"things/echo", `{"input":[1.5,"a",null]}`},
	} {
		var events [2]opalogs.EventV1
		for i, ask := range []func() askedOf{
			func() askedOf { return p.question(t, "/v1/data/"+c.path, c.body, "") },
			func() askedOf {
				return (&program{client: theirs.client, url: "http://opa"}).question(t, "/v1/data/"+c.path, c.body, "")
			},
		} {
			a := ask()
			var answer struct {
				ID string `json:"decision_id"`
			}
			if err := json.Unmarshal(a.body, &answer); err != nil || a.status != http.StatusOK {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if events[i] = <-s.events; events[i].DecisionID != answer.ID {
				t.Errorf("%s: answered %s, recorded %+v", c.path, answer.ID, events[i])
			}
		}
		ours, opas := events[0], events[1]
		if cmp.Diff(opas.Result, ours.Result) != "" || ours.Path != opas.Path || ours.Timestamp.IsZero() || ours.RequestedBy == "" || ours.Labels["id"] == "" || ours.Labels["version"] == "" || ours.Labels["region"] != "eu" ||
			ours.Bundles["policies"].Revision == "" || ours.Metrics["timer_server_handler_ns"] == nil {
			t.Errorf("recorded %+v, OPA %+v", ours, opas)
		}
		if m, ok := (*opas.Input).(map[string]any); ok && m["client_ip"] != nil { // masked as configured, and as secrets always are
			delete(m, "client_ip")
			request := m["request"].(map[string]any)["http"].(map[string]any)
			request["headers"].(map[string]any)["cookie"], request["body"] = "[secret]", "[secret]"
			if !slices.Equal(ours.Erased, []string{"/input/client_ip"}) || !slices.Equal(ours.Masked, []string{"/input/request/http/body", "/input/request/http/headers/cookie"}) {
				t.Errorf("erased %v, masked %v", ours.Erased, ours.Masked)
			}
		}
		if diff := cmp.Diff(opas.Input, ours.Input); diff != "" {
			t.Errorf("input (-OPA +Gatehouse):\n%s", diff)
		}
	}
	// Of errors OPA's type can be written and not read, as its error is an interface; its members are the same as ours.
	written, err := json.Marshal(opalogs.EventV1{Error: errors.New("x")})
	if err != nil || json.Unmarshal(written, &opalogs.EventV1{}) == nil {
		t.Error("OPA's type reads its own errors; let ours be read by it too")
	}
}
