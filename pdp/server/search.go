package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// Searcher answers AuthZEN's searches. With an error, what it found still names the search.
type Searcher interface {
	Search(ctx context.Context, q authzen.Search) (authzen.Found, error)
	Searches() []authzen.Kind // what can be searched for now
}

// AnyCaller among Options.SearchCallers stands for whoever may ask at all.
const AnyCaller = "*"

// Results of one page.
const (
	defaultResults = 100
	maxResults     = 1000
)

var (
	errMayNotSearch = fault.New(fault.Forbidden, "This caller may not search.").Named("search_forbidden")
	errUnsupported  = fault.New(fault.Unavailable, "The policies do not say what such a search could find.").Named("search_unsupported")
	errPageToken    = fault.New(fault.Invalid, "The page token is of another search; begin anew.").Named("page_token_invalid")
)

// searches are the endpoints, in the order of the metadata.
var searches = []struct {
	kind           authzen.Kind
	path, metadata string
}{
	{authzen.Subjects, authzen.SearchSubjectPath, "search_subject_endpoint"},
	{authzen.Resources, authzen.SearchResourcePath, "search_resource_endpoint"},
	{authzen.Actions, authzen.SearchActionPath, "search_action_endpoint"},
}

// serveSearch adds the searches. A search tells in one answer what its caller could otherwise only try out, so it is for callers
// that were named for it.
func (s *server) serveSearch(mux *http.ServeMux) {
	s.searching.most = int64(max(1, runtime.GOMAXPROCS(0)/2))
	for _, of := range searches {
		mux.Handle("POST "+of.path, s.known(problem, func(w http.ResponseWriter, r *http.Request) { s.search(w, r, of.kind) }))
	}
}

func (s *server) offersSearch() bool { return s.Search != nil && len(s.SearchCallers) > 0 }

func (s *server) search(w http.ResponseWriter, r *http.Request, kind authzen.Kind) {
	if caller := CallerOf(r.Context()); !slices.Contains(s.SearchCallers, AnyCaller) && (caller == "" || !slices.Contains(s.SearchCallers, caller)) {
		problem(w, r, errMayNotSearch)
		return
	}
	if !slices.Contains(s.Search.Searches(), kind) {
		problem(w, r, errUnsupported)
		return
	}
	body, ok := s.readJSON(w, r)
	if !ok {
		return
	}
	q, fields, err := parseSearch(body, kind)
	if !wellFormed(w, r, fields, err) || !s.admit(w, r, apiSearch, problem) {
		return
	}
	defer s.gate.leave()
	if !s.searching.enter() { // decisions come first: searches have half of the processors at most
		s.refuse(w, r, apiSearch, problem)
		return
	}
	defer s.searching.leave()
	found, err := s.find(r.Context(), q)
	if err != nil {
		p := web.Problem(r.Context(), err)
		p.DecisionID = found.DecisionID
		web.WriteProblem(w, p)
		return
	}
	res := authzen.SearchResponse{
		Page:    authzen.Page{Count: len(found.Results)},
		Context: &authzen.SearchContext{Complete: found.Complete, Reasons: found.Reasons, Undecided: found.Undecided, Revision: found.Revision, Directory: found.Directory, DecisionID: found.DecisionID},
		Results: found.Results,
	}
	if found.More {
		res.Page.NextToken = pageToken{revision: found.Revision, from: found.Next, after: found.Last, limit: q.limit}.seal(q)
	}
	answer(w, r, res)
}

// find asks the engine, and sees to it that the search is counted and logged: who asked for the book stands in the log.
func (s *server) find(ctx context.Context, q question) (found authzen.Found, err error) {
	start := s.Now()
	bounded, cancel := context.WithTimeout(ctx, s.BatchTime)
	defer cancel()
	func() {
		defer func() {
			if p := recover(); p != nil {
				s.Log.ErrorContext(ctx, "engine panicked", "trace_id", web.TraceID(ctx), "stack", string(debug.Stack()))
				err = fmt.Errorf("panic: %T", p)
			}
		}()
		ask := q.Search
		ask.Limit = min(q.limit, maxResults)
		found, err = s.Search.Search(bounded, ask)
	}()
	took, outcome := s.Now().Sub(start), outcomeDocument
	if err != nil {
		outcome = string(authzen.Indeterminate)
	}
	s.Meter.Decided(apiSearch, outcome, took)
	s.DecisionLog.Record(decisionlog.Entry{
		Time: start, TraceID: web.TraceID(ctx), Caller: CallerOf(ctx), Outcome: outcome, Path: "/access/v1/search/" + string(q.For),
		DecisionID: found.DecisionID, Revision: found.Revision, Duration: took, Err: err,
	})
	return found, err
}

