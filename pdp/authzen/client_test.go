package authzen_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

const patience = 5 * time.Second // far above what loopback needs; only the hanging server is meant to meet a time-out

func serve(t *testing.T, h http.HandlerFunc) *authzen.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := authzen.NewClient(s.URL, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answer(status int, mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestADecisionComesWithItsContext(t *testing.T) {
	t.Parallel()
	var asked authzen.Request
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != authzen.Path {
			t.Errorf("path %s, error %v", r.URL.Path, err)
		}
		answer(200, "application/json", `{"decision":false,"context":{"reasons":["not_owner"],"need":{"acr":"aal2","max_age":600},"decision_id":"d1"}}`)(w, r)
	})
	got, err := c.Evaluate(t.Context(), authzen.Request{Subject: authzen.Subject{Type: "user", ID: "u1"}, Action: authzen.Action{Name: "GET"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Decision || got.Context.Reasons[0] != "not_owner" || got.Context.Need.MaxAge != 600 || asked.Subject.ID != "u1" {
		t.Errorf("answer %+v, asked %+v", got, asked)
	}
}

// S56: whatever is not a whole decision is an error, so that the caller denies.
func TestNonsenseIsAnError(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"empty object":      answer(200, "application/json", `{}`),
		"null decision":     answer(200, "application/json", `{"decision":null}`),
		"text decision":     answer(200, "application/json", `{"decision":"true"}`),
		"two decisions":     answer(200, "application/json", `{"decision":false,"decision":true}`),
		"a decision twice":  answer(200, "application/json", `{"decision":true,"decision":true}`),
		"two spellings":     answer(200, "application/json", `{"decision":false,"DECISION":true}`),
		"another spelling":  answer(200, "application/json", `{"Decision":true}`),
		"a list":            answer(200, "application/json", `[{"decision":true}]`),
		"not UTF-8":         answer(200, "application/json", "{\"decision\":true,\"context\":{\"reasons\":[\"\xff\"]}}"),
		"reasons twice":     answer(200, "application/json", `{"decision":true,"context":{"reasons":[],"Reasons":["x"]}}`),
		"another context":   answer(200, "application/json", `{"decision":true,"context":"x"}`),
		"truncated":         answer(200, "application/json", `{"decision":true`),
		"trailing bytes":    answer(200, "application/json", `{"decision":true} true`),
		"html":              answer(200, "text/html", `{"decision":true}`),
		"server error":      answer(500, "application/json", `{"decision":true}`),
		"redirect":          func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"an endless answer": answer(200, "application/json", `{"decision":true,"context":{"reasons":["`+strings.Repeat("x", 1<<20)+`"]}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := serve(t, h).Evaluate(t.Context(), authzen.Request{}); err == nil {
				t.Errorf("taken as %+v", got)
			}
		})
	}
}

// S56: a decision point that does not answer in time is an error.
func TestADecisionPointThatHangsIsAnError(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	c, err := authzen.NewClient(s.URL, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Evaluate(t.Context(), authzen.Request{}); err == nil {
		t.Error("no error after the deadline")
	}
}

func TestAUnixSocketServesAsWell(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(answer(200, "application/json", `{"decision":true}`))
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	c, err := authzen.NewClient("unix://"+socket, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if got, err := c.Evaluate(t.Context(), authzen.Request{}); err != nil || !got.Decision {
		t.Errorf("decision %v, error %v", got.Decision, err)
	}
}

func TestAnAddressThatCannotBeAskedIsRefused(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"", "pdp:8181", "http://", "unix://", "ftp://x", "http://[::1"} {
		if _, err := authzen.NewClient(base, patience); err == nil {
			t.Errorf("%q is accepted", base)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"decision":true,"context":{"need":{"max_age":1}}}`))
	f.Add([]byte(`{"decision":1}`))
	f.Add([]byte(`{"decision":false,"Decision":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := authzen.Parse(b)
		if err != nil && got.Decision {
			t.Error("an error came with a permission")
		}
		var members map[string]any
		_ = json.Unmarshal(b, &members) // what cannot be read gives nothing
		if got.Decision && members["decision"] != true {
			t.Error("a permission that was not given")
		}
	})
}

// S71: the token goes to the decision point with each question, and nowhere else.
func TestATokenIsBroughtToTheDecisionPointAlone(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	var brought []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		brought = append(brought, strings.Join(r.Header.Values("Authorization"), ","))
		if len(brought) == 2 {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			return
		}
		answer(200, "application/json", `{"decision":true}`)(w, r)
	}))
	defer s.Close()
	for token, want := range map[string]string{"secret-token": "Bearer secret-token", "": ""} {
		brought = nil
		c, err := authzen.NewClient(s.URL, patience, authzen.WithToken(token))
		if err != nil {
			t.Fatal(err)
		}
		if res, err := c.Evaluate(t.Context(), authzen.Request{}); err != nil || !res.Decision {
			t.Errorf("%+v, %v", res, err)
		}
		if _, err := c.Evaluate(t.Context(), authzen.Request{}); err == nil || strings.Contains(err.Error(), "secret-token") {
			t.Errorf("a redirect: %v", err)
		}
		if len(brought) != 2 || brought[0] != want {
			t.Errorf("brought %q", brought)
		}
		c.Close()
	}
}

// S56: a batch that does not cover everything that was asked, or that failed in part, is an error.
func TestABatchIsOneRequestAndEndsAtItsFirstDenial(t *testing.T) {
	t.Parallel()
	about := authzen.Request{Subject: authzen.Subject{Type: "user", ID: "u1"}, Action: authzen.Action{Name: "GET"}, Context: map[string]any{"ip": "192.0.2.1"}}
	on := []authzen.Resource{{Type: "order", ID: "1"}, {Type: "order", ID: "2"}, {Type: "order", ID: "3"}}
	const yes, no = `{"decision":true,"context":{"decision_id":"d1"}}`, `{"decision":false,"context":{"reasons":["not_owner"]}}`
	for name, c := range map[string]struct {
		body string
		want []bool
	}{
		"all":                  {yes + "," + yes + "," + yes, []bool{true, true, true}},
		"up to a denial":       {yes + "," + no, []bool{true, false}},
		"beyond it":            {no + "," + yes + "," + yes, []bool{false}},
		"none":                 {"", nil},
		"too few":              {yes + "," + yes, nil},
		"too many":             {yes + "," + yes + "," + yes + "," + yes, nil},
		"one without":          {yes + ",{}," + yes, nil},
		"one that failed":      {yes + `,{"decision":false,"context":{"error":{"status":503,"code":"policy_failed","message":"x"}}}`, nil},
		"one twice":            {yes + `,{"decision":false,"decision":true},` + yes, nil},
		"an allowed failure":   {yes + "," + yes + `,{"decision":true,"context":{"error":{"status":503}}}`, nil},
		"one in another case":  {yes + "," + yes + `,{"DECISION":true}`, nil},
		"something else there": {yes + "," + yes + `,true`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				var asked authzen.BatchRequest
				if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != authzen.BatchPath || asked.Subject.ID != "u1" || asked.Action.Name != "GET" ||
					asked.Context["ip"] != "192.0.2.1" || len(asked.Evaluations) != 3 || asked.Evaluations[1].Resource.ID != "2" || asked.Options.Semantic != authzen.DenyOnFirstDeny {
					t.Errorf("path %s, error %v, asked %+v", r.URL.Path, err, asked)
				}
				answer(200, "application/json", `{"evaluations":[`+c.body+`]}`)(w, r)
			})
			got, err := client.EvaluateAll(t.Context(), about, on)
			if (err == nil) != (c.want != nil) || len(got) != len(c.want) {
				t.Fatalf("%+v, %v", got, err)
			}
			for i, r := range got {
				if r.Decision != c.want[i] {
					t.Errorf("decision %d: %v", i, r.Decision)
				}
			}
		})
	}
	// S56
	for _, body := range []string{`{"decision":true}`, `[]`, `{"Evaluations":[` + yes + `]}`, `{"evaluations":{}}`, `{"evaluations":[],"evaluations":[` + yes + `]}`, `{"evaluations":null}`} {
		if got, err := serve(t, answer(200, "application/json", body)).EvaluateAll(t.Context(), about, on[:1]); err == nil {
			t.Errorf("%s: %+v", body, got)
		}
	}
	if got, err := serve(t, answer(200, "application/json", yes)).EvaluateAll(t.Context(), about, nil); err == nil {
		t.Errorf("a batch of none: %+v", got)
	}
}

// A search is all of its pages, or an error.
func TestASearchIsAllOfItsPages(t *testing.T) {
	t.Parallel()
	var asked []string
	answers := []string{
		`{"page":{"next_token":"a","count":1},"context":{"complete":false,"reasons":["undecided"],"undecided":2},"results":[{"type":"user","id":"ann"}]}`,
		`{"page":{"next_token":"","count":1},"context":{"complete":true,"revision":"r"},"results":[{"type":"user","id":"bob"}]}`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.URL.Path+" "+string(body))
		_, _ = io.WriteString(w, answers[min(len(asked), len(answers))-1])
	}))
	t.Cleanup(s.Close)
	c, err := authzen.NewClient(s.URL, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	q := authzen.Request{Subject: authzen.Subject{Type: "user"}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "17"}}
	found, about, err := c.Search(t.Context(), authzen.Subjects, q)
	if err != nil || len(found) != 2 || about.Complete || about.Undecided != 2 || about.Revision != "r" || len(asked) != 2 || !strings.Contains(asked[0], `"page":{"limit":1000}`) || !strings.Contains(asked[1], `"page":{"token":"a"}`) {
		t.Errorf("%v, %+v, %v: %q", found, about, err, asked)
	}
	for _, bad := range []string{``, `{}`, `{"results":null}`, `[]`, `{"page":{"next_token":""},"results":[],"results":[{"id":"x"}]}`, `{"results":[{"id":7}]}`, strings.Repeat(" ", 5<<20)} {
		answers, asked = []string{bad}, nil
		if found, _, err := c.Search(t.Context(), authzen.Subjects, q); err == nil || found != nil {
			t.Errorf("%.40q: %v", bad, found)
		}
	}
	answers = []string{`{"page":{"next_token":"again"},"results":[]}`} // for ever
	if _, _, err := c.Search(t.Context(), authzen.Actions, q); err == nil || !strings.Contains(err.Error(), "pages") {
		t.Errorf("pages without an end: %v", err)
	}
}
