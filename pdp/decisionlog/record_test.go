package decisionlog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

const (
	canary = "canary-3f9a"
	trace  = "4bf92f3577b34da6a3ce929d0e0e4736"
)

func masks(t testing.TB, list ...decisionlog.Mask) *decisionlog.Masks {
	t.Helper()
	m, err := decisionlog.NewMasks(list)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func denial(id string) decisionlog.Event {
	return decisionlog.Event{
		Time: time.Date(2026, 3, 3, 12, 0, 0, 5000, time.FixedZone("", 3600)), Duration: 81 * time.Microsecond, DecisionID: id,
		TraceID: strings.Repeat("0", 32), Route: "orders", Outcome: decisionlog.Deny, Revision: "p-17", Directory: "d-4", RequestedBy: "10.1.2.3:5555",
		PEP: "edge-1", EvaluatedBy: "topdown",
		Input: authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: "ann", Properties: map[string]any{"roles": []string{"customer"}, "claims": map[string]any{"email": "ann@x.test"}}},
			Action:  authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "17", Properties: map[string]any{"route": "orders"}},
			Context: map[string]any{"ip": "192.0.2.1", "request_id": trace, "level": json.Number("2")},
		},
		Result:   authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{"not_owner"}, Need: &authzen.Need{ACR: "aal2", MaxAge: 600}}},
		LookedUp: map[string]any{"owner": "bob"}, Rules: []string{"gatehouse.authz.decision#2", `gatehouse.authz.misses["not_owner"]`},
	}
}

func decode(t testing.TB, record []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(record, &m); err != nil {
		t.Fatalf("%s: %v", record, err)
	}
	return m
}

