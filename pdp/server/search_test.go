package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// finder finds the numbers from From on.
type finder struct {
	kinds []authzen.Kind
	err   error

	mu      sync.Mutex
	asked   []authzen.Search
	block   chan struct{}
	entered chan struct{}
}

func (f *finder) Searches() []authzen.Kind { return f.kinds }

func (f *finder) Search(ctx context.Context, q authzen.Search) (authzen.Found, error) {
	f.mu.Lock()
	f.asked = append(f.asked, q)
	f.mu.Unlock()
	if f.entered != nil {
		f.entered <- struct{}{}
		<-f.block
	}
	if _, bounded := ctx.Deadline(); !bounded {
		return authzen.Found{}, errors.New("without a deadline")
	}
	found := authzen.Found{Results: []authzen.Entity{}, DecisionID: "s-1", Revision: "r-1", Complete: true, More: true, Next: q.From + q.Limit}
	if f.err != nil {
		return found, f.err
	}
	for i := range min(q.Limit, 3) {
		found.Results = append(found.Results, authzen.Entity{Type: "user", ID: fmt.Sprint(q.From + i)})
	}
	return found, nil
}

var everySearch = []authzen.Kind{authzen.Subjects, authzen.Resources, authzen.Actions}

func searchable(f *finder, callers ...string) *service {
	return serveWith(allowing(), server.Options{Search: f, SearchCallers: callers})
}

const whoCan = `{"subject":{"type":"user"},"action":{"name":"GET"},"resource":{"type":"order","id":"17","properties":{"note":"canary-value"}}`

func (s *service) search(t *testing.T, body string, headers ...string) (int, authzen.SearchResponse) {
	t.Helper()
	w := s.do(t, http.MethodPost, authzen.SearchSubjectPath, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
	var res authzen.SearchResponse
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &res); err != nil || !strings.HasPrefix(w.Body.String(), `{"page":`) {
			t.Errorf("%s: %v", w.Body, err)
		}
	}
	return w.Code, res
}

