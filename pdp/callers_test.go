package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

const (
	oldToken = "0123456789abcdef0123456789abcdef"
	newToken = "fedcba9876543210fedcba9876543210"
	question = `{"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"resource":{"type":"order","id":"17"}}`
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// send posts a body and answers the status and the answer.
func send(t *testing.T, client *http.Client, url, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

// S71: what can be reached from elsewhere does not start open, unless the operator says so.
func TestBeyondThisMachineCallersMustShowWhoTheyAre(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t, rules("order"))
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		ended := make(chan error, 1)
		go func() {
			ended <- run(t.Context(), []string{"serve", "-policies", dir, "-listen", listen, "-status", "none"}, func(string) string { return "" }, io.Discard)
		}()
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "tokens-file") {
				t.Errorf("%s: %v", listen, err)
			}
		case <-time.After(patience):
			t.Fatalf("%s: it serves", listen)
		}
	}
	for want, args := range map[string][]string{
		"envoy-listen: ":                  {"-envoy-listen", "0.0.0.0:0"},
		"callers have names only with":    {"-search-callers", "auditor"},
		"search-callers: * stands":        {"-search-callers", "*,auditor"},
		"envoy: claims: must be":          {"-envoy-claims", "payload"},
		"envoy-resources: each must be":   {"-envoy-resources", "/orders"},
		`envoy: headers: "Authorization"`: {"-envoy-headers", "Authorization"},
	} {
		err := run(t.Context(), append([]string{"serve", "-policies", dir, "-listen", "127.0.0.1:0", "-status", "none"}, args...), func(string) string { return "" }, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
	for what, args := range map[string][]string{
		"anyone": {"-anyone-may-ask=true"}, "tokens": {"-tokens-file", write(t, "tokens", "edge "+oldToken+"\n")},
	} {
		p := start(t, append(args, "-policies", dir, "-listen", "0.0.0.0:0")...)
		if warned := p.find("anyone who reaches this address may ask") != nil; warned != (what == "anyone") {
			t.Errorf("%s: warned: %v", what, warned)
		}
		if warned := p.find("callers' tokens travel without TLS") != nil; warned != (what == "tokens") {
			t.Errorf("%s: warned of tokens: %v", what, warned)
		}
	}
}

func TestATokenIsAskedForAndRotates(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t, rules("order"))
	file := write(t, "tokens", "edge "+oldToken+"\n")
	p := start(t, "-policies", dir, "-tokens-file", file)
	ask := func(token string) int {
		status, _ := send(t, p.client, p.url+authzen.Path, question, "Authorization", "Bearer "+token)
		return status
	}
	if a, b := ask(oldToken), ask(newToken); a != 200 || b != 401 {
		t.Fatalf("answered %d and %d", a, b)
	}
	if err := os.WriteFile(file, []byte("edge "+newToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the new token counts, and the old one not", func() bool { return ask(newToken) == 200 && ask(oldToken) == 401 })
	if all := p.stop(t); strings.Contains(all, oldToken) || strings.Contains(all, newToken) {
		t.Errorf("a token is logged:\n%s", all)
	}
}

// S71
func TestMutualTLSAdmitsWhoHasACertificate(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t, rules("order"))
	ours, clients := pki.New(t, "servers"), pki.New(t, "clients")
	pair, edge := ours.Server(t), clients.Client(t, "edge-7")
	p := start(t, "-policies", dir, "-listen", "0.0.0.0:0", "-tls-cert-file", write(t, "cert", pair.Cert), "-tls-key-file", write(t, "key", pair.Key),
		"-tls-client-ca-file", write(t, "ca", clients.PEM))
	_, port, err := net.SplitHostPort(strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	url := "https://127.0.0.1:" + port
	mine, err := tls.X509KeyPair([]byte(edge.Cert), []byte(edge.Key))
	if err != nil {
		t.Fatal(err)
	}
	for what, own := range map[string][]tls.Certificate{"with": {mine}, "without": nil} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pki.Roots(ours), Certificates: own, MinVersion: tls.VersionTLS12}}
		status, answer := send(t, &http.Client{Transport: transport, Timeout: patience}, url+authzen.Path, strings.Replace(question, "order", "invoice", 1))
		transport.CloseIdleConnections()
		if (status == 200) != (own != nil) {
			t.Errorf("%s a certificate: %d %s", what, status, answer)
		}
	}
	status, _ := send(t, p.client, "http://127.0.0.1:"+port+authzen.Path, question)
	if status == 200 {
		t.Error("it decides without TLS")
	}
	if all := p.stop(t); !strings.Contains(all, `"caller":"edge-7"`) {
		t.Errorf("the denial does not name its caller:\n%s", all)
	}
}

func TestMetricsAreOnThePrivateListener(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t, rules("order"))
	p := start(t, "-policies", dir, "-data-paths", "gatehouse/authz")
	if res, err := p.ask(t, "order", "17"); err != nil || !res.Decision {
		t.Fatalf("%+v, %v", res, err)
	}
	if status, body := p.get(t, "/v1/data/gatehouse/authz/decision/allow"); status != 200 || !strings.Contains(body, `"result":false`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := p.get(t, "/v1/data/gatehouse"); status != 403 || !strings.Contains(body, `"unauthorized"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := p.get(t, "/metrics"); status != 404 {
		t.Errorf("metrics beside decisions: %d", status)
	}
	p.url = p.status
	status, body := p.get(t, "/metrics")
	for _, line := range []string{
		`gatehouse_pdp_decisions_total{api="authzen",outcome="permit"} 1`, `gatehouse_pdp_decisions_total{api="data",outcome="deny"} 1`,
		`gatehouse_pdp_policy_newest 1`, `gatehouse_pdp_policy_loads_total{result="loaded"} 1`, `gatehouse_pdp_unknown_callers_total 0`,
	} {
		if status != 200 || !strings.Contains(body, line+"\n") {
			t.Errorf("%d, no line %s", status, line)
		}
	}
}

func TestMistakesInTheConfigurationAreNamedTogether(t *testing.T) {
	t.Parallel()
	environment := map[string]string{
		"PDP_MAX_BODY": "0", "PDP_MAX_BATCH": "many", "PDP_MAX_CONCURRENT": "-1", "PDP_ANYONE_MAY_ASK": "perhaps", "PDP_SOCKET_MODE": "rw",
		"PDP_DATA_PATHS": "data.x", "PDP_SERVICES": "x", "PDP_BASE_URL": "pdp.example", "PDP_TLS_CERT_FILE": "cert",
	}
	err := run(t.Context(), []string{"serve"}, func(name string) string { return environment[name] }, io.Discard)
	for _, name := range []string{"max-body", "max-batch", "max-concurrent", "anyone-may-ask", "socket-mode", "data-paths", "services", "base-url", "tls-cert-file"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named by %v", name, err)
		}
	}
	for _, bad := range []string{"a b", "a[0]", "//", "a//b", `a"b`, "a%2Fb"} {
		if got, err := parsePaths(bad); err == nil {
			t.Errorf("%q was read as %q", bad, got)
		}
	}
	if got, err := parsePaths(" orders/allow, /kong/ ,,/"); err != nil || strings.Join(got, ";") != "orders/allow;/kong/;/" {
		t.Errorf("read %q, %v", got, err)
	}
}