// S67: a record says who, what, when in UTC, where from and why, in the words of OPA's decision log.
func TestARecordHasTheShapeOfOPAsDecisionLog(t *testing.T) {
	t.Parallel()
	got := decode(t, decisionlog.Encode(denial("d-1"), masks(t), 1))
	want := map[string]any{
		"labels": map[string]any{"app": "gatehouse-pdp"}, "decision_id": "d-1", "trace_id": trace, "timestamp": "2026-03-03T11:00:00.000005Z",
		"bundles": map[string]any{"policies": map[string]any{"revision": "p-17"}, "directory": map[string]any{"revision": "d-4"}},
		"path":    "gatehouse/authz/decision",
		"input": map[string]any{
			"subject": map[string]any{"type": "user", "id": "ann", "properties": map[string]any{"roles": []any{"customer"}, "claims": map[string]any{"email": "ann@x.test"}}},
			"action":  map[string]any{"name": "GET"}, "resource": map[string]any{"type": "order", "id": "17", "properties": map[string]any{"route": "orders"}},
			"context": map[string]any{"ip": "192.0.2.1", "request_id": trace, "level": float64(2)},
		},
		"result":       map[string]any{"allow": false, "reasons": []any{"not_owner"}, "need": map[string]any{"acr": "aal2", "max_age": float64(600)}},
		"requested_by": "10.1.2.3:5555", "metrics": map[string]any{"timer_server_handler_ns": float64(81000)},
		"gatehouse": map[string]any{
			"outcome": "deny", "evaluated_by": "topdown", "pep": "edge-1", "sample_rate": float64(1), "looked_up": map[string]any{"owner": "bob"},
			"rules": []any{"gatehouse.authz.decision#2", `gatehouse.authz.misses["not_owner"]`},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// S67: rules can be masked as reasons can, whole or one of them, and say nothing of reasons that are. They stay bounded where a record is cut.
func TestTheRulesOfARecordCanBeMasked(t *testing.T) {
	t.Parallel()
	for pointer, want := range map[string][]any{"/gatehouse/rules": nil, "/gatehouse/rules/1": {"gatehouse.authz.decision#2", nil}, "/result/need": {"gatehouse.authz.decision#2", `gatehouse.authz.misses["not_owner"]`}, "/result/reasons": nil, "/result/reasons/0": nil, "/result": nil} {
		got := decode(t, decisionlog.Encode(denial("d-1"), masks(t, decisionlog.Mask{Pointer: pointer}), 1))
		about, _ := got["gatehouse"].(map[string]any)
		if all, _ := about["rules"].([]any); !slices.Equal(all, want) || !slices.Contains(got["erased"].([]any), any(pointer)) || want == nil && !slices.Contains(got["erased"].([]any), any("/gatehouse/rules")) { //nolint:forcetypeassert // the test's own
			t.Errorf("%s: %v, erased %v", pointer, about["rules"], got["erased"])
		}
	}
	e := denial("d-1")
	e.Rules[1] = strings.Repeat("x", 100<<10)
	record := decisionlog.Encode(e, masks(t), 1)
	about, _ := decode(t, record)["gatehouse"].(map[string]any)
	if rules, _ := about["rules"].([]any); len(record) > 60<<10 || about["cut"] != true || len(rules) != 2 || rules[0] != "gatehouse.authz.decision#2" {
		t.Errorf("%d bytes, %v", len(record), about)
	}
}

// S67: what caused a failure may hold what the caller sent, so only its reason is written.
func TestAFailureHasAReasonAndNoResult(t *testing.T) {
	t.Parallel()
	e := denial("d-1")
	for _, c := range []struct {
		err  error
		want map[string]any
	}{
		{
			fault.New(fault.Unavailable, "No decision could be made.").Named("policy_failed").Because(errors.New(canary)),
			map[string]any{"code": "policy_failed", "message": "No decision could be made."},
		},
		{errors.New(canary), map[string]any{"code": "internal"}},
	} {
		e.Err = c.err
		record := decisionlog.Encode(e, masks(t), 1)
		got := decode(t, record)
		if diff := cmp.Diff(any(c.want), got["error"]); diff != "" || got["result"] != nil || strings.Contains(string(record), canary) {
			t.Errorf("%s %s", diff, record)
		}
	}
}

// S67: by name and by shape, wherever it is, and without a mask being told.
func TestWhatLooksLikeASecretIsNeverWritten(t *testing.T) {
	t.Parallel()
	jwt := "eyJhbGciOiJSUzI1NiJ9." + canary + ".c2ln"
	e := denial("d-1")
	e.Input = authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: "ann", Properties: map[string]any{
			"claims":     map[string]any{"access_token": canary, "nested": []any{map[string]any{"refreshToken": canary}}, "pin": json.Number("4242424242")},
			"attributes": map[string]any{"note": "Bearer " + canary, "key": "-----BEGIN PRIVATE KEY-----" + canary},
		}},
		Action: authzen.Action{Name: "GET", Properties: map[string]any{"client-secret": []string{canary}}},
		Resource: authzen.Resource{Type: "page", ID: jwt, Properties: map[string]any{
			"path": "/reset/" + jwt + "/now", "segments": []any{"reset", jwt}, "uri": "/x?a=1&access_token=" + canary, "Set-Cookie": map[string]any{"sid": canary},
		}},
		Context: map[string]any{
			"headers": map[string]any{"Authorization": canary, "cookie": "sid=" + canary, "X-API-Key": canary, "Proxy-Authorization": []any{canary}},
			"basic":   "basic " + canary, "password": canary, "body": canary, "rawBody": canary, "headerMap": []any{map[string]any{"key": "a", "rawValue": canary}},
		},
	}
	e.Result = authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{"for " + jwt}, Obligations: map[string]any{"upstream_headers": map[string]any{"Authorization": canary}}}}
	e.LookedUp = map[string]any{"api_key": canary, "owner": "bob"}
	record := string(decisionlog.Encode(e, masks(t), 1))
	if strings.Contains(record, canary) || strings.Contains(record, "4242424242") {
		t.Errorf("a secret is written: %s", record)
	}
	got := decode(t, []byte(record))
	if masked, ok := got["masked"].([]any); !ok || len(masked) != 23 || !slices.Contains(masked, any("/gatehouse/looked_up/api_key")) {
		t.Errorf("masked %v (%d)", got["masked"], len(masked))
	}
}

