package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// outcomeDocument is what the Data API tells that is neither true nor false.
const outcomeDocument = "document"

// Bounds of a document's path.
const (
	maxSegments = 64
	maxPath     = 2048 // bytes
)

// serveData adds OPA's Data API. Whatever changes policies or data, or evaluates text of the caller's, is refused whoever asks.
func (s *server) serveData(mux *http.ServeMux) {
	for _, p := range s.DataPaths {
		s.data = append(s.data, segmentsOf(p))
	}
	document := s.known(dataRefusal, s.document)
	mux.Handle(dataapi.Prefix, document)
	mux.Handle(dataapi.Prefix+"/", document)
	plain := s.known(dataRefusal, s.plainDocument)
	mux.Handle(dataapi.PlainPrefix, plain)
	mux.Handle(dataapi.PlainPrefix+"/", plain)
	if s.told(defaultDocument()) {
		mux.Handle("POST /{$}", plain)
	}
	mux.Handle("GET /health", http.HandlerFunc(s.health))
	mux.Handle("/v1/", s.known(dataRefusal, func(w http.ResponseWriter, r *http.Request) {
		for _, off := range []string{"query", "policies", "compile", "config", "status"} {
			if rest, ok := strings.CutPrefix(r.URL.Path, "/v1/"+off); ok && (rest == "" || rest[0] == '/') {
				dataError(w, http.StatusForbidden, dataapi.Error{Code: dataapi.CodeInvalidOperation, Message: "policies are neither told nor changed here, and no queries are answered"})
				return
			}
		}
		dataError(w, http.StatusNotFound, dataapi.Error{Code: dataapi.CodeNotFound, Message: "there is nothing at this path"})
	}))
}

func segmentsOf(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}

// document answers GET and POST of /v1/data/{path}.
func (s *server) document(w http.ResponseWriter, r *http.Request) {
	start := s.Now()
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		dataError(w, http.StatusMethodNotAllowed, dataapi.Error{Code: dataapi.CodeInvalidOperation, Message: "data is read-only here"})
		return
	}
	q, err := s.question(w, r)
	if err != nil {
		dataRefusal(w, r, err)
		return
	}
	s.tell(w, r, q, func(doc dataapi.Document, parsed time.Time) {
		evaluated := s.Now()
		res := dataapi.Response{DecisionID: doc.DecisionID}
		if doc.Defined {
			res.Result = &doc.Value
		}
		if r.Method == http.MethodPost && !q.HasInput {
			res.Warning = &dataapi.Warning{Code: dataapi.CodeUsage, Message: "'input' key missing from the request"}
		}
		params := queryOf(r)
		if flagged(params, "provenance") {
			res.Provenance = s.provenance(doc.Revision)
		}
		if flagged(params, "metrics") {
			res.Metrics = map[string]int64{
				"timer_rego_input_parse_ns": parsed.Sub(start).Nanoseconds(),
				"timer_rego_query_eval_ns":  evaluated.Sub(parsed).Nanoseconds(),
				"timer_server_handler_ns":   evaluated.Sub(start).Nanoseconds(),
			}
		}
		if yes, plain := doc.Value.(bool); plain && len(params) == 0 && res.Warning == nil {
			write(w, http.StatusOK, plainAnswer(res.DecisionID, yes))
			return
		}
		answerData(w, res, flagged(params, "pretty"), doc)
	})
}

// tell asks for a document that is told, where there is room, and has it answered; or answers why not.
func (s *server) tell(w http.ResponseWriter, r *http.Request, q dataapi.Question, answer func(doc dataapi.Document, parsed time.Time)) {
	if !s.told(q.Path) {
		dataError(w, http.StatusForbidden, notTold())
		return
	}
	parsed := s.Now()
	if !s.admit(w, r, apiData, dataRefusal) {
		return
	}
	defer s.gate.leave()
	doc, err := s.askDocument(r.Context(), apiData, q, parsed)
	if err != nil {
		dataFailure(w, err, doc)
		return
	}
	answer(doc, parsed)
}

// plainAnswer is what answerData writes of a document that is true or false, which most are.
func plainAnswer(id string, result bool) []byte {
	body := make([]byte, 0, 80)
	body = append(append(append(body, `{"decision_id":"`...), id...), `","result":`...)
	return append(strconv.AppendBool(body, result), '}', '\n')
}

func notTold() dataapi.Error {
	return dataapi.Error{Code: dataapi.CodeUnauthorized, Message: "this document is not told here"}
}

// told reports whether a document is one of DataPaths, or below one.
func (s *server) told(path []string) bool {
	return slices.ContainsFunc(s.data, func(root []string) bool {
		return len(path) >= len(root) && slices.Equal(path[:len(root)], root)
	})
}

