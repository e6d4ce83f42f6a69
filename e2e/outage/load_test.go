package outage_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/e2e/asking"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// phase is how far an outage has come.
type phase int32

const (
	starting  phase = iota // the edge comes up
	well                   // nothing but what is wanted
	away                   // from just before the fault is brought about until it ends
	returning              // until everything has been answered as is wanted once more
	again                  // as well
)

func (p phase) String() string {
	return [...]string{"starting", "well", "away", "returning", "again"}[p]
}

// allowed is what a request got that reached the upstream and was answered by it; else it got a problem's code.
const allowed = "allowed"

// pluginAway is the gateway's own answer, as Kong's, while it has no plugin to ask.
const pluginAway = "plugin_away"

// codes are the problems that the edge is documented to answer here, and their status.
func codes() map[string]int {
	return map[string]int{
		"bad_path": 400, "token_missing": 401, "token_invalid": 401, "token_expired": 401, "session_revoked": 401, "forbidden": 403,
		"token_bound": 401, "dpop_proof_invalid": 401, "challenge_required": 403, "challenge_invalid": 403, "proofs_unavailable": 503, "challenge_unavailable": 503,
		"revocations_unknown": 503, "revocations_behind": 503, "limits_unavailable": 503, "policy_unavailable": 503, "keys_unavailable": 503,
	}
}

// kind is one sort of request that the load sends over and over.
type kind struct {
	name   string
	method string   // "" for GET
	paths  []string // each in its turn
	token  func() string
	show   func(*http.Request) // sets further headers; nil for none
	want   string              // while all is well: allowed, or a code
	from   phase               // it is not sent before
	// after is what it gets once the outage is over, if that is not what it got before; over tells since when it must no longer
	// be allowed at a path, zero for not yet.
	after string
	since phase // in which after is what is wanted; returning unless it says another
	over  func(path string) time.Time
	may   []string // what else it may be answered during the outage; nil for what the outage says of the path
}

func (k *kind) wanted(p phase) string {
	if k.after != "" && (p >= returning || k.since != starting && p >= k.since) {
		return k.after
	}
	return k.want
}

// sight is one answer.
type sight struct {
	in              phase
	kind, path, got string
}

// load sends all kinds by turns and judges each answer.
type load struct {
	t     *testing.T
	url   string
	kinds []kind
	may   map[string][]string      // what may be answered during the outage, by path; "" for paths that are not there
	most  map[string]time.Duration // how long after its begin a path may still allow anything

	http   *http.Client
	asking *asking.Load
	in     atomic.Int32 // phase
	begun  atomic.Int64 // UnixNano: when the fault was about to be brought about

	mu      sync.Mutex
	seen    map[sight]int
	wrong   map[string]int // what must not have happened
	slow    time.Time      // when a request last took longer than one has for Redis, in this phase
	missed  map[string]int // requests lost by missed deadlines
	longest time.Duration
	sent    int

	end  func()
	fate map[string]*atomic.Int64 // requests that reached the upstream, by kind
}

const (
	workers = 8
	// pace keeps a row from taking the processors that others need: each worker sends 20 requests a second at most.
	pace = 50 * time.Millisecond
	// hang is when a request counts as unanswered. The longest deadline on a request's way is the 5 s of a fetch of keys.
	hang = 20 * time.Second
)

func (l *load) start() {
	l.missed = map[string]int{}
	l.seen, l.wrong, l.fate = map[sight]int{}, map[string]int{}, map[string]*atomic.Int64{}
	for _, k := range l.kinds {
		l.fate[k.name] = new(atomic.Int64)
	}
	l.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}, Timeout: hang}
	l.asking = asking.Begin(l.t, workers, pace, l.send)
	l.end = sync.OnceFunc(func() {
		l.asking.End()
		l.http.CloseIdleConnections()
	})
	l.t.Cleanup(l.end)
}

