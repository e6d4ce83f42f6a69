package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/kongfile"
)

// pool balances over the targets of one upstream, or over the one host of a service that names none.
type pool struct {
	name string
	spec kongfile.Healthchecks
	log  *slog.Logger

	mu      sync.Mutex
	targets []*target
}

type target struct {
	name    string // host:port as kong.yml has it
	weight  int
	current int // of smooth weighted round robin
	sick    bool

	successes, httpFailures, tcpFailures, timeouts int
}

// verdicts on one try of a target.
type outcome int

const (
	answered outcome = iota
	refused          // no connection
	timedOut
)

func newPool(u kongfile.Upstream, log *slog.Logger) *pool {
	p := &pool{name: u.Name, spec: u.Healthchecks, log: log}
	for _, t := range u.Targets {
		weight := 100
		if t.Weight != nil {
			weight = *t.Weight
		}
		p.targets = append(p.targets, &target{name: t.Target, weight: weight})
	}
	return p
}

// next picks a healthy target, one that tried does not hold while there is such a one. It answers nil when all are sick.
func (p *pool) next(tried []*target) *target {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.pick(func(t *target) bool { return !slices.Contains(tried, t) }); t != nil {
		return t
	}
	return p.pick(func(*target) bool { return true })
}

func (p *pool) pick(allowed func(*target) bool) *target {
	var best *target
	total := 0
	for _, t := range p.targets {
		if t.sick || t.weight == 0 || !allowed(t) {
			continue
		}
		t.current += t.weight
		total += t.weight
		if best == nil || t.current > best.current {
			best = t
		}
	}
	if best != nil {
		best.current -= total
	}
	return best
}

// passive counts what a client's request saw.
func (p *pool) passive(t *target, how outcome, status int) {
	p.count(t, p.spec.Passive.Healthy, p.spec.Passive.Unhealthy, how, status)
}

func (p *pool) count(t *target, ok kongfile.Healthy, bad kongfile.Unhealthy, how outcome, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := t.sick
	reached := func(counter *int, limit int) bool {
		*counter++
		t.successes = 0
		return limit > 0 && *counter >= limit
	}
	switch {
	case how == refused:
		t.sick = reached(&t.tcpFailures, bad.TCPFailures) || t.sick
	case how == timedOut:
		t.sick = reached(&t.timeouts, bad.Timeouts) || t.sick
	case slices.Contains(bad.Statuses(), status):
		t.sick = reached(&t.httpFailures, bad.HTTPFailures) || t.sick
	case slices.Contains(ok.Statuses(), status):
		t.successes++
		t.httpFailures, t.tcpFailures, t.timeouts = 0, 0, 0
		if ok.Successes > 0 && t.successes >= ok.Successes {
			t.sick = false
		}
	}
	if t.sick != before {
		p.log.Warn("target changed its health", "upstream", p.name, "target", t.name, "healthy", !t.sick)
	}
}

// run probes the targets until ctx ends.
func (p *pool) run(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	a := p.spec.Active
	if a.Healthy.Interval <= 0 && a.Unhealthy.Interval <= 0 {
		return
	}
	timeout := seconds(a.Timeout)
	if timeout == 0 {
		timeout = time.Second
	}
	tr := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	probe := &http.Client{
		Transport:     tr,
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, t := range p.targets {
		wg.Go(func() {
			for {
				p.mu.Lock()
				wait := seconds(a.Healthy.Interval)
				if t.sick {
					wait = seconds(a.Unhealthy.Interval)
				}
				p.mu.Unlock()
				if wait <= 0 {
					wait = time.Second // this state is not probed; look again when the other may have come
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				p.probe(ctx, probe, dial, t, timeout)
			}
		})
	}
}

func (p *pool) probe(ctx context.Context, c *http.Client, dial func(context.Context, string, string) (net.Conn, error), t *target, timeout time.Duration) {
	a := p.spec.Active
	p.mu.Lock()
	due := a.Healthy.Interval > 0 && !t.sick || a.Unhealthy.Interval > 0 && t.sick
	p.mu.Unlock()
	if !due {
		return
	}
	if a.Type == "tcp" {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		conn, err := dial(ctx, "tcp", t.name)
		if err != nil {
			p.count(t, a.Healthy, a.Unhealthy, outcomeOf(err), 0)
			return
		}
		_ = conn.Close() // it has served its purpose
		p.count(t, a.Healthy, a.Unhealthy, answered, http.StatusOK)
		return
	}
	path := a.HTTPPath
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.name+path, nil)
	if err != nil {
		return
	}
	resp, err := c.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			p.count(t, a.Healthy, a.Unhealthy, outcomeOf(err), 0)
		}
		return
	}
	_ = resp.Body.Close() // only the status counts
	status := resp.StatusCode
	p.count(t, a.Healthy, a.Unhealthy, answered, status)
}

func outcomeOf(err error) outcome {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return timedOut
	}
	return refused
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
