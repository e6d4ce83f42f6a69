package directory_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/authsvc/directory"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	token = "0123456789abcdef0123456789abcdef"
	// patience is how long a test waits for what must come.
	patience = 60 * time.Second
)

// sender is the feed of a database behind a real socket, and what administers it.
type sender struct {
	roles  *role.Service
	server *httptest.Server
	log    *testenv.Output
}

func administering(db *store.DB) *role.Service {
	return &role.Service{
		Store: db.Roles(), Now: time.Now, NewID: func() string { return uuid.Must(uuid.NewV7()).String() }, Log: slog.New(slog.DiscardHandler),
		Publish: func(context.Context, job.Revocation) error { return nil },
	}
}

func start(t *testing.T, db *store.DB) *sender {
	t.Helper()
	return serve(t, administering(db), db.Directory(), time.Hour) // so that only being woken helps
}

func serve(t *testing.T, roles *role.Service, from directory.Store, poll time.Duration) *sender {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("pdp-1 "+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &sender{roles: roles, log: &testenv.Output{}}
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	tokens, err := caller.OpenTokens(file, log)
	if err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewServer(directory.New(directory.Options{
		Store: from, Identify: caller.Check{Tokens: tokens}.Identify, Poll: poll, Now: time.Now, Log: log,
	}))
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// URL implements feedtest.Sender, as do those below.
func (s *sender) URL() string { return s.server.URL }

func (s *sender) Client() *http.Client {
	inner := s.server.Client()
	return &http.Client{Transport: bearing{inner.Transport}}
}

// bearing shows the token.
type bearing struct{ next http.RoundTripper }

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return b.next.RoundTrip(r)
}

var (
	operator = role.Actor{Subject: role.Operator}
	noReason role.Why
)

func (s *sender) PutRole(t *testing.T, f feed.Role) {
	t.Helper()
	r := role.Role{Name: f.Name, Inherits: f.Inherits}
	for _, p := range f.Permissions {
		r.Permissions = append(r.Permissions, role.Permission(p))
	}
	_, _, err := s.roles.UpdateRole(t.Context(), operator, r, "", noReason)
	if errors.Is(err, role.ErrRoleNotFound) {
		_, _, err = s.roles.CreateRole(t.Context(), operator, r, noReason)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *sender) DropRole(t *testing.T, name string) {
	t.Helper()
	if _, err := s.roles.DeleteRole(t.Context(), operator, name, "", noReason); err != nil {
		t.Fatal(err)
	}
}

func (s *sender) Bind(t *testing.T, subject string, b feed.Binding) {
	t.Helper()
	_, err := s.roles.Revoke(t.Context(), operator, subject, b.Role, b.Tenant, noReason)
	if err != nil && !errors.Is(err, role.ErrBindingNotFound) {
		t.Fatal(err)
	}
	if _, _, err := s.roles.Grant(t.Context(), operator, role.Binding{Subject: subject, Role: b.Role, Tenant: b.Tenant, Until: b.Until}); err != nil {
		t.Fatal(err)
	}
}

func (s *sender) Unbind(t *testing.T, subject, name, tenant string) {
	t.Helper()
	if _, err := s.roles.Revoke(t.Context(), operator, subject, name, tenant, noReason); err != nil {
		t.Fatal(err)
	}
}

func TestTheFeedKeepsItsContract(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) dbtest.DB{"PostgreSQL": dbtest.Postgres, "SQLite": dbtest.SQLite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			feedtest.Run(t, func(t *testing.T) feedtest.Sender { return start(t, open(t).DB) })
		})
	}
}

// get asks with the token, and answers the status and the whole lines.
func (s *sender) get(t *testing.T, path string) (status int, lines []feed.Line, problem string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, nil, string(text)
	}
	return res.StatusCode, read(t, res.Body), ""
}

func read(t *testing.T, from io.Reader) (lines []feed.Line) {
	t.Helper()
	for scan := bufio.NewScanner(from); scan.Scan(); {
		var l feed.Line
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", scan.Bytes(), err)
		}
		lines = append(lines, l)
	}
	return lines
}

// S71: only decision points that show a token read who may do what.
func TestOnlyAKnownDecisionPointReads(t *testing.T) {
	t.Parallel()
	s := start(t, dbtest.SQLite(t).DB)
	for path, open := range map[string]bool{
		feed.SnapshotPath: false, feed.ChangesPath + "?epoch=e&since=0": false, "/": false, "/other": false, "/healthz": true, "/readyz": true,
	} {
		for _, header := range [][]string{nil, {""}, {"Bearer"}, {"Bearer " + token + "x"}, {"Basic " + token}, {"Bearer " + token, "Bearer " + token}} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Authorization"] = header
			res, err := s.server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if want := map[bool]int{true: 200, false: 401}[open]; res.StatusCode != want {
				t.Errorf("%s with %q: %d, want %d", path, header, res.StatusCode, want)
			}
		}
	}
	if strings.Contains(s.log.String(), token) {
		t.Errorf("the log tells the token: %s", s.log)
	}
}

