package kong

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// throughMessages reads the same by the generated code, strictly: no name twice in any case, nothing unknown.
func throughMessages(answer []byte) (map[string][]string, bool) {
	var s structpb.Struct
	if proto.Unmarshal(answer, &s) != nil || len(s.ProtoReflect().GetUnknown()) > 0 {
		return nil, false
	}
	out := map[string][]string{}
	for name, v := range s.GetFields() {
		values := []*structpb.Value{v}
		if list := v.GetListValue(); list != nil {
			values = list.GetValues()
		}
		lower := strings.ToLower(name)
		for _, v := range values {
			switch v.GetKind().(type) {
			case *structpb.Value_StringValue, *structpb.Value_BoolValue, nil:
				out[lower] = append(out[lower], v.GetStringValue())
			default:
				return nil, false
			}
		}
	}
	return out, true
}

// Whatever is read as headers is what the generated code reads; whatever it could not read is refused.
func FuzzHeaders(f *testing.F) {
	for _, m := range []map[string]any{
		nil, {"host": "h"}, {"accept": []any{"a", "b"}, "x": true, "y": ""}, {"long": strings.Repeat("v", 300)}, {"ünïcode": "ä"}, {"n": 1}, {"o": map[string]any{"a": "b"}}, {"z": nil}, {"e": []any{}},
	} {
		s, err := structpb.NewStruct(m)
		if err != nil {
			f.Fatal(err)
		}
		answer, err := proto.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(answer)
	}
	f.Add([]byte("\x0a\x07\x0a\x01a\x12\x02\x1a\x00"))     // an empty text
	f.Add([]byte("\x0a\x05\x0a\x01a\x12\x00"))             // no value at all
	f.Add([]byte("\x0a\x08\x0a\x01a\x12\x03\x1a\x01\xff")) // not UTF-8
	f.Add([]byte("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var r guard.Request
		err := headers(&r, answer)
		want, readable := throughMessages(answer)
		switch {
		case err != nil:
		case !readable:
			t.Errorf("%q is read as %q", answer, r.Header)
		default:
			for name, values := range r.Header { // of a name that comes twice, the generated code keeps one
				if got := want[name]; len(got) > len(values) || len(got) == len(values) && len(r.Header) == len(want) && !sameTexts(got, values) {
					t.Errorf("%s: %q, the generated code has %q", name, values, got)
				}
			}
		}
	})
}

func sameTexts(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func TestHeadersAreWhatTheGeneratedCodeReadsAndWrites(t *testing.T) {
	t.Parallel()
	s, err := structpb.NewStruct(map[string]any{"Host": "h", "accept": []any{"a", "b"}, "x": true, "y": "", "long": strings.Repeat("v", 20000), "e": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var r guard.Request
	if err := headers(&r, answer); err != nil {
		t.Fatal(err)
	}
	want, _ := throughMessages(answer)
	if !maps.EqualFunc(r.Header, want, slices.Equal) || r.Host != "h" {
		t.Errorf("%q, want %q", r.Header, want)
	}
	header := map[string]string{"X-A": "1", "": "", "X-Long": strings.Repeat("v", 20000)}
	out, err := appendHeaders(nil, "m", header)
	if err != nil {
		t.Fatal(err)
	}
	var back structpb.Struct
	if err := proto.Unmarshal(out[4+1+4:], &back); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, v := range back.GetFields() {
		got[name] = v.GetStringValue()
	}
	if !maps.Equal(got, header) || string(out[:5]) != "\x01\x00\x00\x00m" {
		t.Errorf("%q", got)
	}
	if _, err := appendHeaders(nil, "m", map[string]string{"X-A": "\xff"}); err == nil {
		t.Error("bytes that are not UTF-8 are written")
	}
}
