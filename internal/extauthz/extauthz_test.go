package extauthz

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

func TestACheckIsReadAsEnvoyMeansIt(t *testing.T) {
	t.Parallel()
	claims := `{"sub":"ada","roles":["clerk",null],"n":-1.5,"ok":true,"deep":{"a":[{},[]]},"none":null}`
	told := &structpb.Struct{}
	if err := told.UnmarshalJSON([]byte(claims)); err != nil {
		t.Fatal(err)
	}
	m := &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Principal: "spiffe://a/b", Service: "x", Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
			Address: "192.0.2.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: 4711},
		}}}},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Id: "7", Method: "PUT", Path: "/a?b", Host: "a.test", Scheme: "https", Protocol: "HTTP/2", Size: -1, Body: "x",
			Headers: map[string]string{":path": "/other", "Accept": "a"},
		}},
		ContextExtensions: map[string]string{"route": "orders"},
		MetadataContext:   &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"jwt": told, "empty": {}}},
	}}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Read(b)
	if err != nil || r.Address != "192.0.2.1" || r.Principal != "spiffe://a/b" || r.ID != "7" || r.Method != "PUT" || r.Path != "/a?b" || r.Host != "a.test" ||
		r.Scheme != "https" || r.Protocol != "HTTP/2" || len(r.Header) != 1 || r.Header["accept"][0] != "a" || r.Extensions["route"] != "orders" {
		t.Errorf("read %+v, %v", r, err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(claims), &want); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Metadata("jwt"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("metadata %v, %v", got, err)
	}
	if got, err := r.Metadata("empty"); err != nil || got == nil || len(got) != 0 {
		t.Errorf("empty metadata %v, %v", got, err)
	}
	if got, err := r.Metadata("other"); err != nil || got != nil {
		t.Errorf("no metadata %v, %v", got, err)
	}
	deep := structpb.NewBoolValue(true)
	for range 100 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	for name, bad := range map[string]*structpb.Value{"deep": deep, "not a number": structpb.NewNumberValue(math.NaN())} {
		m.Attributes.MetadataContext.FilterMetadata["jwt"] = &structpb.Struct{Fields: map[string]*structpb.Value{"x": bad}}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := Read(b); err != nil {
			t.Errorf("%s: not read, though nobody asked for the metadata: %v", name, err)
		} else if got, err := r.Metadata("jwt"); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
}

func TestOnlyOneWholeMessageIsACall(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "\x00\x00", "\x01\x00\x00\x00\x00", "\x00\x00\x00\x00\x02x", "\x00\x00\x00\x00\x01xy", "\x00\xff\xff\xff\xff"} { // empty, cut, compressed, cut, two, too large
		if m, err := readMessage(strings.NewReader(body), MaxMessage); err == nil {
			t.Errorf("%q was read as %q", body, m)
		}
	}
	for name, change := range map[string]func(*http.Request){
		"GET":          func(r *http.Request) { r.Method = http.MethodGet },
		"HTTP/1":       func(r *http.Request) { r.ProtoMajor = 1 },
		"another type": func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path, strings.NewReader("\x00\x00\x00\x00\x00"))
		r.ProtoMajor = 2
		r.Header.Set("Content-Type", "application/grpc")
		if _, err := Receive(httptest.NewRecorder(), r); err != nil {
			t.Errorf("a call is not received: %v", err)
		}
		change(r)
		r.Body = http.NoBody
		w := httptest.NewRecorder()
		if _, err := Receive(w, r); err == nil || w.Body.Len() > 0 || w.Result().Trailer.Get("Grpc-Status") == "0" {
			t.Errorf("%s: received, %v", name, w)
		}
	}
}

// FuzzRead: whatever bytes come, nothing panics, and what is read agrees with Envoy's own messages.
func FuzzRead(f *testing.F) {
	b, err := proto.Marshal(&auth.CheckRequest{Attributes: &auth.AttributeContext{
		Request:         &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: "a"}},
		MetadataContext: &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"jwt": {Fields: map[string]*structpb.Value{"sub": structpb.NewStringValue("a"), "l": structpb.NewListValue(nil)}}}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := Read(message)
		var m auth.CheckRequest
		if err != nil || proto.Unmarshal(message, &m) != nil {
			return
		}
		h := m.GetAttributes().GetRequest().GetHttp()
		if r.Method != h.GetMethod() || r.Path != h.GetPath() || r.Host != h.GetHost() || r.Principal != m.GetAttributes().GetSource().GetPrincipal() {
			t.Fatalf("%v was read as %+v", &m, r)
		}
		for name, told := range m.GetAttributes().GetMetadataContext().GetFilterMetadata() {
			got, err := r.Metadata(name)
			if want := told.AsMap(); err == nil && told != nil && len(want) != len(got) {
				t.Fatalf("%v was read as %v", want, got)
			}
		}
	})
}