// S58: a change is with those who wait as soon as it is committed, in this process or in another.
func TestWhoWaitsHearsOfAChangeWithinASecond(t *testing.T) {
	t.Parallel()
	for name, dsn := range dbtest.DSNs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := dsn(t)
			own := opened(t, at)
			start(t, own).PutRole(t, feed.Role{Name: "clerk"})
			for who, poll := range map[string]time.Duration{"here": time.Hour, "elsewhere": 20 * time.Millisecond} {
				s := serve(t, administering(own), own.Directory(), poll)
				roles := s.roles
				if who == "elsewhere" {
					roles = administering(opened(t, at))
				}
				_, lines, _ := s.get(t, feed.SnapshotPath)
				begin := lines[0].Begin
				heard := make(chan time.Time, 1)
				go func() {
					defer close(heard)
					status, lines, problem := s.get(t, query(begin.Epoch, begin.Revision, "30"))
					if status != 200 || len(lines) != 3 || lines[1].Subject == nil || lines[1].Subject.ID != who {
						t.Errorf("%s: %d %+v %s", who, status, lines, problem)
					}
					heard <- time.Now()
				}()
				if _, _, err := roles.Grant(t.Context(), operator, role.Binding{Subject: who, Role: "clerk"}); err != nil {
					t.Fatal(err)
				}
				committed := time.Now()
				if took := (<-heard).Sub(committed); took > patience/2 { // on an idle machine it is milliseconds
					t.Errorf("%s: heard %v after the commit", who, took)
				} else {
					t.Logf("%s: heard %v after the commit", who, took)
				}
			}
		})
	}
}

func opened(t *testing.T, dsn string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func query(epoch string, since uint64, wait string) string {
	return feed.ChangesPath + "?epoch=" + epoch + "&since=" + jsonOf(since) + "&wait=" + wait
}

func jsonOf(n uint64) string {
	b, _ := json.Marshal(n) // a number
	return string(b)
}

func TestAQuestionThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, dbtest.SQLite(t).DB)
	for _, q := range []string{
		"", "?epoch=e", "?since=0", "?epoch=&since=0", "?epoch=e&since=-1", "?epoch=e&since=x", "?epoch=e&since=9223372036854775808", "?epoch=e&since=0&wait=-1",
		"?epoch=e&since=0&wait=1.5", "?epoch=e&since=0&since=1", "?epoch=e&epoch=f&since=0", "?epoch=e&since=0&wait=1&wait=2", "?epoch=e&since=0&wait=",
	} {
		if status, _, problem := s.get(t, feed.ChangesPath+q); status != 400 || !strings.Contains(problem, "invalid_query") {
			t.Errorf("%q: %d %s", q, status, problem)
		}
	}
	if status, _, problem := s.get(t, feed.ChangesPath+"?epoch=e&since=0&wait=30"); status != 410 || !strings.Contains(problem, "directory_gone") {
		t.Errorf("another epoch: %d %s", status, problem)
	}
}

// broken is a store whose snapshot stops: after some lines, with an error or until it is let go.
type broken struct {
	directory.Store
	lines int
	err   error
	hold  chan struct{}
	begun chan struct{}
}

func (b broken) Snapshot(_ context.Context, begin func(feed.Begin) error, line func(feed.Line) error) error {
	if b.begun != nil {
		b.begun <- struct{}{}
		<-b.hold
	}
	if b.lines < 0 {
		return b.err
	}
	if err := begin(feed.Begin{Epoch: "e"}); err != nil {
		return err
	}
	for range b.lines {
		if err := line(feed.Line{Role: &feed.Role{Name: strings.Repeat("x", 1000)}}); err != nil {
			return err
		}
	}
	return b.err
}

// A reader uses nothing of what lacks its End.
func TestASnapshotThatIsCutShortHasNoEnd(t *testing.T) {
	t.Parallel()
	for _, lines := range []int{-1, 0, 1, 1000} {
		s := serve(t, nil, broken{lines: lines, err: errors.New("canary of a cause")}, time.Hour)
		res, err := s.Client().Get(s.URL() + feed.SnapshotPath)
		if err != nil {
			if lines < 0 {
				t.Error(err)
			}
			continue // cut before its status
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if strings.Contains(string(text), `"end"`) || strings.Contains(string(text), "canary") {
			t.Errorf("%d lines: %s", lines, text)
		}
		if lines < 0 && (res.StatusCode != 500 || err != nil) || lines >= 0 && err == nil {
			t.Errorf("%d lines: %d, %v", lines, res.StatusCode, err)
		}
	}
}

func TestSnapshotsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	b := broken{hold: make(chan struct{}), begun: make(chan struct{})}
	s := serve(t, nil, b, time.Hour)
	statuses := make(chan int, 4)
	for range 4 {
		go func() {
			status, _, _ := s.get(t, feed.SnapshotPath)
			statuses <- status
		}()
		<-b.begun
	}
	if status, _, problem := s.get(t, feed.SnapshotPath); status != 503 || !strings.Contains(problem, "overloaded") {
		t.Errorf("a fifth: %d %s", status, problem)
	}
	close(b.hold)
	var all []int
	for range 4 {
		all = append(all, <-statuses)
	}
	if !slices.Equal(all, []int{200, 200, 200, 200}) {
		t.Errorf("the four: %v", all)
	}
}

func TestAReaderWhoHangsUpIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := start(t, dbtest.SQLite(t).DB)
	_, lines, _ := s.get(t, feed.SnapshotPath)
	ctx, hangUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer hangUp()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+query(lines[0].Begin.Epoch, 0, "30"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := s.Client().Do(req); err == nil {
		res.Body.Close()
		t.Errorf("answered %d", res.StatusCode)
	}
	// Close waits for requests under way; that it returns at once is what goleak and the test's own time would tell.
}
