package authzen_test

import (
	"encoding/json"
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