func (l *load) send(n int64) {
	k := &l.kinds[n%int64(len(l.kinds))]
	path := k.paths[n/int64(len(l.kinds))%int64(len(k.paths))]
	in, at := phase(l.in.Load()), time.Now()
	if in < k.from {
		return
	}
	got, err := l.ask(k, path, strconv.FormatInt(n, 10))
	if err != nil && got != allowed {
		got = err.Error()
	}
	l.judge(k, sight{in, k.name, path, got}, phase(l.in.Load()), at, err)
}

// ask answers what the request got. Whatever is no answer of a documented form is an error.
func (l *load) ask(k *kind, path, id string) (string, error) {
	req, err := http.NewRequest(k.method, l.url+path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Load", k.name)
	req.Header.Set("X-Load-Id", id)
	req.Header.Set(principal.HeaderSubject, "root") // which the edge overwrites
	who := ""
	if token := k.token(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
		who = me
	}
	if k.show != nil {
		k.show(req)
	}
	res, err := l.http.Do(req)
	if err != nil {
		return "", fmt.Errorf("no answer: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("half an answer: %w", err)
	}
	if res.StatusCode == http.StatusOK {
		if string(body) != id+" "+who {
			return allowed, fmt.Errorf("the upstream saw %q", body)
		}
		return allowed, nil
	}
	if res.StatusCode == http.StatusInternalServerError && strings.Contains(string(body), "An unexpected error occurred") {
		return pluginAway, nil
	}
	var p web.ProblemDocument
	if err := json.Unmarshal(body, &p); err != nil || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") {
		return "", fmt.Errorf("status %d %.200q", res.StatusCode, body)
	}
	if codes()[p.Code] != res.StatusCode || p.Status != res.StatusCode || res.Header.Get("X-Gatehouse-Decision") == "" || len(p.TraceID) != 32 {
		return "", fmt.Errorf("status %d, decision %q, %.300q", res.StatusCode, res.Header.Get("X-Gatehouse-Decision"), body)
	}
	return p.Code, nil
}

// judge is the oracle.
func (l *load) judge(k *kind, s sight, until phase, at time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	took := time.Since(at)
	l.longest = max(l.longest, took)
	if s.in == phase(l.in.Load()) && took >= 250*time.Millisecond {
		l.slow = time.Now()
	}
	calm := s.in == until && (s.in == well || s.in == again)
	if s.in == until {
		l.seen[s]++
	}
	why := ""
	switch {
	case s.got == allowed && k.want != allowed && k.after != allowed:
		why = "WRONGLY ALLOWED"
	case s.got == allowed && k.after != allowed && l.tooLate(k, s, until, at):
		why = "WRONGLY ALLOWED, too late"
	case err != nil:
		why = "not an answer (" + err.Error() + ")"
	case s.got == k.wanted(s.in), s.got == k.wanted(until):
	case calm && !l.excused(s.got, took):
		why = "LOST, while all is well"
	case calm:
	case s.in == starting && (s.got == pluginAway || codes()[s.got] == http.StatusServiceUnavailable):
	case until >= away && slices.Contains(l.permitted(k, s.path), s.got):
	case k.after != "" && until >= away && (s.got == k.after || s.got == k.want): // that was not too late
	case l.excused(s.got, took):
	default:
		why = "undocumented"
	}
	if why != "" {
		l.wrong[fmt.Sprintf("%s: %s %s, sent while %v, answered while %v: %s", why, k.name, s.path, s.in, until, s.got)]++
	}
}

// excused reports whether a request that took so long was lost by a deadline that a crowded machine has missed, or by the breaker
// that other requests' missed deadlines have opened. Only an outage may be the reason for anything else.
func (l *load) excused(code string, took time.Duration) bool {
	missed := false
	switch code {
	case "limits_unavailable", "proofs_unavailable", "challenge_unavailable":
		missed = time.Since(l.slow) < 2*time.Second
	case "policy_unavailable":
		missed = took >= time.Second
	}
	if missed {
		l.missed[code]++
	}
	return missed
}

func (l *load) permitted(k *kind, path string) []string {
	if k.may != nil {
		return k.may
	}
	if may, ok := l.may[path]; ok {
		return may
	}
	return l.may[""]
}

// tooLate reports whether what may be allowed at first was allowed after that.
func (l *load) tooLate(k *kind, s sight, until phase, at time.Time) bool {
	if k.after != "" {
		if s.in == again {
			return true
		}
		if over := k.over(s.path); !over.IsZero() && at.After(over) {
			return true
		}
	}
	most, bounded := l.most[s.path]
	return bounded && s.in == away && until == away && at.After(time.Unix(0, l.begun.Load()).Add(most))
}

// enter begins a phase.
func (l *load) enter(p phase) {
	if p == away {
		l.begun.Store(time.Now().UnixNano())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in.Store(int32(p))
	l.slow = time.Time{}
}

// settled reports whether every kind has been answered at every path as is wanted in this phase.
func (l *load) settled(p phase) func() bool {
	return func() bool { return l.missing(p) == "" }
}

func (l *load) missing(p phase) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.kinds {
		for _, path := range k.paths {
			if k.from <= p && l.seen[sight{p, k.name, path, k.wanted(p)}] == 0 {
				return k.name + " " + path + ": " + k.wanted(p)
			}
		}
	}
	return ""
}

// shown reports whether any kind was answered so at the path while the part is away.
func (l *load) shown(path, got string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.seen {
		if s.in == away && s.path == path && s.got == got {
			return true
		}
	}
	return false
}

// sighted reports whether some answer of the kind was seen in the phase.
func (l *load) sighted(s sight) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[s] > 0
}

