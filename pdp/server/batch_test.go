package server

import (
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// boxcar is a batch that is taken; its second evaluation overrides what it can.
const boxcar = `{"subject":{"type":"user","id":"ann","properties":{"roles":["customer"],"tenant":"t1"}},"action":{"name":"read"},` +
	`"resource":{"type":"order","id":"1"},"context":{"ip":"10.0.0.1","n":1},"options":{"evaluations_semantic":"deny_on_first_deny"},` +
	`"evaluations":[{"resource":{"type":"order","id":"17"}},` +
	`{"subject":{"type":"user","id":"bob"},"action":{"name":"write"},"resource":{"type":"order","id":"18"},"context":{}}]}`

// AuthZEN, section "Default values": an evaluation's member takes the place of the default as a whole.
func TestDefaultsHoldWhereAnEvaluationSaysNothing(t *testing.T) {
	t.Parallel()
	b, fields, err := parseBatch([]byte(boxcar), 2)
	if err != nil || len(fields) > 0 || b.single || b.semantic != authzen.DenyOnFirstDeny || len(b.requests) != 2 {
		t.Fatalf("%+v, fields %v, error %v", b, fields, err)
	}
	first, second := b.requests[0], b.requests[1]
	if first.Subject.ID != "ann" || first.Subject.Properties["tenant"] != "t1" || first.Action.Name != "read" || first.Resource.ID != "17" || first.Context["ip"] != "10.0.0.1" {
		t.Errorf("first %+v", first)
	}
	// Nothing of a default shines through what replaces it: bob has not ann's roles.
	want := authzen.Request{Subject: authzen.Subject{Type: "user", ID: "bob"}, Action: authzen.Action{Name: "write"},
		Resource: authzen.Resource{Type: "order", ID: "18"}, Context: map[string]any{}}
	if !reflect.DeepEqual(second, want) {
		t.Errorf("second %+v", second)
	}
}

func TestWithoutEvaluationsABatchIsASingleRequest(t *testing.T) {
	t.Parallel()
	plain, _, err := parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	for _, rest := range []string{``, `,"evaluations":[]`, `,"options":{}`, `,"evaluations":[],"options":{"evaluations_semantic":"execute_all","another_option":"value"}`} {
		b, fields, err := parseBatch([]byte(strings.TrimSuffix(whole, "}")+rest+"}"), 2)
		if err != nil || len(fields) > 0 || !b.single || !reflect.DeepEqual(b.requests, []authzen.Request{plain}) {
			t.Errorf("%s: %+v, fields %v, error %v", rest, b, fields, err)
		}
	}
}

// badBatches are refused as a whole, each for a field of this path, or for its code where it has none.
func badBatches() map[string][2]string {
	with := func(old, now string) string { return strings.Replace(boxcar, old, now, 1) }
	return map[string][2]string{
		"cut short":                  {boxcar[:len(boxcar)-1], "bad_request"},
		"array":                      {"[" + boxcar + "]", "bad_request"},
		"one too many":               {with(`"evaluations":[`, `"evaluations":[{"resource":{"type":"order","id":"16"}},`), "batch_too_large"},
		"evaluations are an object":  {`{"evaluations":{"a":1}}`, "evaluations"},
		"evaluations are null":       {`{"evaluations":null}`, "evaluations"},
		"evaluations in capitals":    {with(`"evaluations"`, `"Evaluations"`), "evaluations"},
		"an evaluation is a string":  {with(`{"resource":{"type":"order","id":"17"}}`, `"`+canary+`"`), "evaluations.0"},
		"an evaluation is null":      {with(`{"resource":{"type":"order","id":"17"}}`, `null`), "evaluations.0"},
		"no subject anywhere":        {`{"evaluations":[{"action":{"name":"a"},"resource":{"type":"t","id":"1"}}]}`, "evaluations.0.subject"},
		"no action in one of two":    {`{"subject":{"type":"t","id":"1"},"resource":{"type":"t","id":"1"},"evaluations":[{"action":{"name":"a"}},{}]}`, "evaluations.1.action"},
		"null does not mean default": {with(`"resource":{"type":"order","id":"17"}`, `"action":null,"resource":{"type":"order","id":"17"}`), "evaluations.0.action"},
		"default is a string":        {with(`"action":{"name":"read"}`, `"action":"`+canary+`"`), "action"},
		"default without id":         {with(`"type":"user","id":"ann"`, `"type":"user"`), "subject.id"},
		"id a number":                {with(`"id":"18"`, `"id":18`), "evaluations.1.resource.id"},
		"context is an array":        {with(`"context":{}`, `"context":[]`), "evaluations.1.context"},
		"case in an evaluation":      {with(`"evaluations":[{`, `"evaluations":[{"Subject":{"id":"`+canary+`"},`), "evaluations.0.subject"},
		"options are a string":       {with(`{"evaluations_semantic":"deny_on_first_deny"}`, `"execute_all"`), "options"},
		"unknown semantic":           {with(`deny_on_first_deny`, canary), "options.evaluations_semantic"},
		"semantic in capitals":       {with(`"deny_on_first_deny"`, `"EXECUTE_ALL"`), "options.evaluations_semantic"},
		"semantic is null":           {with(`"deny_on_first_deny"`, `null`), "options.evaluations_semantic"},
		"option in another case":     {with(`"evaluations_semantic"`, `"Evaluations_Semantic"`), "options.evaluations_semantic"},
		"member twice":               {with(`"options"`, `"context":{},"options"`), "bad_request"},
	}
}

// S56: a batch has one reading or none.
func TestABatchHasOneReadingOrNone(t *testing.T) {
	t.Parallel()
	for name, c := range badBatches() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, fields, err := parseBatch([]byte(c[0]), 2)
			if f, ok := fault.As(err); ok {
				if f.Reason != c[1] || strings.Contains(f.Detail, canary) {
					t.Errorf("error %v", err)
				}
				return
			}
			found := false
			for _, f := range fields {
				found = found || f.Path == c[1]
				if strings.Contains(f.Path+f.Message, canary) {
					t.Errorf("%s: %s repeats the value", f.Path, f.Message)
				}
			}
			if err != nil || !found {
				t.Errorf("fields %v, error %v, want %s", fields, err, c[1])
			}
		})
	}
}

