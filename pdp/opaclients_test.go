package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// askedOf is a request as somebody's plugin or client sends it, and what it got.
type askedOf struct {
	status int
	body   []byte
}

// verdict is what a plugin does with a request for what OPA answered: 0 lets it pass, else it is the status for whoever asked.
type verdict struct {
	status  int
	headers map[string]any // of the request where it passes, else of the answer
	text    string
}

// kongs reads an answer as Kong's plugin opa does (kong/plugins/opa): only a 200 whose result is a boolean, or an object with a
// boolean allow, is a decision.
func kongs(a askedOf) verdict {
	var answer struct{ Result any }
	if a.status != http.StatusOK || json.Unmarshal(a.body, &answer) != nil {
		return verdict{status: 500}
	}
	if allow, ok := answer.Result.(bool); ok {
		answer.Result = map[string]any{"allow": allow}
	}
	object, _ := answer.Result.(map[string]any)
	allow, ok := object["allow"].(bool)
	v := verdict{}
	if v.headers, _ = object["headers"].(map[string]any); !ok {
		return verdict{status: 500}
	}
	if !allow {
		v.status, v.text = 403, "unauthorized"
		if status, ok := object["status"].(float64); ok {
			v.status = int(status)
		}
		if text, ok := object["message"].(string); ok {
			v.text = text
		}
	}
	return v
}

// apisixes reads an answer as APISIX's plugin opa does (apisix/plugins/opa.lua), which looks at no status: what has a result is a
// decision, and its allow says which.
func apisixes(a askedOf) verdict {
	var answer struct{ Result any }
	if json.Unmarshal(a.body, &answer) != nil || answer.Result == nil || answer.Result == false {
		return verdict{status: 503}
	}
	object, ok := answer.Result.(map[string]any)
	if !ok {
		return verdict{status: 500} // Lua has no members of what is no table
	}
	v := verdict{}
	v.headers, _ = object["headers"].(map[string]any)
	if allow := object["allow"]; allow == nil || allow == false {
		v.status = 403
		if status, ok := object["status_code"].(float64); ok {
			v.status = int(status)
		}
		v.text, _ = object["reason"].(string)
	}
	return v
}

const (
	kongsInput = `{"input":{"request":{"http":{"method":"METHOD","scheme":"http","host":"api.example.org","port":8000,"path":"/foo/bar","headers":{"host":"api.example.org","x-department":"sales","cookie":["a=1","b=2"]},` +
		`"querystring":{"a":"1","flag":true},"tls":{"version":"TLSv1.3","cipher":"TLS_AES_256_GCM_SHA384","client_verify":"NONE"},"body":"{\"n\":1}","body_size":7,"parsed_body":{"n":1},"uri_captures":{}}},"client_ip":"192.0.2.7",` +
		`"service":{"id":"e6b8a6a5","name":"orders","host":"orders","port":80,"protocol":"http","retries":5,"enabled":true,"created_at":1764000000},"route":{"id":"c3f0","name":"orders","paths":["/foo"],"strip_path":true,"service":{"id":"e6b8a6a5"}},` +
		`"consumer":{"id":"a1","username":"ann","type":0}}}`
	apisixesInput = `{"input":{"type":"http","request":{"scheme":"http","method":"METHOD","host":"127.0.0.1","port":9080,"path":"\/get","headers":{"user-agent":"curl\/8.7.1","accept":"*\/*","host":"127.0.0.1:9080"},"query":{"a":["1","2"],"b":true}},` +
		`"var":{"server_addr":"127.0.0.1","server_port":"9080","remote_addr":"192.0.2.7","remote_port":"38404","timestamp":1764088800},"route":{"id":"1","uri":"\/get","plugins":{"opa":{"host":"http:\/\/pdp:8181","policy":"apisix","with_route":true}},"priority":0},` +
		`"service":{"id":"5","plugins":{"key-auth":{}}},"consumer":{"consumer_name":"ann","plugins":{"key-auth":{"key":"[encrypted]"}},"auth_conf":{}}}}`
)

