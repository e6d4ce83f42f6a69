package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// envoyCase is a request of Envoy's and what opa-envoy-plugin answered.
type envoyCase struct {
	Name    string          `json:"name"`
	Request json.RawMessage `json:"request"` // a CheckRequest
	Failed  bool            `json:"failed,omitempty"`
	Answer  json.RawMessage `json:"answer,omitempty"` // a CheckResponse without its decision_id
}

// envoyFolder is the policies and cases. The answers are those of opa-envoy-plugin itself: with one that serves the folder's
// policies at GATEHOUSE_OPA_ENVOY, by path envoy/authz/allow, the test writes them anew.
const envoyFolder = "testdata/envoy"

func authorization(t *testing.T, address string) auth.AuthorizationClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return auth.NewAuthorizationClient(conn)
}

// asked sends a case, and takes the decision's id out of the answer.
func (c envoyCase) asked(t *testing.T, client auth.AuthorizationClient) (*auth.CheckResponse, string, error) {
	t.Helper()
	var m auth.CheckRequest
	if err := protojson.Unmarshal(c.Request, &m); err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	res, err := client.Check(t.Context(), &m)
	if err != nil {
		return nil, "", err
	}
	id := res.GetDynamicMetadata().GetFields()["decision_id"].GetStringValue()
	delete(res.GetDynamicMetadata().GetFields(), "decision_id")
	return res, id, nil
}

func recordEnvoy(t *testing.T, address string, cases []envoyCase) {
	t.Helper()
	client := authorization(t, address)
	for i := range cases {
		res, _, err := cases[i].asked(t, client)
		cases[i].Failed, cases[i].Answer = err != nil, nil
		if err == nil {
			if cases[i].Answer, err = protojson.Marshal(res); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := json.MarshalIndent(cases, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	save(t, filepath.Join(envoyFolder, "cases.json"), string(text)+"\n")
}

// A document of opa-envoy-plugin's is asked with that plug-in's own input and answers as it does, but that identity headers are
// overwritten or removed, and that what failed there, so that Envoy's failure_mode_allow decides, is a refusal here (S54, S56).
func TestADocumentAnswersEnvoyAsItsPluginDoes(t *testing.T) {
	t.Parallel()
	var cases []envoyCase
	if err := json.Unmarshal(read(t, filepath.Join(envoyFolder, "cases.json")), &cases); err != nil {
		t.Fatal(err)
	}
	if address := os.Getenv("GATEHOUSE_OPA_ENVOY"); address != "" {
		recordEnvoy(t, address, cases)
	}
	p := start(t, "-policies", filepath.Join(envoyFolder, "policies"), "-envoy-listen", "127.0.0.1:0", "-envoy-path", "envoy/authz/allow")
	address, _ := p.find("deciding")["envoy"].(string)
	client := authorization(t, address)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got, id, err := c.asked(t, client)
			if err != nil {
				t.Fatal(err)
			}
			var want auth.CheckResponse
			if c.Failed {
				if got.GetStatus().GetCode() == 0 || got.GetDeniedResponse().GetStatus().GetCode() != 503 {
					t.Errorf("answered %v, where the plug-in fails", got)
				}
				return
			}
			if err := protojson.Unmarshal(c.Answer, &want); err != nil {
				t.Fatal(err)
			}
			if want.GetDeniedResponse().GetStatus().GetCode() == 400 {
				if d := got.GetDeniedResponse(); got.GetStatus().GetCode() == 0 || d.GetStatus().GetCode() != 400 || !strings.Contains(d.GetBody(), `"bad_request"`) {
					t.Errorf("answered %v, where the plug-in cannot read", got)
				}
				return
			}
			if len(id) != 36 {
				t.Errorf("decision id %q", id)
			}
			withoutIdentity(t, got, id)
			for _, r := range []*auth.CheckResponse{&want, got} { // nothing to be done is no more than nothing said
				if r.GetOkResponse() != nil && proto.Equal(r.GetOkResponse(), &auth.OkHttpResponse{}) {
					r.HttpResponse = nil
				}
			}
			if strings.HasPrefix(c.Name, "input: ") {
				if diff := cmp.Diff(echoed(t, &want), echoed(t, got)); diff != "" {
					t.Errorf("input (-plug-in +here):\n%s", diff)
				}
				return
			}
			sorted := protocmp.SortRepeatedFields(&auth.OkHttpResponse{}, "headers", "response_headers_to_add", "query_parameters_to_set")
			if diff := cmp.Diff(&want, got, protocmp.Transform(), sorted, protocmp.SortRepeatedFields(&auth.DeniedHttpResponse{}, "headers"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("other than the plug-in (-plug-in +here):\n%s", diff)
			}
		})
	}
}

// withoutIdentity fails unless each identity header is overwritten or removed where a request passes, and takes them out.
func withoutIdentity(t *testing.T, res *auth.CheckResponse, id string) {
	t.Helper()
	if res.GetStatus().GetCode() != 0 {
		return
	}
	ok := res.GetOkResponse()
	for _, name := range principal.IdentityHeaders() {
		name = strings.ToLower(name)
		set := slices.IndexFunc(ok.GetHeaders(), func(o *core.HeaderValueOption) bool { return o.GetHeader().GetKey() == name })
		if i := slices.Index(ok.GetHeadersToRemove(), name); i >= 0 {
			ok.HeadersToRemove = slices.Delete(ok.HeadersToRemove, i, i+1)
		} else if set < 0 || ok.GetHeaders()[set].GetAppendAction() != core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || name == "x-gatehouse-decision" && ok.GetHeaders()[set].GetHeader().GetValue() != id {
			t.Errorf("%s is neither overwritten nor removed: %v", name, ok)
		}
		if set >= 0 {
			ok.Headers = slices.Delete(ok.Headers, set, set+1)
		}
	}
}

// echoed is the input that a policy has shown in its body.
func echoed(t *testing.T, res *auth.CheckResponse) (input map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(res.GetDeniedResponse().GetBody()), &input); err != nil || res.GetStatus().GetCode() != 7 {
		t.Fatalf("answered %v: %v", res, err)
	}
	return input
}