func TestNotEveryMistakeOfALargeBatchIsTold(t *testing.T) {
	t.Parallel()
	_, fields, err := parseBatch([]byte(`{"evaluations":[`+strings.TrimSuffix(strings.Repeat("{},", 1000), ",")+`]}`), 1000)
	if err != nil || len(fields) == 0 || len(fields) > maxFieldErrors+3 {
		t.Errorf("%d fields, error %v", len(fields), err)
	}
}

// FuzzParseBatch holds each evaluation of a batch against the same one alone, its defaults written into it.
func FuzzParseBatch(f *testing.F) {
	f.Add([]byte(boxcar))
	f.Add([]byte(whole))
	for _, c := range badBatches() {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b, fields, err := parseBatch(body, 50)
		if err != nil || len(fields) > 0 {
			return
		}
		if len(b.requests) == 0 || len(b.requests) > 50 || b.single && len(b.requests) != 1 {
			t.Fatalf("%d requests", len(b.requests))
		}
		switch b.semantic {
		case authzen.ExecuteAll, authzen.DenyOnFirstDeny, authzen.PermitOnFirstPermit:
		default:
			t.Fatalf("semantic %q", b.semantic)
		}
		root, err := readObject(body)
		if err != nil {
			t.Fatal(err)
		}
		items, _ := root["evaluations"].([]any)
		for i, r := range b.requests {
			merged := map[string]any{}
			for _, name := range requestMembers {
				if v, ok := root[name]; ok {
					merged[name] = v
				}
				if b.single {
					continue
				}
				if v, ok := items[i].(map[string]any)[name]; ok {
					merged[name] = v
				}
			}
			form := &form{}
			if alone := form.request(merged, nil, ""); len(form.errors) > 0 || !reflect.DeepEqual(r, alone) {
				t.Fatalf("%s is %+v, alone %+v, %v", strconv.Itoa(i), r, alone, form.errors)
			}
		}
	})
}
