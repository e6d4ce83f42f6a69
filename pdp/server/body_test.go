package server

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

const canary = "canary-value"

// whole is a request that is taken.
const whole = `{"subject":{"type":"user","id":"ann","properties":{"roles":["customer"]}},"action":{"name":"GET"},` +
	`"resource":{"type":"order","id":"17"},"context":{"ip":"10.0.0.1"}}`

// badBodies are refused, each for one reason; the second text is the path of the field, or "" for a body that is no request at all.
func badBodies() map[string][2]string {
	with := func(old, now string) string { return strings.Replace(whole, old, now, 1) }
	deep := strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth)
	return map[string][2]string{
		"empty":               {"", ""},
		"blank":               {" \n", ""},
		"cut short":           {whole[:len(whole)-1], ""},
		"cut in a string":     {whole[:20], ""},
		"not JSON":            {canary, ""},
		"null":                {"null", ""},
		"array":               {"[" + whole + "]", ""},
		"string":              {`"` + canary + `"`, ""},
		"second value":        {whole + whole, ""},
		"something after":     {whole + canary, ""},
		"not UTF-8":           {with("ann", "\xff"+canary), ""},
		"half of a pair":      {with(`"10.0.0.1"`, `"`+canary+`\ud800"`), ""},
		"its other half":      {with(`"10.0.0.1"`, `"\udc00"`), ""},
		"halves in disorder":  {with(`"10.0.0.1"`, `"\udc00\ud800"`), ""},
		"half and a letter":   {with(`"10.0.0.1"`, `"\ud800\u0041"`), ""},
		"half in a name":      {with(`"ip"`, `"\uD83D"`), ""},
		"comma at the end":    {with(`"name":"GET"`, `"name":"GET",`), ""},
		"name not quoted":     {with(`"name"`, `name`), ""},
		"no number":           {with(`"10.0.0.1"`, "01"), ""},
		"too deep":            {with(`{"ip":"10.0.0.1"}`, deep), ""},
		"too deep by arrays":  {with(`"10.0.0.1"`, strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth)), ""},
		"member twice":        {with(`"id":"17"`, `"id":"17","id":"`+canary+`"`), ""},
		"object twice":        {with(`"context"`, `"subject":{"type":"user","id":"`+canary+`"},"context"`), ""},
		"twice, escaped":      {with(`"id":"17"`, `"id":"17","\u0069d":"`+canary+`"`), ""},
		"twice in properties": {with(`"roles":["customer"]`, `"roles":["customer"],"roles":["`+canary+`"]`), ""},
		"twice in an array":   {with(`["customer"]`, `[{"a":1,"a":2}]`), ""},
		"another case":        {with(`"subject"`, `"Subject"`), "subject"},
		"both cases":          {with(`"context"`, `"SUBJECT":{"id":"`+canary+`"},"context"`), "subject"},
		"case in subject":     {with(`"type":"user"`, `"type":"user","ID":"`+canary+`"`), "subject.id"},
		"case in action":      {with(`"name":"GET"`, `"name":"GET","Name":"`+canary+`"`), "action.name"},
		"case in resource":    {with(`"id":"17"`, `"id":"17","Properties":{"owner":"`+canary+`"}`), "resource.properties"},
		"case by folding":     {with(`"context"`, `"\u017fubject"`), "subject"},
		"no subject":          {with(`"subject":{"type":"user","id":"ann","properties":{"roles":["customer"]}},`, ""), "subject"},
		"no action":           {with(`"action":{"name":"GET"},`, ""), "action"},
		"subject is a string": {with(`{"type":"user","id":"ann","properties":{"roles":["customer"]}}`, `"`+canary+`"`), "subject"},
		"subject is null":     {with(`{"type":"user","id":"ann","properties":{"roles":["customer"]}}`, "null"), "subject"},
		"context is an array": {with(`{"ip":"10.0.0.1"}`, `["`+canary+`"]`), "context"},
		"context is null":     {with(`{"ip":"10.0.0.1"}`, "null"), "context"},
		"properties a string": {with(`{"roles":["customer"]}`, `"`+canary+`"`), "subject.properties"},
		"id a number":         {with(`"id":"17"`, `"id":17`), "resource.id"},
		"id empty":            {with(`"id":"17"`, `"id":""`), "resource.id"},
		"no id":               {with(`,"id":"17"`, ``), "resource.id"},
		"id too long":         {with(`"id":"17"`, `"id":"`+strings.Repeat("a", 1025)+`"`), "resource.id"},
		"name a boolean":      {with(`"GET"`, `true`), "action.name"},
	}
}