func TestWhatIsNoSecretIsWritten(t *testing.T) {
	t.Parallel()
	plain := map[string]any{
		"keyboard": "a", "author": "b", "token_type": "Bearer", "tokenizer": "c", "secretary": "ann", "basic": "basic", "eyJ": "eyJ. said Bob", "sum": "a=b",
		"password": nil, "path": "/api/orders/17?page=2", "body": map[string]any{"a": "b", "rawBody": ""}, "bodies": "d",
	}
	e := denial("d-1")
	e.Input = plain
	e.Result = map[string]any{"allowed": false, "body": "what is answered"}
	got := decode(t, decisionlog.Encode(e, masks(t), 1))
	if diff := cmp.Diff(any(plain), got["input"]); diff != "" || got["masked"] != nil || cmp.Diff(e.Result, got["result"]) != "" {
		t.Errorf("%s, masked %v", diff, got["masked"])
	}
}

func TestMasksEraseAndReplace(t *testing.T) {
	t.Parallel()
	e := denial("d-1")
	e.Input = map[string]any{"list": []any{"a", canary, map[string]any{"x": canary}}, "a/b": map[string]any{"~": canary, "": canary}, "whole": map[string]any{"in": canary}, "kept": "k"}
	e.Result = map[string]any{"allow": false, "why": canary}
	e.LookedUp = map[string]any{"owner": canary}
	m := masks(t,
		decisionlog.Mask{Pointer: "/input/list/1"}, decisionlog.Mask{Pointer: "/input/list/2/x", With: "x"}, decisionlog.Mask{Pointer: "/input/a~1b/~0"},
		decisionlog.Mask{Pointer: "/input/a~1b/"}, decisionlog.Mask{Pointer: "/input/whole", With: map[string]any{"was": "here"}},
		decisionlog.Mask{Pointer: "/result/why"}, decisionlog.Mask{Pointer: "/gatehouse/looked_up/owner", With: false}, decisionlog.Mask{Pointer: "/input/absent"})
	record := decisionlog.Encode(e, m, 1)
	got := decode(t, record)
	want := map[string]any{"list": []any{"a", nil, map[string]any{"x": "x"}}, "a/b": map[string]any{}, "whole": map[string]any{"was": "here"}, "kept": "k"}
	if diff := cmp.Diff(any(want), got["input"]); diff != "" || strings.Contains(string(record), canary) {
		t.Errorf("%s %s", diff, record)
	}
	if diff := cmp.Diff([]any{"/input/a~1b/", "/input/a~1b/~0", "/input/list/1", "/result/why"}, got["erased"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]any{"/input/list/2/x", "/input/whole", "/gatehouse/looked_up/owner"}, got["masked"]); diff != "" {
		t.Error(diff)
	}
	whole := string(decisionlog.Encode(e, masks(t, decisionlog.Mask{Pointer: "/input"}, decisionlog.Mask{Pointer: "/result", With: nil}, decisionlog.Mask{Pointer: "/gatehouse/looked_up"}), 1))
	if strings.Contains(whole, canary) || decode(t, []byte(whole))["input"] != nil {
		t.Errorf("written %s", whole)
	}
}

func TestAMaskedRequestIDNamesNoTrace(t *testing.T) {
	t.Parallel()
	for _, pointer := range []string{"/input", "/input/context", "/input/context/request_id"} {
		if record := string(decisionlog.Encode(denial("d-1"), masks(t, decisionlog.Mask{Pointer: pointer}), 1)); strings.Contains(record, trace) {
			t.Errorf("%s: %s", pointer, record)
		}
	}
}

func TestAMaskThatMeansNothingIsRefused(t *testing.T) {
	t.Parallel()
	_, err := decisionlog.NewMasks([]decisionlog.Mask{
		{Pointer: "input/x"}, {Pointer: "/labels"}, {Pointer: ""}, {Pointer: "/gatehouse"}, {Pointer: "/input/~2"}, {Pointer: "/input/f", With: func() {}},
		{Pointer: "/input/twice"}, {Pointer: "/input/twice"}, {Pointer: "/inputs"},
	})
	if err == nil || len(strings.Split(err.Error(), "\n")) != 8 {
		t.Errorf("%v", err)
	}
}

