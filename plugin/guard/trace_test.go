package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// tracer writes down what it is told.
type tracer struct{ told []string }

type stageKey struct{}

func (t *tracer) tell(format string, args ...any) {
	t.told = append(t.told, fmt.Sprintf(format, args...))
}

func (t *tracer) Begin(ctx context.Context, traceparent string) (context.Context, guard.Trace) {
	t.tell("begin %q", traceparent)
	return ctx, t
}
func (t *tracer) ID() string          { return strings.Repeat("a", 32) }
func (t *tracer) Traceparent() string { return "ours" }
func (t *tracer) Stage(ctx context.Context, name string) (context.Context, func(string, bool)) {
	return context.WithValue(ctx, stageKey{}, name), func(reason string, broken bool) { t.tell("%s %q %v", name, reason, broken) }
}
func (t *tracer) End(v *guard.Verdict) { t.tell("end %s %d", v.Decision.Code, v.Status) }

func traced(t *testing.T, w *world, change func(*guard.Config)) (*guard.Guard, *tracer) {
	t.Helper()
	tr := &tracer{}
	return build(t, w, change, func(p *guard.Parts) { p.Tracer = tr }), tr
}

func TestEachStageThatDoesSomethingIsTraced(t *testing.T) {
	t.Parallel()
	g, tr := traced(t, calm(), func(c *guard.Config) {
		c.Challenge = guard.Challenge{When: guard.Always, Action: "a", Secret: "s", MaxNumber: 1, TTL: time.Minute}
	})
	v := g.Check(t.Context(), request(func(r *guard.Request) {
		r.Header["traceparent"] = []string{"theirs"}
		r.Header["x-gatehouse-challenge"] = []string{"solved"}
	}))
	want := []string{`begin "theirs"`, `identify "" false`, `alive "" false`, `limit "" false`, `challenge "" false`, `authorize "" false`, `forward "" false`, "end allowed 0"}
	if !slices.Equal(tr.told, want) {
		t.Errorf("told %q", tr.told)
	}
	if v.SetHeaders["Traceparent"] != "ours" || v.Decision.TraceID != tr.ID() {
		t.Errorf("the upstream is told %q, the log %q", v.SetHeaders["Traceparent"], v.Decision.TraceID)
	}
	g, tr = traced(t, calm(), func(c *guard.Config) {
		c.Identify, c.Limits, c.Authorize = guard.None, nil, false
	})
	g.Check(t.Context(), request(nil))
	if want := []string{`begin ""`, `forward "" false`, "end allowed 0"}; !slices.Equal(tr.told, want) {
		t.Errorf("told %q of a route that asks for nothing", tr.told)
	}
}

// The decision point is asked within the span of the stage that asks it.
func TestAStageWorksWithinItsSpan(t *testing.T) {
	t.Parallel()
	w := &staged{world: calm()}
	g := build(t, w.world, nil, func(p *guard.Parts) {
		p.Decider, p.Limiter, p.Verifier, p.Revocations, p.Tracer = w, w, w, w, &tracer{}
	})
	g.Check(t.Context(), request(nil))
	if want := []any{"identify", "limit", "authorize"}; !slices.Equal(w.within, want) {
		t.Errorf("within %v", w.within)
	}
}

type staged struct {
	*world
	within []any
}

func (s *staged) Verify(ctx context.Context, token string) (principal.Principal, error) {
	s.within = append(s.within, ctx.Value(stageKey{}))
	return s.world.Verify(ctx, token)
}

func (s *staged) Take(ctx context.Context, id string, keys []limit.Key) (limit.Result, error) {
	s.within = append(s.within, ctx.Value(stageKey{}))
	return s.world.Take(ctx, id, keys)
}

func (s *staged) Decide(ctx context.Context, r authzen.Request) (authzen.Response, error) {
	s.within = append(s.within, ctx.Value(stageKey{}))
	return s.world.Decide(ctx, r)
}

func TestATraceEndsWhateverHappens(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		decide func(authzen.Request) (authzen.Response, error)
		change func(*guard.Request)
		want   []string // the last two
	}{
		"denied":     {decide: func(authzen.Request) (authzen.Response, error) { return authzen.Response{}, nil }, want: []string{`authorize "forbidden" false`, "end forbidden 403"}},
		"broken":     {decide: func(authzen.Request) (authzen.Response, error) { return authzen.Response{}, errors.New("x") }, want: []string{`authorize "guard_failed" true`, "end guard_failed 500"}},
		"panicking":  {decide: func(authzen.Request) (authzen.Response, error) { panic("x") }, want: []string{`authorize "guard_failed" true`, "end guard_failed 500"}},
		"unreadable": {change: func(r *guard.Request) { r.Malformed = "x" }, want: []string{`begin ""`, "end bad_request 400"}},
		"of two traces": {change: func(r *guard.Request) {
			r.Malformed, r.Header["traceparent"] = "x", []string{"a", "b"}
		}, want: []string{`begin ""`, "end bad_request 400"}},
	} {
		w := calm()
		if c.decide != nil {
			w.decide = c.decide
		}
		g, tr := traced(t, w, nil)
		g.Check(t.Context(), request(c.change))
		if got := tr.told[max(len(tr.told)-2, 0):]; !slices.Equal(got, c.want) {
			t.Errorf("%s: told %q", name, tr.told)
		}
	}
}

// W3C Trace Context section 3.3: what belongs to a traceparent goes with it.
func TestATracestateGoesWithItsTraceparentOnly(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for parent, dropped := range map[string]bool{good: false, strings.ToUpper(good): true, "": true} {
		v := build(t, calm(), nil).Check(t.Context(), request(func(r *guard.Request) {
			r.Header["tracestate"] = []string{"v=1"}
			if parent != "" {
				r.Header["traceparent"] = []string{parent}
			}
		}))
		if state, set := v.SetHeaders["Tracestate"]; set != dropped || state != "" {
			t.Errorf("%q: tracestate %q, %v", parent, state, set)
		}
	}
}