// S56: a request has one reading or none.
func TestABodyHasOneReadingOrNone(t *testing.T) {
	t.Parallel()
	for name, c := range badBodies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, fields, err := parse([]byte(c[0]))
			if c[1] == "" {
				if f, ok := fault.As(err); !ok || f.Reason != "bad_request" || strings.Contains(f.Detail, canary) {
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

func TestAWholeBodyIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	body := strings.Replace(whole, `"ip":"10.0.0.1"`, `"ip":"10.0.0.1","n":12345678901234567890,"f":1e2,"u":"\u00e9\n","p":"\ud83d\ude00\\ud800","a":[[],{}],"z":null`, 1)
	r, fields, err := parse([]byte(body))
	if err != nil || len(fields) > 0 {
		t.Fatalf("fields %v, error %v", fields, err)
	}
	if r.Subject.ID != "ann" || r.Subject.Type != "user" || r.Action.Name != "GET" || r.Resource.Type != "order" || r.Resource.ID != "17" {
		t.Errorf("read %+v", r)
	}
	// Numbers keep their digits: a float would decide on another number than the caller meant.
	if n := r.Context["n"]; n != json.Number("12345678901234567890") {
		t.Errorf("n is %v", n)
	}
	if !reflect.DeepEqual(r.Context["a"], []any{[]any{}, map[string]any{}}) || r.Context["u"] != "é\n" || r.Context["p"] != "😀\\ud800" {
		t.Errorf("context %v", r.Context)
	}
	if _, ok := r.Context["z"]; !ok {
		t.Error("a null is lost")
	}
}

// AuthZEN demands it, and its interoperability tests do it: an unknown member changes nothing.
func TestUnknownMembersAreIgnored(t *testing.T) {
	t.Parallel()
	plain, _, err := parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{`"context":`, `"type":"user"`, `"name":"GET"`, `"type":"order"`} {
		r, fields, err := parse([]byte(strings.Replace(whole, name, `"future":{"a":[1]},`+name, 1)))
		if err != nil || len(fields) > 0 || !reflect.DeepEqual(r, plain) {
			t.Errorf("before %s: %+v, fields %v, error %v", name, r, fields, err)
		}
	}
}

// FuzzParse holds what is taken against encoding/json: whoever reads the same bytes by the standard library gets the same request.
func FuzzUsual(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"context":{"a":[{}]},"resource":{"id":"\u0031","type":"order","properties":{}},"action":{"name":"GET"},"subject":{"type":"user","id":"a"}} `))
	for _, c := range badBodies() {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := usual(body)
		if !ok {
			return
		}
		want, fields, err := parseAny(body)
		if err != nil || len(fields) > 0 || !reflect.DeepEqual(got, want) {
			t.Fatalf("%#v, want %#v, %v, %v", got, want, fields, err)
		}
	})
}

func TestWhatEnforcementPointsSendIsReadWithoutMapsBetween(t *testing.T) {
	t.Parallel()
	if _, ok := usual([]byte(whole)); !ok {
		t.Error("a whole request takes the long way")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	for _, c := range badBodies() {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, fields, err := parse(body)
		if err != nil {
			if f, ok := fault.As(err); !ok || f.Reason != "bad_request" {
				t.Fatalf("error %v", err)
			}
			return
		}
		if len(fields) > 0 {
			return
		}
		// Read into a struct, encoding/json ignores what it does not know, and takes names in another case.
		var other struct {
			Subject, Resource struct {
				Type, ID   string
				Properties map[string]any
			}
			Action struct {
				Name       string
				Properties map[string]any
			}
			Context map[string]any
		}
		dec := json.NewDecoder(strings.NewReader(string(body)))
		dec.UseNumber()
		if err := dec.Decode(&other); err != nil {
			t.Fatalf("encoding/json refuses what was taken: %v", err)
		}
		theirs := authzen.Request{
			Subject:  authzen.Subject{Type: other.Subject.Type, ID: other.Subject.ID, Properties: other.Subject.Properties},
			Action:   authzen.Action{Name: other.Action.Name, Properties: other.Action.Properties},
			Resource: authzen.Resource{Type: other.Resource.Type, ID: other.Resource.ID, Properties: other.Resource.Properties},
			Context:  other.Context,
		}
		if !reflect.DeepEqual(r, theirs) {
			t.Fatalf("read %v, encoding/json reads %v", r, theirs)
		}
		if r.Subject.ID == "" || r.Resource.ID == "" || r.Action.Name == "" {
			t.Fatalf("taken without its names: %+v", r)
		}
	})
}