// S67: what a document is asked by Envoy is recorded as other decisions are, and no secret of the request is in the record.
func TestWhatEnvoyAsksADocumentIsRecordedWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	file, dir := logFile(t, "spool: {dir: $DIR/spool}\nsample: {default: 1}\nsinks: [{file: $DIR/log}]\n")
	p := start(t, "-policies", filepath.Join(envoyFolder, "policies"), "-envoy-listen", "127.0.0.1:0", "-envoy-path", "envoy/authz/allow", "-decision-log", file)
	address, _ := p.find("deciding")["envoy"].(string)
	client := authorization(t, address)
	var ids []string
	for _, c := range []struct{ result, outcome string }{{"allowed", "permit"}, {"denied", "deny"}, {"number", "document"}, {"undefined", "not_applicable"}} {
		res, err := client.Check(t.Context(), &auth.CheckRequest{Attributes: &auth.AttributeContext{
			ContextExtensions: map[string]string{"case": c.result},
			Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
				Method: "POST", Path: "/a?access_token=" + canary, Body: `{"password":"` + canary + `"}`,
				Headers: map[string]string{"authorization": "Bearer " + canary, "cookie": "sid=" + canary, "content-type": "application/json", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
			}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if passes := c.result == "allowed"; passes != (res.GetStatus().GetCode() == 0) {
			t.Errorf("%s: answered %v", c.result, res)
		}
		ids = append(ids, res.GetDynamicMetadata().GetFields()["decision_id"].GetStringValue())
	}
	_, metrics := p.metrics(t)
	p.stop(t)
	records := recordsIn(t, filepath.Join(dir, "log"))
	if len(records) != 4 {
		t.Fatalf("recorded %v", records)
	}
	for i, outcome := range []string{"permit", "deny", "document", "not_applicable"} {
		r := records[i]
		if at(t, r, "gatehouse", "outcome") != outcome || at(t, r, "path") != "envoy/authz/allow" || at(t, r, "trace_id") != "4bf92f3577b34da6a3ce929d0e0e4736" || ids[i] != "" && at(t, r, "decision_id") != ids[i] {
			t.Errorf("%s: recorded %v", outcome, r)
		}
		if !strings.Contains(metrics, `gatehouse_pdp_decisions_total{api="envoy",outcome="`+outcome+`"} 1`) {
			t.Errorf("%s is not counted:\n%s", outcome, metrics)
		}
	}
	if text := string(read(t, filepath.Join(dir, "log"))); strings.Contains(text, canary) {
		t.Errorf("recorded %s", text)
	}
}

// metrics is what the private address tells Prometheus.
func (p *program) metrics(t *testing.T) (int, string) {
	t.Helper()
	return (&program{client: p.client, url: p.status}).get(t, "/metrics")
}