// question is a search as it was asked for.
type question struct {
	authzen.Search
	limit int // as it was asked for
}

// parseSearch reads a search as parse reads an evaluation. The id of what is searched for is ignored, as AuthZEN demands.
func parseSearch(body []byte, kind authzen.Kind) (q question, fields []web.FieldError, err error) {
	root, err := readObject(body)
	if err != nil {
		return q, nil, err
	}
	f := &form{}
	f.sameCase(root, "", append([]string{"page"}, requestMembers...)...)
	q.For = kind
	searched := map[string]any{"id": "searched for"}
	switch kind {
	case authzen.Actions:
		root["action"] = map[string]any{"name": "searched for"}
	default:
		if o, ok := root[string(kind)].(map[string]any); ok {
			for name, v := range o {
				if name != "id" {
					searched[name] = v
				}
			}
			root[string(kind)] = searched
		}
	}
	q.Request = f.request(root, nil, "")
	switch kind {
	case authzen.Subjects:
		q.Request.Subject.ID = ""
	case authzen.Resources:
		q.Request.Resource.ID = ""
	default:
		q.Request.Action = authzen.Action{}
	}
	token, limited := f.page(root, &q)
	if len(f.errors) > 0 || token == "" {
		return q, f.errors, nil
	}
	t, err := openPageToken(token, q, limited)
	q.limit, q.From, q.After, q.Revision = t.limit, t.from, t.after, t.revision
	return q, nil, err
}

// page reads the page object, and answers its token and whether it has a limit.
func (f *form) page(root map[string]any, q *question) (token string, limited bool) {
	q.limit = defaultResults
	page, ok := f.object(root, "", "page", false)
	if !ok {
		return "", false
	}
	f.sameCase(page, "page.", "token", "limit", "properties")
	f.object(page, "page.", "properties", false)
	if v, present := page["token"]; present {
		if token, ok = v.(string); !ok || len(token) > 2048 {
			f.fail("page.token", "must be the next_token of an answer")
		}
	}
	if v, present := page["limit"]; present {
		n, _ := v.(json.Number)
		limit, err := strconv.ParseInt(n.String(), 10, 32)
		if err != nil || limit < 0 {
			f.fail("page.limit", "must be a number from 0 to 2147483647")
		}
		q.limit, limited = int(limit), true
	}
	return token, limited
}

// pageToken says where a page begins, and of which search. Nothing of it is secret, and a caller that makes one up passes over
// candidates of a search that it may make anyway; what seal adds is that a token cannot be taken to another search by mistake.
type pageToken struct {
	revision    string
	from, limit int
	after       string
}

const (
	tokenVersion = 2
	digestSize   = 16
)

func (t pageToken) seal(q question) string {
	b := append([]byte{tokenVersion}, t.digest(q)...)
	b = binary.AppendUvarint(b, uint64(t.from))  //nolint:gosec // never below 0
	b = binary.AppendUvarint(b, uint64(t.limit)) //nolint:gosec // never below 0
	b = append(binary.AppendUvarint(b, uint64(len(t.after))), t.after...)
	return base64.RawURLEncoding.EncodeToString(append(b, t.revision...))
}

// digest is over everything that has to stay as it is from page to page.
func (t pageToken) digest(q question) []byte {
	request, err := json.Marshal(q.Request) // with sorted names
	if err != nil {
		request = nil // it came from JSON
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %q %q %s", q.For, t.from, t.limit, t.after, t.revision, request))
	return sum[:digestSize]
}

// openPageToken answers errPageToken unless the token is of this search, whose limit it has if one is given again.
func openPageToken(token string, q question, limited bool) (t pageToken, err error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 1+digestSize || b[0] != tokenVersion {
		return t, errPageToken
	}
	digest, rest := b[1:1+digestSize], b[1+digestSize:]
	for _, to := range []*int{&t.from, &t.limit} {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > 1<<31-1 {
			return pageToken{}, errPageToken
		}
		*to, rest = int(v), rest[n:]
	}
	length, n := binary.Uvarint(rest)
	if n <= 0 || length > uint64(len(rest)-n) {
		return pageToken{}, errPageToken
	}
	rest = rest[n:]
	t.after, t.revision = string(rest[:length]), string(rest[length:])
	if !slices.Equal(digest, t.digest(q)) || limited && t.limit != q.limit || t.revision == "" {
		return pageToken{}, errPageToken
	}
	return t, nil
}

// isSearch reports whether a path is one of a search.
func isSearch(path string) bool { return strings.HasPrefix(path, "/access/v1/search/") }