// For any JSON and any pointers into it: what is hidden is gone, and all else is as it was.
func TestMasksHideExactlyWhatTheyName(t *testing.T) {
	t.Parallel()
	leaf := rapid.OneOf(rapid.Map(rapid.StringMatching(`[a-zA-Z0-9 /~"\\\n\x00é\x{2028}]{0,6}`), func(s string) any { return s }),
		rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) any { return f }), rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Just[any](nil))
	key := rapid.StringMatching(`[a-c/~é]{0,2}`)
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return leaf
		}
		return rapid.OneOf(leaf,
			rapid.Map(rapid.MapOfN(key, value(depth-1), 0, 4), func(m map[string]any) any { return m }),
			rapid.Map(rapid.SliceOfN(value(depth-1), 0, 4), func(l []any) any { return l }))
	}
	rapid.Check(t, func(t *rapid.T) {
		input := value(3).Draw(t, "input")
		pointers := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) string { return draw(t, input, "/input") }), 0, 3, rapid.ID[string]).Draw(t, "pointers")
		var list []decisionlog.Mask
		for i, p := range pointers {
			m := decisionlog.Mask{Pointer: p}
			if i%2 == 1 {
				m.With = "replaced"
			}
			list = append(list, m)
		}
		m, err := decisionlog.NewMasks(list)
		if err != nil {
			t.Fatal(err)
		}
		record := decisionlog.Encode(decisionlog.Event{Input: map[string]any{"in": input}, DecisionID: "d"}, m, 1)
		var got map[string]any
		if err := json.Unmarshal(record, &got); err != nil {
			t.Fatalf("%s: %v", record, err)
		}
		want := masked(map[string]any{"in": input}, "/input", list)
		if diff := cmp.Diff(want, got["input"]); diff != "" {
			t.Fatalf("%v: %s\n%s", pointers, diff, record)
		}
	})
}

// draw chooses a pointer to something within v, at or below where, in the record.
func draw(t *rapid.T, v any, where string) string {
	where += "/in"
	for rapid.Bool().Draw(t, "deeper") {
		switch in := v.(type) {
		case map[string]any:
			if len(in) == 0 {
				return where
			}
			var names []string
			for n := range in {
				names = append(names, n)
			}
			slices.Sort(names)
			n := rapid.SampledFrom(names).Draw(t, "name")
			where, v = where+"/"+strings.ReplaceAll(strings.ReplaceAll(n, "~", "~0"), "/", "~1"), in[n]
		case []any:
			if len(in) == 0 {
				return where
			}
			i := rapid.IntRange(0, len(in)-1).Draw(t, "index")
			where, v = where+"/"+strconv.Itoa(i), in[i]
		default:
			return where
		}
	}
	return where
}

// masked is what the masks are to do, said plainly.
func masked(v any, at string, list []decisionlog.Mask) any {
	find := func(p string) *decisionlog.Mask {
		for i := range list {
			if list[i].Pointer == p {
				return &list[i]
			}
		}
		return nil
	}
	switch in := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for n, item := range in {
			p := at + "/" + strings.ReplaceAll(strings.ReplaceAll(n, "~", "~0"), "/", "~1")
			if m := find(p); m == nil {
				out[n] = masked(item, p, list)
			} else if m.With != nil {
				out[n] = m.With
			}
		}
		return out
	case []any:
		out := []any{}
		for i, item := range in {
			p := at + "/" + strconv.Itoa(i)
			if m := find(p); m == nil {
				out = append(out, masked(item, p, list))
			} else {
				out = append(out, m.With)
			}
		}
		return out
	}
	return v
}