// askDocument asks the engine, and sees to it that the answer is counted and, unless it is a plain yes, logged.
func (s *server) askDocument(ctx context.Context, api string, q dataapi.Question, start time.Time) (doc dataapi.Document, err error) {
	func() {
		defer func() {
			if p := recover(); p != nil {
				s.Log.ErrorContext(ctx, "engine panicked", "trace_id", web.TraceID(ctx), "stack", string(debug.Stack()))
				err = fmt.Errorf("panic: %T", p)
			}
		}()
		doc, err = s.Engine.Document(ctx, q)
	}()
	took := s.Now().Sub(start)
	outcome := Meaning(doc, err)
	s.Meter.Decided(api, outcome, took)
	if outcome != string(authzen.Permit) {
		s.DecisionLog.Record(decisionlog.Entry{
			Time: start, TraceID: web.TraceID(ctx), Caller: CallerOf(ctx), Outcome: outcome, Path: "/" + strings.Join(q.Path, "/"),
			DecisionID: doc.DecisionID, Revision: doc.Revision, Rules: doc.Rules, Duration: took, Err: err,
		})
	}
	return doc, err
}

// Meaning reads a document as Kong's, APISIX's and Envoy's plugins do: true and false, alone or as the member allow of an
// object, which Envoy's calls allowed. Undefined is no rule's word, and neither is a decision like those of gatehouse.authz whose
// reasons say so.
func Meaning(doc dataapi.Document, err error) string {
	v := doc.Value
	var reasons []string
	if o, ok := v.(map[string]any); ok {
		if v = o["allow"]; v == nil {
			v = o["allowed"]
		} else {
			reasons = textsOf(o["reasons"])
		}
	}
	allow, plain := v.(bool)
	switch {
	case err != nil:
		return string(authzen.Indeterminate)
	case !doc.Defined:
		return string(authzen.NotApplicable)
	case plain:
		return string(authzen.OutcomeOf(allow, reasons))
	default:
		return outcomeDocument
	}
}

// textsOf is a list of texts; nil for anything else.
func textsOf(v any) []string {
	list, _ := v.([]any)
	all := make([]string, 0, len(list))
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil
		}
		all = append(all, text)
	}
	return all
}

// question reads what is asked. What OPA would explain or instrument is refused: it shows the policy.
func (s *server) question(w http.ResponseWriter, r *http.Request) (q dataapi.Question, err error) {
	params := queryOf(r)
	if e := params.Get("explain"); e != "" && e != "off" || flagged(params, "instrument") || flagged(params, "rule_labels") {
		return q, badBody("explain, instrument and rule_labels are not answered here")
	}
	if q.Path, err = dataPath(r.URL.EscapedPath()); err != nil {
		return q, err
	}
	if r.Method == http.MethodGet {
		inputs := params["input"]
		if len(inputs) == 0 {
			return q, nil
		}
		q.HasInput = true
		if q.Input, err = readDocument([]byte(inputs[len(inputs)-1])); err != nil {
			return q, badBody("the parameter input is not one well-formed JSON value")
		}
		return q, nil
	}
	body, err := s.readData(w, r)
	if err != nil || len(body) == 0 {
		return q, err
	}
	root, err := readObject(body)
	if err != nil {
		return q, err
	}
	f := &form{}
	if f.sameCase(root, "", "input"); len(f.errors) > 0 {
		return q, badBody("input is written in another case")
	}
	q.Input, q.HasInput = root["input"]
	if q.Input == nil { // OPA takes null for none
		q.HasInput = false
	}
	return q, nil
}

// readData reads a body that may be empty. Its type is not asked for, as OPA does not.
func (s *server) readData(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if mt, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); strings.Contains(mt, "yaml") || r.Header.Get("Content-Encoding") != "" {
		return nil, fault.New(fault.Invalid, "the body must be JSON, not encoded").Named("unsupported_media_type")
	}
	body, err := s.readAll(w, r)
	return bytes.TrimSpace(body), err
}

// defaultDocument is the one that OPA answers by default (its default_decision).
func defaultDocument() []string { return []string{"system", "main"} }