// anew forgets what was seen in a phase.
func (l *load) anew(p phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.seen, func(s sight, _ int) bool { return s.in == p })
}

// rounds waits until every kind has been answered as many times more.
func (l *load) rounds(n int64) {
	end := l.asking.Begun() + n*int64(len(l.kinds))
	l.wait("the load goes on", func() bool { return l.asking.Begun() >= end })
}

// lasts waits until the outage has lasted so long, and two rounds more.
func (l *load) lasts(long time.Duration) {
	end := time.Unix(0, l.begun.Load()).Add(long)
	l.wait("the outage lasts", func() bool { return time.Now().After(end) })
	l.rounds(2)
}

// patience is how long an event may take on a machine that has much else to do.
const patience = 60 * time.Second

// wait waits for an event and answers how long it took. Without it the test is over.
func (l *load) wait(what string, holds func() bool) time.Duration {
	l.t.Helper()
	begun := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			l.end()
			l.report()
			l.t.Fatalf("never came true: %s\nmissing: %s\nseen:\n%s", what, l.missing(phase(l.in.Load())), l.summary())
		}
	}
	return time.Since(begun)
}

// finish ends the load and tells what it found.
func (l *load) finish() {
	l.end()
	l.report()
	if l.t.Failed() {
		l.t.Logf("seen:\n%s", l.summary())
	}
	if len(l.missed) > 0 {
		l.t.Logf("the machine was too slow for %v", l.missed)
	}
	l.t.Logf("%d requests, the longest took %v", l.sent, l.longest.Round(time.Millisecond))
}

func (l *load) report() {
	l.t.Helper()
	for _, what := range slices.Sorted(maps.Keys(l.wrong)) {
		l.t.Errorf("%d times %s", l.wrong[what], what)
	}
	for _, k := range l.kinds {
		if n := l.fate[k.name].Load(); n > 0 && k.want != allowed && k.after != allowed {
			l.t.Errorf("WRONGLY ALLOWED: %d requests of %s reached the upstream", n, k.name)
		}
	}
}

func (l *load) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for s, n := range l.seen {
		out = append(out, fmt.Sprintf("%-10v %-24s %-12s %-22s %d", s.in, s.kind, s.path, s.got, n))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// ServeHTTP is the upstream: it says which request it was reached by, and who the edge says has sent it.
func (l *load) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n := l.fate[r.Header.Get("X-Load")]; n != nil {
		n.Add(1)
	}
	_, _ = io.WriteString(w, r.Header.Get("X-Load-Id")+" "+r.Header.Get(principal.HeaderSubject)) // the gateway is gone; there is nobody to tell
}