// S71: who may do what is told in one answer only to those who were named for it, and nobody is by default.
func TestSearchesAreForCallersThatWereNamed(t *testing.T) {
	t.Parallel()
	f := &finder{kinds: everySearch}
	for _, off := range []server.Options{{}, {Search: f}, {SearchCallers: []string{"*"}}} {
		s := serveWith(allowing(), off)
		if code, _ := s.search(t, whoCan+"}"); code != http.StatusNotFound {
			t.Errorf("a search that is off answers %d", code)
		}
		if w := s.do(t, http.MethodGet, authzen.MetadataPath, nil); strings.Contains(w.Body.String(), "search") {
			t.Errorf("a search that is off is named: %s", w.Body)
		}
	}
	file := filepath.Join(t.TempDir(), "tokens")
	auditor, edge := strings.Repeat("a", 32), strings.Repeat("e", 32)
	if err := os.WriteFile(file, []byte("auditor "+auditor+"\nedge "+edge+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := caller.OpenTokens(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := serveWith(allowing(), server.Options{Search: f, SearchCallers: []string{"auditor"}, Callers: caller.Check{Tokens: tokens}})
	for token, want := range map[string]int{"": 401, strings.Repeat("x", 32): 401, edge: 403, auditor: 200} {
		if code, _ := s.search(t, whoCan+"}", "Authorization", "Bearer "+token); code != want {
			t.Errorf("%.1s is answered %d, want %d", token, code, want)
		}
	}
	if len(f.asked) != 1 {
		t.Errorf("asked %d times", len(f.asked))
	}
	// Without names nobody is meant, and an empty name is nobody's.
	if code, _ := searchable(f, "", "auditor").search(t, whoCan+"}"); code != http.StatusForbidden {
		t.Errorf("who has no name is answered %d", code)
	}
	some := searchable(&finder{kinds: everySearch[2:]}, "*")
	w := some.do(t, http.MethodPost, authzen.SearchSubjectPath, strings.NewReader(whoCan+"}"), "Content-Type", "application/json")
	wantProblem(t, w, http.StatusNotImplemented, "search_unsupported")
	w = some.do(t, http.MethodGet, authzen.MetadataPath, nil)
	if !strings.Contains(w.Body.String(), `"search_action_endpoint":"http://example.com/access/v1/search/action"`) || strings.Contains(w.Body.String(), "search_subject") {
		t.Errorf("metadata %s", w.Body)
	}
}

func TestPagesAreBoundToTheirSearch(t *testing.T) {
	t.Parallel()
	f := &finder{kinds: everySearch}
	s := searchable(f, "*")
	code, first := s.search(t, whoCan+`,"page":{"limit":2,"properties":{"sort":"x"}}}`)
	if code != 200 || first.Page.NextToken == "" || first.Page.Count != 2 || first.Context.DecisionID != "s-1" || !first.Context.Complete {
		t.Fatalf("%d %+v", code, first)
	}
	page := func(rest string) string { return fmt.Sprintf(`,"page":{"token":%q%s}}`, first.Page.NextToken, rest) }
	// AuthZEN's text wants the limit again, and its example leaves it out.
	for _, body := range []string{whoCan + page(""), whoCan + page(`,"limit":2`)} {
		if code, second := s.search(t, body); code != 200 || second.Results[0].ID != "2" || second.Page.Count != 2 {
			t.Errorf("%s: %d %+v", body, code, second)
		}
	}
	last := f.asked[len(f.asked)-1]
	if last.From != 2 || last.Limit != 2 || last.Revision != "r-1" || last.Request.Resource.ID != "17" || last.Request.Subject.ID != "" {
		t.Errorf("asked for %+v", last)
	}
	asked := len(f.asked)
	other := strings.Replace(whoCan, `"17"`, `"18"`, 1)
	for name, body := range map[string]string{
		"another resource": other + page(""),
		"another limit":    whoCan + page(`,"limit":3`),
		"another context":  whoCan + `,"context":{"ip":"192.0.2.1"}` + page(""),
		"no token":         whoCan + `,"page":{"token":"AAAA"}}`,
		"not base64":       whoCan + `,"page":{"token":"!!"}}`,
		"changed":          whoCan + `,"page":{"token":"` + first.Page.NextToken + `AA"}}`,
	} {
		w := s.do(t, http.MethodPost, authzen.SearchSubjectPath, strings.NewReader(body), "Content-Type", "application/json")
		wantProblem(t, w, 400, "page_token_invalid")
		if len(f.asked) != asked {
			t.Fatalf("%s: the engine was asked", name)
		}
	}
	w := s.do(t, http.MethodPost, authzen.SearchResourcePath, strings.NewReader(`{"subject":{"type":"user","id":"x"},"action":{"name":"GET"},"resource":{"type":"order"}`+page("")), "Content-Type", "application/json")
	wantProblem(t, w, 400, "page_token_invalid")
	for _, bad := range []string{`"page":7`, `"page":{"limit":-1}`, `"page":{"limit":1.5}`, `"page":{"limit":"2"}`, `"page":{"limit":99999999999}`, `"page":{"token":7}`, `"page":{"Token":""}`, `"Page":{}`, `"page":{"properties":[]}`} {
		w := s.do(t, http.MethodPost, authzen.SearchSubjectPath, strings.NewReader(whoCan+","+bad+"}"), "Content-Type", "application/json")
		wantProblem(t, w, 400, "bad_request")
	}
	// However much is asked for, a page has no more than a thousand.
	if code, _ := s.search(t, whoCan+`,"page":{"limit":1000000}}`); code != 200 || f.asked[len(f.asked)-1].Limit != 1000 {
		t.Errorf("%d, asked for %d", code, f.asked[len(f.asked)-1].Limit)
	}
}

// Searches have half of the processors; more of them are refused, and decisions are made all the while.
func TestSearchesLeaveRoomForDecisions(t *testing.T) {
	t.Parallel()
	f := &finder{kinds: everySearch, entered: make(chan struct{}), block: make(chan struct{})}
	s := searchable(f, "*")
	var wait sync.WaitGroup
	running := 0
	for done := false; !done; {
		code := make(chan int, 1)
		wait.Go(func() {
			c, _ := s.search(t, whoCan+"}")
			code <- c
		})
		select {
		case <-f.entered:
			running++
		case c := <-code:
			if done = true; c != http.StatusServiceUnavailable {
				t.Errorf("the search too many is answered %d", c)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("neither searching nor refused")
		}
	}
	if w := s.ask(t, body); w.Code != 200 || running == 0 {
		t.Errorf("with %d searches under way a decision is answered %d", running, w.Code)
	}
	close(f.block)
	wait.Wait()
}

func TestAFailedSearchSaysNothingOfWhatWasAsked(t *testing.T) {
	t.Parallel()
	f := &finder{kinds: everySearch, err: errors.New(canary)}
	s := searchable(f, "*")
	w := s.do(t, http.MethodPost, authzen.SearchSubjectPath, strings.NewReader(whoCan+"}"), "Content-Type", "application/json")
	if p := wantProblem(t, w, 500, "internal"); p.DecisionID != "s-1" {
		t.Errorf("names %q", p.DecisionID)
	}
	f.err = nil
	s.search(t, whoCan+"}")
	lines := s.logged(t)
	if len(lines) != 2 || lines[0]["outcome"] != "indeterminate" || lines[1]["outcome"] != "document" || lines[1]["path"] != "/access/v1/search/subject" {
		t.Errorf("logged %v", lines)
	}
}

func FuzzSearch(f *testing.F) {
	for _, kind := range everySearch {
		f.Add(string(kind), whoCan+"}")
		f.Add(string(kind), whoCan+`,"page":{"token":"AQ","limit":1}}`)
	}
	f.Fuzz(func(t *testing.T, kind, body string) {
		find := &finder{kinds: everySearch}
		s := searchable(find, "*")
		w := s.do(t, http.MethodPost, "/access/v1/search/"+map[bool]string{true: "action", false: "subject"}[kind == "action"], strings.NewReader(body), "Content-Type", "application/json")
		if w.Code != 200 && w.Code != 400 && w.Code != 413 || w.Code == 200 != (len(find.asked) == 1) {
			t.Fatalf("%d, asked %v", w.Code, find.asked)
		}
	})
}
