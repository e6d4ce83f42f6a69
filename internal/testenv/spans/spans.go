// Package spans receives OTLP over HTTP as a collector does, for tests of what programs send.
package spans

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is what a test looks at.
type Span struct {
	Service, Name      string
	Trace, ID, Parent  string // hexadecimal; Parent "" for none
	State              string // tracestate
	Server, Failed     bool   // its kind, and its status
	Attributes         map[string]string
	Began, Ended       uint64 // Unix nanoseconds
	resourceAttributes map[string]string
}

// Resource answers what is said of who sent it.
func (s Span) Resource(name string) string { return s.resourceAttributes[name] }

// Receiver keeps what it is sent. It is made by Receive.
type Receiver struct {
	URL string // of the server, without a path

	mu     sync.Mutex
	spans  []Span
	bodies [][]byte
	header []http.Header
	more   chan struct{} // closed at the next spans
}

// Receive serves until the test ends.
func Receive(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{more: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var sent otlp.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &sent)
		}
		if err != nil || req.Method != http.MethodPost || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("no spans by OTLP: %s %s %v", req.Method, req.URL.Path, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		r.keep(body, req.Header, &sent)
	}))
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

func (r *Receiver) keep(body []byte, header http.Header, sent *otlp.TracesData) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies, r.header = append(r.bodies, body), append(r.header, header)
	for _, of := range sent.GetResourceSpans() {
		about := attributes(of.GetResource().GetAttributes())
		for _, in := range of.GetScopeSpans() {
			for _, s := range in.GetSpans() {
				r.spans = append(r.spans, Span{
					Service: about["service.name"], Name: s.GetName(), Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
					Parent: hex.EncodeToString(s.GetParentSpanId()), State: s.GetTraceState(), Server: s.GetKind() == otlp.Span_SPAN_KIND_SERVER,
					Failed: s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR, Attributes: attributes(s.GetAttributes()),
					Began: s.GetStartTimeUnixNano(), Ended: s.GetEndTimeUnixNano(), resourceAttributes: about,
				})
			}
		}
	}
	close(r.more)
	r.more = make(chan struct{})
}

func attributes(all []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range all {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			out[kv.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		default:
			out[kv.GetKey()] = kv.GetValue().String()
		}
	}
	return out
}

// Spans answers what has come so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Sent answers what has come so far, as it came.
func (r *Receiver) Sent() (bodies [][]byte, headers []http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bodies), slices.Clone(r.header)
}

// Until waits until the spans are as wanted, and answers them.
func (r *Receiver) Until(t testing.TB, what string, wanted func([]Span) bool) []Span {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for {
		r.mu.Lock()
		all, more := slices.Clone(r.spans), r.more
		r.mu.Unlock()
		if wanted(all) {
			return all
		}
		select {
		case <-more:
		case <-late.C:
			t.Fatalf("not within 30 s: %s; there are %d spans: %+v", what, len(all), all)
		}
	}
}

// Named answers the one span of that service and name.
func Named(t testing.TB, all []Span, service, name string) Span {
	t.Helper()
	var found []Span
	for _, s := range all {
		if s.Service == service && s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans are %s of %s: %+v", len(found), name, service, all)
	}
	return found[0]
}