// S68: a value makes neither a second line nor a second member.
func TestNoValueForgesARecord(t *testing.T) {
	t.Parallel()
	forged := "x\r\n\",\"decision_id\":\"forged\"}\n\u2028\u2029\x00\x7f\xff\\"
	e := denial("d-1")
	e.TraceID, e.RequestedBy, e.PEP, e.Route, e.Path, e.Revision, e.Outcome, e.EvaluatedBy = forged, forged, forged, forged, forged, forged, forged, forged
	e.Input = map[string]any{forged: forged, "number": json.Number("1,\"decision_id\":2"), "list": []any{forged}, "many": struct{ A string }{forged}}
	e.Result = authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{forged}}}
	record := decisionlog.Encode(e, masks(t), 1)
	if got := decode(t, record); got["decision_id"] != "d-1" || strings.Count(string(record), `"decision_id":`) != 1 {
		t.Errorf("forged: %s", record)
	}
	for _, r := range string(record) {
		if r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 {
			t.Errorf("%q in %s", r, record)
		}
	}
}

// S68: nor does one make a record endless; the masks hold for what is left of it.
func TestALargeRecordIsCutAndSaysSo(t *testing.T) {
	t.Parallel()
	large := strings.Repeat(canary+"é", 100_000)
	e := denial(strings.Repeat("d", 100))
	e.Input = authzen.Request{
		Subject:  authzen.Subject{Type: "user", ID: large, Properties: map[string]any{"x": large}},
		Resource: authzen.Resource{Type: large, ID: "17"}, Action: authzen.Action{Name: "GET"}, Context: map[string]any{"x": large},
	}
	e.Result = authzen.Response{Context: &authzen.ResponseContext{Reasons: slices.Repeat([]string{large}, 100), Obligations: map[string]any{"x": large}}}
	e.LookedUp = map[string]any{"x": large}
	record := decisionlog.Encode(e, masks(t, decisionlog.Mask{Pointer: "/input/subject/id"}, decisionlog.Mask{Pointer: "/input/resource/type", With: "r"}, decisionlog.Mask{Pointer: "/result/reasons"}), 1)
	got := decode(t, record)
	if len(record) > decisionlog.MaxRecord || strings.Contains(string(record), canary) {
		t.Fatalf("%d bytes: %.500s", len(record), record)
	}
	ours, _ := got["gatehouse"].(map[string]any)
	in, _ := got["input"].(map[string]any)
	if ours["cut"] != true || in["resource"].(map[string]any)["id"] != "17" || !slices.Equal(got["erased"].([]any), []any{"/input/subject/id", "/result/reasons", "/gatehouse/rules"}) {
		t.Errorf("%s", record)
	}
	for name, input := range map[string]any{"of the data API": map[string]any{"x": large}, "deep": deep(10_000)} {
		e := denial("d")
		e.Input, e.Result = input, nil
		if got := decode(t, decisionlog.Encode(e, masks(t), 1)); got["decision_id"] != "d" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func deep(n int) any {
	var v any = "x"
	for range n {
		v = []any{v}
	}
	return v
}

func TestTheRateOfSamplesIsThatOfTheRouteAndOfOneIDAlwaysTheSame(t *testing.T) {
	t.Parallel()
	r := decisionlog.Rates{Default: 0.01, Routes: map[string]float64{"all": 1, "none": 0, "third": 0.3}}
	const n = 20_000
	for route, want := range map[string]float64{"all": 1, "none": 0, "third": 0.3, "another": 0.01} {
		taken := 0
		for i := range n {
			id := fmt.Sprintf("019a0f3e-0000-7000-8000-%012x", i)
			_, yes := r.Sampled(route, id)
			if _, again := r.Sampled(route, id); again != yes {
				t.Fatalf("%s: two answers", id)
			}
			if yes {
				taken++
			}
		}
		if got := float64(taken) / n; got < want*0.85 || got > want*1.15 {
			t.Errorf("%s: %v of them, want %v", route, got, want)
		}
	}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	if err := (decisionlog.Rates{Default: 2, Routes: map[string]float64{"a": -1}}).Validate(); err == nil || len(strings.Split(err.Error(), "\n")) != 2 {
		t.Errorf("%v", err)
	}
}
