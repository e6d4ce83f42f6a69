package extauthz

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// shown is the same of a message by its own descriptors, as plain JSON.
func shown(t testing.TB, m protoreflect.Message) any {
	t.Helper()
	var value func(fd protoreflect.FieldDescriptor, v protoreflect.Value) any
	var object func(m protoreflect.Message) any
	value = func(fd protoreflect.FieldDescriptor, v protoreflect.Value) any {
		switch fd.Kind() { //nolint:exhaustive // the others are numbers, texts and flags
		case protoreflect.MessageKind:
			return object(v.Message())
		case protoreflect.BytesKind:
			return base64.StdEncoding.EncodeToString(v.Bytes())
		case protoreflect.EnumKind:
			return int(v.Enum())
		}
		return v.Interface()
	}
	object = func(m protoreflect.Message) any {
		if s, ok := m.Interface().(*structpb.Struct); ok {
			return s.AsMap()
		}
		all := map[string]any{}
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case fd.IsMap():
				entries := map[string]any{}
				v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
					entries[k.String()] = value(fd.MapValue(), v)
					return true
				})
				all[fd.JSONName()] = entries
			case fd.IsList():
				items := []any{}
				for i := range v.List().Len() {
					items = append(items, value(fd, v.List().Get(i)))
				}
				all[fd.JSONName()] = items
			default:
				all[fd.JSONName()] = value(fd, v)
			}
			return true
		})
		return all
	}
	return plain(t, object(m))
}

// plain is a value as JSON has it, its numbers as numbers.
func plain(t testing.TB, v any) (out any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// whole is a CheckRequest in which all is said that can be.
func whole(t testing.TB) *auth.CheckRequest {
	t.Helper()
	told := &structpb.Struct{}
	if err := told.UnmarshalJSON([]byte(`{"sub":"ada","n":[1,-1.5,1e30,1700000000],"ok":true,"none":null,"deep":{"a":{}}}`)); err != nil {
		t.Fatal(err)
	}
	at := func(a *core.SocketAddress) *core.Address {
		return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: a}}
	}
	context := &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"jwt": told, "empty": {}}, TypedFilterMetadata: map[string]*anypb.Any{"typed": {TypeUrl: "a.test/b", Value: []byte{0, 1, 255}}, "none": {}}}
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{
			Principal: "spiffe://a/b", Service: "x", Labels: map[string]string{"app": "shop", "": ""}, Certificate: "PEM",
			Address: at(&core.SocketAddress{Protocol: core.SocketAddress_UDP, Address: "192.0.2.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: 4711}, ResolverName: "r", Ipv4Compat: true, NetworkNamespaceFilepath: "/n"}),
		},
		Destination: &auth.AttributeContext_Peer{Address: at(&core.SocketAddress{PortSpecifier: &core.SocketAddress_PortValue{}})},
		Request: &auth.AttributeContext_Request{
			Time: &timestamppb.Timestamp{Seconds: 1700000000, Nanos: 5},
			Http: &auth.AttributeContext_HttpRequest{
				Id: "7", Method: "PUT", Path: "/a?b", Host: "a.test", Scheme: "https", Query: "b", Fragment: "f", Protocol: "HTTP/2", Size: -1, Body: "x", RawBody: []byte{0xff},
				Headers:   map[string]string{":path": "/a", "accept": ""},
				HeaderMap: &core.HeaderMap{Headers: []*core.HeaderValue{{Key: "a", Value: "b"}, {Key: "a", RawValue: []byte("\xff")}, {}}},
			},
		},
		ContextExtensions: map[string]string{"route": "orders"}, MetadataContext: context, RouteMetadataContext: &core.Metadata{},
		TlsSession: &auth.AttributeContext_TLSSession{Sni: "a.test"},
	}}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestADocumentIsTheMessageByItsOwnNames(t *testing.T) {
	t.Parallel()
	pipe := whole(t)
	pipe.Attributes.Source.Address = &core.Address{Address: &core.Address_Pipe{Pipe: &core.Pipe{Path: "/s", Mode: 0o600}}}
	pipe.Attributes.Destination.Address = &core.Address{Address: &core.Address_EnvoyInternalAddress{EnvoyInternalAddress: &core.EnvoyInternalAddress{
		AddressNameSpecifier: &core.EnvoyInternalAddress_ServerListenerName{}, EndpointId: "e",
	}}}
	named := whole(t)
	named.Attributes.Source.Address = &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{PortSpecifier: &core.SocketAddress_NamedPort{}}}}
	for name, m := range map[string]*auth.CheckRequest{"whole": whole(t), "pipe": pipe, "named port": named, "empty": {}, "nearly empty": {Attributes: &auth.AttributeContext{TlsSession: &auth.AttributeContext_TLSSession{}}}} {
		got, err := Document(encode(t, m))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(shown(t, m.ProtoReflect()), plain(t, got)); diff != "" {
			t.Errorf("%s (-protobuf +here):\n%s", name, diff)
		}
	}
	for name, bad := range map[string]string{
		"cut": "\x0a\x05", "no tag": "\xff", "twice": "\x0a\x00\x0a\x00", "not UTF-8": "\x0a\x06\x0a\x04\x12\x02\xff\xff",
		"a key twice": "\x0a\x08\x52\x02\x0a\x00\x52\x02\x0a\x00", "two addresses": "\x0a\x08\x0a\x06\x0a\x04\x0a\x00\x12\x00",
	} {
		if got, err := Document([]byte(bad)); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
}

