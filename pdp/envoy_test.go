package main

import (
	"crypto/tls"
	"io"
	"path/filepath"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
)

// S71: the door for Envoy is of the same program: it asks for the same certificates and tokens, decides by the same policies, and
// its decisions are in the same log.
func TestEnvoyAsksTheSameProgram(t *testing.T) {
	t.Parallel()
	file, dir := logFile(t, "spool: {dir: $DIR/spool}\nsample: {default: 1}\nsinks: [{file: $DIR/log}]\n")
	ours, clients := pki.New(t, "servers"), pki.New(t, "clients")
	server, mesh := ours.Server(t), clients.Client(t, "envoy-1")
	policies, _ := folder(t, rules("invoice")+"\ndecision := {\"allow\": true} if { input.resource.id == \"17\"; input.subject.type == \"anonymous\" }\n")
	p := start(t, "-policies", policies, "-decision-log", file, "-tokens-file", write(t, "tokens", "mesh "+oldToken+"\n"),
		"-tls-cert-file", write(t, "cert", server.Cert), "-tls-key-file", write(t, "key", server.Key), "-tls-client-ca-file", write(t, "ca", clients.PEM),
		"-envoy-listen", "127.0.0.1:0", "-envoy-resources", "/orders/{id}=order")
	address, _ := p.find("deciding")["envoy"].(string)
	ask := func(id string, config *tls.Config) (*auth.CheckResponse, error) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+oldToken)
		return auth.NewAuthorizationClient(conn).Check(ctx, &auth.CheckRequest{Attributes: &auth.AttributeContext{
			Source:  &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: "192.0.2.1"}}}},
			Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{Method: "GET", Path: "/orders/" + id, Host: "a.test"}},
		}})
	}
	own, err := tls.X509KeyPair([]byte(mesh.Cert), []byte(mesh.Key))
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: pki.Roots(ours), Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}
	if res, err := ask("17", client); err != nil || res.GetOkResponse() == nil {
		t.Errorf("answered %v, %v", res, err)
	}
	if res, err := ask("18", client); err != nil || res.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("answered %v, %v", res, err)
	}
	without := client.Clone()
	without.Certificates = nil
	if res, err := ask("17", without); err == nil {
		t.Errorf("without a certificate: %v", res)
	}
	res, err := p.client.Get(p.status + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !strings.Contains(string(text), `gatehouse_pdp_decisions_total{api="envoy",outcome="permit"} 1`) {
		t.Errorf("metrics %v\n%s", err, text)
	}
	p.stop(t)
	records := recordsIn(t, filepath.Join(dir, "log"))
	if len(records) != 2 || at(t, records[0], "gatehouse", "pep") != "mesh" || at(t, records[0], "result", "allow") != true || at(t, records[1], "input", "resource", "id") != "18" ||
		!strings.HasPrefix(at(t, records[1], "requested_by").(string), "127.0.0.1:") {
		t.Errorf("recorded %v", records)
	}
}