// What Kong's and APISIX's own plugins send is read, and what they read of the answer stops and lets pass whom it should: allowed,
// denied, undefined, failed, not told, by a caller that nobody knows.
func TestTheOPAPluginsOfGatewaysDecideByIt(t *testing.T) {
	t.Parallel()
	tokens := write(t, "tokens", "gateway "+oldToken+"\n")
	p := start(t, "-policies", dataFolder+"/policies", "-data-paths", "kong,apisix,things/broken", "-tokens-file", tokens)
	for _, c := range []struct {
		name, gateway, path, method string
		want                        verdict
	}{
		{"allowed", "kong", "kong/allow", "GET", verdict{}},
		{"denied", "kong", "kong/allow", "POST", verdict{403, nil, "unauthorized"}},
		{"allowed with headers", "kong", "kong/detailed", "GET", verdict{0, map[string]any{"x-decided-by": "opa"}, ""}},
		{"denied with a status", "kong", "kong/detailed", "POST", verdict{418, nil, "not for you"}},
		{"undefined", "kong", "kong/nothing", "GET", verdict{status: 500}},
		{"failed", "kong", "things/broken", "GET", verdict{status: 500}},
		{"not told", "kong", "gatehouse/authz/decision", "GET", verdict{status: 500}},
		{"allowed", "apisix", "apisix", "GET", verdict{}},
		{"denied with a reason", "apisix", "apisix", "POST", verdict{403, nil, "only GET of /get"}},
		{"undefined", "apisix", "apisix/nothing", "GET", verdict{status: 503}},
		{"failed", "apisix", "things/broken", "GET", verdict{status: 503}},
		{"not told", "apisix", "gatehouse/authz/decision", "GET", verdict{status: 503}},
	} {
		input, read := kongsInput, kongs
		if c.gateway == "apisix" {
			input, read = apisixesInput, apisixes
		}
		input = strings.Replace(input, "METHOD", c.method, 1)
		if got := read(p.question(t, "/v1/data/"+c.path, input, oldToken)); got.status != c.want.status || got.text != c.want.text || len(got.headers) != len(c.want.headers) || got.headers["x-decided-by"] != c.want.headers["x-decided-by"] {
			t.Errorf("%s, %s: %+v, want %+v", c.gateway, c.name, got, c.want)
		}
		if got := read(p.question(t, "/v1/data/"+c.path, input, "")); got.status == 0 {
			t.Errorf("%s, %s: passes without a token", c.gateway, c.name)
		}
	}
}

// question sends what clients of OPA send beside their question.
func (p *program) question(t *testing.T, path, body, token string) askedOf {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "gzip, deflate", "Cookie": ""} {
		r.Header.Set(name, value)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := p.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Content-Encoding") != "" || !json.Valid(text) {
		t.Errorf("%s: %v %s", path, res.Header, text)
	}
	return askedOf{res.StatusCode, text}
}

// OPA's own clients (@open-policy-agent/opa, StyraInc/opa-go and its siblings) are generated from one description of OPA: a 200, a 400 and a 500
// have these members, POST / is their default policy, and a 404 of the batch API makes them ask one by one.
func TestClientsOfOPAUnderstandIt(t *testing.T) {
	t.Parallel()
	p := start(t, "-policies", dataFolder+"/policies", "-data-paths", "kong/allow,things,system/main")
	for _, c := range []struct {
		name, path, body string
		status           int
		code             string // of an error
		result           string
	}{
		{"a decision", "/v1/data/things/maybe", `{"input":{"yes":true}}`, 200, "", "true"},
		{"undefined", "/v1/data/things/maybe", `{"input":{"yes":false}}`, 200, "", ""},
		{"an object", "/v1/data/things/stored/deep", `{"input":{}}`, 200, "", `{"a":[10,20,{"b":"c"}]}`},
		{"malformed", "/v1/data/things/maybe", `{"input":`, 400, "invalid_parameter", ""},
		{"failed", "/v1/data/things/broken", `{"input":{}}`, 500, "internal_error", ""},
		{"not told", "/v1/data/gatehouse/authz", `{"input":{}}`, 403, "unauthorized", ""},
		{"batch", "/v1/batch/data/things/maybe", `{"inputs":{"a":{"yes":true},"b":{}}}`, 404, "resource_not_found", ""},
		{"filters", "/v1/compile/things/maybe", `{"input":{},"options":{"targetSQLTableMappings":{}}}`, 403, "invalid_operation", ""},
		{"the default, undefined", "/", `{"user":"bob"}`, 404, "undefined_document", ""},
	} {
		a := p.question(t, c.path, c.body, "")
		var answer struct {
			Result     json.RawMessage `json:"result"`
			DecisionID *string         `json:"decision_id"`
			Code       string          `json:"code"`
			Message    string          `json:"message"`
		}
		if err := json.Unmarshal(a.body, &answer); err != nil || a.status != c.status || answer.Code != c.code || string(answer.Result) != c.result || (c.code != "") != (answer.Message != "") ||
			a.status == 200 && answer.DecisionID == nil {
			t.Errorf("%s: %d %s, %v", c.name, a.status, a.body, err)
		}
	}
	if a := p.question(t, "/", `{"user":"alice"}`, ""); a.status != 200 || strings.TrimSpace(string(a.body)) != `{"allowed":true,"who":"alice"}` {
		t.Errorf("the default: %d %s", a.status, a.body)
	}
}