// FuzzDocument: whatever bytes come, nothing panics, and what is read is what protobuf reads.
func FuzzDocument(f *testing.F) {
	f.Add(encode(f, whole(f)))
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, message []byte) {
		got, err := Document(message)
		var m auth.CheckRequest
		if err != nil {
			return
		}
		if err := proto.Unmarshal(message, &m); err != nil {
			t.Fatalf("%x is no message (%v), and was read as %v", message, err, got)
		}
		if want := shown(t, m.ProtoReflect()); !reflect.DeepEqual(want, plain(t, got)) {
			t.Fatalf("%x was read as\n%v\nand not\n%v", message, got, want)
		}
	})
}

func TestAnAnswerSaysWhatItIsMadeOf(t *testing.T) {
	t.Parallel()
	about := map[string]any{"id": "a\"b", "n": json.Number("1.5"), "f": 2.0, "ok": true, "no": false, "none": nil, "list": []any{json.Number("1"), "a", []any{}, map[string]any{}}, "odd": struct{}{}}
	for name, c := range map[string]struct {
		answer Answer
		want   string
	}{
		"allowed": {Answer{Allowed: true}, "0 <nil>"},
		"denied":  {Answer{}, "7 <nil>"},
		"passed": {Answer{Allowed: true, Metadata: about, HTTP: &HTTP{
			Headers: []Header{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2", Overwrite: true}}, Remove: []string{"x-c", "x-d"}, Respond: []Header{{Name: "x-e", Value: ""}},
			SetQuery: []Header{{Name: "q", Value: "1"}}, RemoveQuery: []string{"r"}, Status: 500, Body: "not for it",
		}}, "passed"},
		"refused": {Answer{Metadata: map[string]any{}, HTTP: &HTTP{Status: 429, Headers: []Header{{Name: "x-a", Value: "1"}}, Body: "later"}}, "refused"},
	} {
		var got auth.CheckResponse
		if err := proto.Unmarshal(c.answer.Append(nil), &got); err != nil {
			t.Fatal(err)
		}
		var want proto.Message
		switch c.want {
		case "passed":
			want = &auth.OkHttpResponse{
				Headers:         []*core.HeaderValueOption{{Header: &core.HeaderValue{Key: "x-a", Value: "1"}}, {Header: &core.HeaderValue{Key: "x-b", Value: "2"}, AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}},
				HeadersToRemove: []string{"x-c", "x-d"}, ResponseHeadersToAdd: []*core.HeaderValueOption{{Header: &core.HeaderValue{Key: "x-e"}}},
				QueryParametersToSet: []*core.QueryParameter{{Key: "q", Value: "1"}}, QueryParametersToRemove: []string{"r"},
			}
			if diff := cmp.Diff(want, got.GetOkResponse(), protocmp.Transform()); diff != "" || got.GetStatus().GetCode() != 0 {
				t.Errorf("%s:\n%s", name, diff)
			}
			delete(about, "odd")
			if diff := cmp.Diff(plain(t, about), plain(t, without(got.GetDynamicMetadata().AsMap(), "odd"))); diff != "" {
				t.Errorf("%s: metadata\n%s", name, diff)
			}
		case "refused":
			d := got.GetDeniedResponse()
			if got.GetStatus().GetCode() != 7 || d.GetStatus().GetCode() != 429 || d.GetBody() != "later" || len(d.GetHeaders()) != 1 || got.GetDynamicMetadata() == nil {
				t.Errorf("%s: %v", name, &got)
			}
		default:
			if s := fmt.Sprint(got.GetStatus().GetCode(), got.GetHttpResponse()); s != c.want || got.GetStatus() == nil {
				t.Errorf("%s: %s", name, s)
			}
		}
	}
}

func without(m map[string]any, name string) map[string]any { delete(m, name); return m }