// plainDocument answers POST / and POST /v0/data/{path} as OPA's webhook API does: the body is the input as a whole, the answer is
// the value as a whole, and one that is undefined is a 404.
func (s *server) plainDocument(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		dataError(w, http.StatusMethodNotAllowed, dataapi.Error{Code: dataapi.CodeInvalidOperation, Message: "only POST is answered here"})
		return
	}
	q := dataapi.Question{Path: defaultDocument(), HasInput: true} // without a body it is null, as with OPA
	var err error
	if r.URL.Path != "/" {
		q.Path, err = dataPath(r.URL.EscapedPath())
	}
	var body []byte
	if err == nil {
		body, err = s.readData(w, r)
	}
	if err == nil && len(body) > 0 {
		q.Input, err = readDocument(body)
	}
	if err != nil {
		dataRefusal(w, r, err)
		return
	}
	s.tell(w, r, q, func(doc dataapi.Document, _ time.Time) {
		if !doc.Defined {
			dataError(w, http.StatusNotFound, dataapi.Error{Code: dataapi.CodeUndefined, Message: "the document is undefined", DecisionID: doc.DecisionID})
			return
		}
		answerData(w, doc.Value, flagged(queryOf(r), "pretty"), doc)
	})
}

// dataPath reads the segments behind /v1/data or /v0/data, each unescaped by itself, so that one may hold a slash.
func dataPath(escaped string) ([]string, error) {
	var path []string
	if len(escaped) > maxPath {
		return nil, badBody("the path is too long")
	}
	escaped, v1 := strings.CutPrefix(escaped, dataapi.Prefix)
	if !v1 {
		escaped = strings.TrimPrefix(escaped, dataapi.PlainPrefix)
	}
	for _, s := range segmentsOf(escaped) {
		s, err := url.PathUnescape(s)
		if err != nil || s == "" || !utf8.ValidString(s) || strings.ContainsRune(s, '"') || strings.ContainsFunc(s, unicode.IsControl) {
			return nil, badBody("the path has a segment that names nothing")
		}
		path = append(path, s)
	}
	if len(path) > maxSegments {
		return nil, badBody("the path has too many segments")
	}
	return path, nil
}

// queryOf spares the map where there is no query, as in most requests.
func queryOf(r *http.Request) url.Values {
	if r.URL.RawQuery == "" {
		return nil
	}
	return r.URL.Query()
}

// flagged reads a parameter as OPA does: present without a value, or true.
func flagged(params url.Values, name string) bool {
	v, ok := params[name]
	return ok && (len(v) == 1 && v[0] == "" || slices.ContainsFunc(v, func(s string) bool { return strings.EqualFold(s, "true") }))
}

// provenance names the policies as one bundle. How this program was built, and where, says nothing of them.
func (s *server) provenance(revision string) *dataapi.Provenance {
	return &dataapi.Provenance{Version: s.OPAVersion, Bundles: map[string]dataapi.Bundle{"policies": {Revision: revision}}}
}

// health answers GET /health as OPA does: {} or 500. With ?bundles it is the policies that must be there, be they the newest or
// those before.
func (s *server) health(w http.ResponseWriter, r *http.Request) {
	params := r.URL.Query()
	if flagged(params, "bundles") || flagged(params, "bundle") || flagged(params, "plugins") {
		if err := s.Engine.Ready(); err != nil && !isDegraded(err) {
			write(w, http.StatusInternalServerError, []byte(`{"error":"one or more bundles are not activated"}`))
			return
		}
	}
	write(w, http.StatusOK, []byte("{}"))
}

func answerData(w http.ResponseWriter, res any, pretty bool, doc dataapi.Document) {
	body, err := json.Marshal(res)
	if pretty && err == nil {
		body, err = json.MarshalIndent(res, "", "  ")
	}
	if err != nil {
		dataFailure(w, err, doc)
		return
	}
	write(w, http.StatusOK, append(body, '\n'))
}

// dataFailure says that there is no document, and nothing of why.
func dataFailure(w http.ResponseWriter, err error, doc dataapi.Document) {
	e := dataapi.Error{Code: dataapi.CodeInternal, Message: "error(s) occurred while evaluating query", DecisionID: doc.DecisionID}
	if f, ok := fault.As(err); ok {
		e.Errors = []dataapi.Detail{{Code: f.Reason, Message: f.Detail}}
	}
	dataError(w, http.StatusInternalServerError, e)
}

// dataRefusal answers a request that asks for no document, in OPA's shape.
func dataRefusal(w http.ResponseWriter, r *http.Request, err error) {
	p := web.Problem(r.Context(), err)
	code := dataapi.CodeInvalidParameter
	switch p.Status {
	case http.StatusUnauthorized:
		code = dataapi.CodeUnauthorized
	case http.StatusServiceUnavailable:
		code = dataapi.CodeOverloaded
	case http.StatusInternalServerError:
		code = dataapi.CodeInternal
	}
	dataError(w, p.Status, dataapi.Error{Code: code, Message: p.Detail})
}

func dataError(w http.ResponseWriter, status int, e dataapi.Error) {
	body, _ := json.MarshalIndent(e, "", "  ") // strings alone; it cannot fail
	write(w, status, append(body, '\n'))
}
