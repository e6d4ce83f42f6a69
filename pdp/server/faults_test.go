package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// S56: whatever is sent to whichever door, the answer is an error in that door's shape, says nothing of what was sent, and nobody is
// asked; and a question after it is answered.
func TestBadInputIsAnErrorAtEveryDoor(t *testing.T) {
	t.Parallel()
	const subject, action, resource = `"subject":{"type":"user","id":"ann"}`, `"action":{"name":"GET"}`, `"resource":{"type":"order","id":"17"}`
	one := subject + "," + action + "," + resource
	inputs := map[string]struct {
		put    func(whole string) string
		status int
	}{
		"10 MB": {func(w string) string {
			return strings.Replace(w, "}", `,"x":"`+strings.Repeat("canary-value", 1<<20)+`"}`, 1)
		}, 413},
		"depth 10,000": {func(w string) string {
			return strings.Replace(w, "}", `,"x":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+"}", 1)
		}, 400},
		"objects 10,000": {func(w string) string {
			return strings.Replace(w, "}", `,"x":`+strings.Repeat(`{"x":`, 10_000)+"1"+strings.Repeat("}", 10_000)+"}", 1)
		}, 400},
		"NUL":               {func(w string) string { return strings.Replace(w, "{", "{\x00", 1) }, 400},
		"NUL in a text":     {func(w string) string { return strings.Replace(w, "}", ",\"x\":\"canary-value\x00\"}", 1) }, 400},
		"invalid UTF-8":     {func(w string) string { return strings.Replace(w, "}", ",\"x\":\"canary-value\xff\"}", 1) }, 400},
		"overlong UTF-8":    {func(w string) string { return strings.Replace(w, "}", ",\"x\":\"\xc0\xae\"}", 1) }, 400},
		"half of a pair":    {func(w string) string { return strings.Replace(w, "}", `,"x":"canary-value\ud800"}`, 1) }, 400},
		"another encoding":  {func(w string) string { return "\xff\xfe" + w }, 400},
		"a mark in front":   {func(w string) string { return "\ufeff" + w }, 400},
		"cut short":         {func(w string) string { return w[:len(w)-1] }, 400},
		"nothing behind it": {func(w string) string { return w + "canary-value" }, 400},
		"an array":          {func(w string) string { return "[" + w + "]" }, 400},
		"a member twice":    {func(w string) string { return strings.Replace(w, "}", `,"x":1,"x":"canary-value"}`, 1) }, 400},
		"no number":         {func(w string) string { return strings.Replace(w, "}", `,"x":1e}`, 1) }, 400},
	}
	for path, whole := range map[string]string{
		authzen.Path:               "{" + one + "}",
		authzen.BatchPath:          "{" + one + `,"evaluations":[{` + resource + "}]}",
		authzen.SearchSubjectPath:  "{" + one + "}",
		authzen.SearchResourcePath: "{" + one + "}",
		authzen.SearchActionPath:   "{" + one + "}",
		"/v1/data/shop":            `{"input":{"a":1}}`,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			find := &finder{kinds: everySearch}
			e := allowing()
			s := serveWith(e, server.Options{Search: find, SearchCallers: []string{server.AnyCaller}, DataPaths: []string{"shop"}})
			post := func(body string) (int, string, string) {
				w := s.do(t, http.MethodPost, path, strings.NewReader(body), "Content-Type", "application/json")
				return w.Code, w.Header().Get("Content-Type"), w.Body.String()
			}
			for name, in := range inputs {
				status, kind, answer := post(in.put(whole))
				shape, want := `"code":"`, "application/problem+json"
				if strings.HasPrefix(path, "/v1/") {
					shape, want = `"code": "invalid_parameter"`, "application/json"
				}
				if status != in.status || kind != want || !strings.Contains(answer, shape) || strings.Contains(answer, canary) {
					t.Errorf("%s: %d %s %.300s", name, status, kind, answer)
				}
			}
			for name, body := range map[string]string{ // in AuthZEN's words
				"wrong types": `{"subject":[],"action":7,"resource":"canary-value"}`, "null": `{"subject":null,"action":null,"resource":null}`, "empty": `{}`,
			} {
				if strings.HasPrefix(path, "/v1/") {
					break
				}
				if status, _, answer := post(body); status != 400 || !strings.Contains(answer, `"errors":[`) || strings.Contains(answer, canary) {
					t.Errorf("%s: %d %s", name, status, answer)
				}
			}
			if len(e.asked)+len(e.questions)+len(find.asked) != 0 {
				t.Error("somebody was asked")
			}
			if status, _, answer := post(strings.Replace(whole, "{", `{"unknown":{"members":[null]},`, 1)); status != 200 {
				t.Errorf("a good question: %d %s", status, answer)
			}
		})
	}
}
