package pdpfaults_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/e2e/asking"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
)

const (
	workers = 4
	pace    = 20 * time.Millisecond // each worker asks 50 times a second at most
	// longest is what any answer may take. It is for a machine that does much else; the figures are in the test's log.
	longest = 3 * time.Second
	// crowded is how late a timer of the test's own is where the machine, and not the decision point, has no time. What fails then is
	// excused, if it is rare.
	crowded = 40 * time.Millisecond
)

// load asks all the time.
type load struct {
	t      *testing.T
	url    atomic.Pointer[string]
	http   *http.Client
	asking *asking.Load
	end    func()

	mu       sync.Mutex
	wrong    map[string]int
	took     []time.Duration
	late     time.Time // when the machine was crowded last
	excused  int
	revision map[string]int
}

// question is one whose answer is known.
type question struct {
	path, body string
	want       string // in what is answered, without its ids
}

// ask makes the nth question. No two are alike, so that nothing is remembered.
func questionOf(n int64) question {
	about := func(kind, owner string, amount int64) string {
		return fmt.Sprintf(`"subject":{"type":"user","id":"u%d"},"action":{"name":"GET"},"resource":{"type":%q,"id":"%d","properties":{"owner":%q,"amount":%d}}`, n, kind, n, owner, amount)
	}
	own, other := fmt.Sprintf("u%d", n), fmt.Sprintf("u%d", n+1)
	const evaluation, evaluations = "/access/v1/evaluation", "/access/v1/evaluations"
	switch n % 6 {
	case 0:
		return question{evaluation, "{" + about("order", own, n) + "}", "true [owner]"}
	case 1:
		return question{evaluation, "{" + about("order", other, n) + "}", "false [no_rule]"}
	case 2:
		return question{evaluation, "{" + about("report", other, n) + "}", "true [kind]"}
	case 3:
		return question{evaluation, "{" + about("nothing", own, n) + "}", "false [no_rule]"}
	case 4:
		return question{evaluations, "{" + about("order", own, n) + `,"evaluations":[{},{"resource":{"type":"order","id":"1","properties":{"owner":"nobody"}}}]}`, "true [owner], false [no_rule]"}
	default:
		return question{"/v1/data/gatehouse/authz/decision", fmt.Sprintf(`{"input":{"subject":{"id":%q},"resource":{"type":"order","properties":{"owner":%q}}}}`, own, own), "true [owner]"}
	}
}

// begin starts to ask p.
func begin(t *testing.T, p *program) *load {
	t.Helper()
	l := &load{t: t, wrong: map[string]int{}, revision: map[string]int{}, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}, Timeout: 2 * longest}}
	l.url.Store(&p.url)
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		const beat = 10 * time.Millisecond
		tick := time.NewTimer(beat)
		for {
			due := time.Now().Add(beat)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if now := time.Now(); now.Sub(due) > crowded {
				l.mu.Lock()
				l.late = now
				l.mu.Unlock()
			}
			tick.Reset(beat)
		}
	})
	l.asking = asking.Begin(t, workers, pace, l.ask)
	l.end = sync.OnceFunc(func() {
		l.asking.End()
		close(stop)
		running.Wait()
		l.http.CloseIdleConnections()
	})
	t.Cleanup(l.end)
	l.rounds(1)
	return l
}

func (l *load) ask(n int64) {
	q, began := questionOf(n), time.Now()
	got, revision, err := l.answer(q)
	took := time.Since(began)
	if err != nil {
		got = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	l.revision[revision]++
	switch {
	case got == q.want && took <= longest:
	case got == q.want:
		l.wrong[fmt.Sprintf("%s took longer than %v", q.path, longest)]++
	case strings.Contains(got, "true") && !strings.Contains(q.want, "true"):
		l.wrong["WRONGLY ALLOWED: "+q.path+" "+q.want+": "+got]++
	case err != nil && time.Since(l.late) < took+time.Second:
		l.excused++
	default:
		l.wrong[q.path+" "+q.want+": "+got]++
	}
}

func (l *load) answer(q question) (got, revision string, err error) {
	res, err := l.http.Post(*l.url.Load()+q.path, "application/json", strings.NewReader(q.body))
	if err != nil {
		return "", "", fmt.Errorf("no answer: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", "", fmt.Errorf("half an answer: %w", err)
	}
	type decision struct {
		Decision, Allow bool
		Reasons         []string
		Context         struct {
			Reasons  []string
			Revision string
			Error    *struct{ Code string }
		}
	}
	var a struct {
		decision
		Evaluations []decision
		Result      *decision
	}
	if err := json.Unmarshal(body, &a); err != nil || res.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("%d %s", res.StatusCode, noIDs(body))
	}
	one := func(d decision) string {
		if d.Context.Error != nil {
			err = fmt.Errorf("failed: %s", d.Context.Error.Code)
		}
		return fmt.Sprint(d.Decision || d.Allow, " ", append(d.Reasons, d.Context.Reasons...))
	}
	switch {
	case a.Result != nil:
		return one(*a.Result), "", err
	case a.Evaluations != nil:
		var all []string
		for _, d := range a.Evaluations {
			all = append(all, one(d))
		}
		return strings.Join(all, ", "), a.Evaluations[0].Context.Revision, err
	}
	return one(a.decision), a.Context.Revision, err
}

// noIDs is what an error says, without what is of one request.
func noIDs(body []byte) string {
	var p struct{ Code string }
	if json.Unmarshal(body, &p) == nil && p.Code != "" {
		return p.Code
	}
	return string(bytes.TrimSpace(body[:min(200, len(body))]))
}

// rounds waits until every question has been asked as many times more.
func (l *load) rounds(n int64) {
	end := l.asking.Begun() + 6*n + workers
	await.That(l.t, "the load goes on", func() bool { return l.asking.Begun() >= end })
}

// finish ends the load and tells what it found.
func (l *load) finish() {
	l.t.Helper()
	l.end()
	for _, what := range slices.Sorted(maps.Keys(l.wrong)) {
		l.t.Errorf("%d times %s", l.wrong[what], what)
	}
	slices.Sort(l.took)
	n := len(l.took)
	if l.excused*100 > n {
		l.t.Errorf("%d of %d failed, though the machine was crowded", l.excused, n)
	}
	l.t.Logf("%d questions: median %v, p99 %v, longest %v; %d lost while the machine was crowded", n, l.took[n/2], l.took[n*99/100], l.took[n-1], l.excused)
}
