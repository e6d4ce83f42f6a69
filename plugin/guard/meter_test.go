package guard_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// meter writes down what it is told.
type meter struct{ passed, failed, decided, behind, challenged []string }

func (m *meter) Passed(stage string, _ time.Duration) { m.passed = append(m.passed, stage) }
func (m *meter) Failed(route, stage, reason string) {
	m.failed = append(m.failed, route+" "+stage+" "+reason)
}
func (m *meter) Challenged(route, result string) {
	m.challenged = append(m.challenged, route+" "+result)
}
func (m *meter) Behind(route string) { m.behind = append(m.behind, route) }
func (m *meter) Decided(d *guard.Decision) {
	m.decided = append(m.decided, fmt.Sprintln(d.Route, d.Stage, d.Code, d.Allowed, d.Observed, d.Subject))
}

func metered(t *testing.T, w *world, change func(*guard.Config)) (*guard.Guard, *meter) {
	t.Helper()
	m := &meter{}
	return build(t, w, change, func(p *guard.Parts) { p.Meter = m }), m
}

// In observe mode the log and the metrics tell who would have been refused, by route and reason, and all that was wrong.
func TestObserveTellsWhoWouldHaveBeenRefused(t *testing.T) {
	t.Parallel()
	w := calm()
	w.decide = func(authzen.Request) (authzen.Response, error) { return authzen.Response{}, nil }
	w.revoked = true
	g, m := metered(t, w, func(c *guard.Config) { c.Mode = guard.Observe })
	if v := g.Check(t.Context(), request(nil)); !v.Forward {
		t.Fatalf("stopped: %s", v.Body)
	}
	if want := []string{"orders alive session_revoked", "orders authorize forbidden"}; !slices.Equal(m.failed, want) {
		t.Errorf("failed %q, want %q", m.failed, want)
	}
	if len(m.decided) != 1 || m.decided[0] != "orders alive session_revoked false true u1\n" {
		t.Errorf("decided %q", m.decided)
	}
	for _, word := range []string{`"code":"session_revoked"`, `"code":"forbidden"`, `"route":"orders"`, `"subject":"u1"`, `"observed":true`} {
		if !strings.Contains(w.log.String(), word) {
			t.Errorf("no %s in %s", word, w.log.String())
		}
	}
}

func TestEveryRequestIsCountedOnce(t *testing.T) {
	t.Parallel()
	w := calm()
	g, m := metered(t, w, nil)
	g.Check(t.Context(), request(nil))
	g.Check(t.Context(), request(func(r *guard.Request) { r.Path = "/nowhere" }))
	want := []string{"orders forward allowed true false u1\n", "orders authorize resource_unknown false false u1\n"}
	if !slices.Equal(m.decided, want) {
		t.Errorf("decided %q", m.decided)
	}
	known := guard.Stages()
	for _, stage := range m.passed {
		if !slices.Contains(known, stage) {
			t.Errorf("stage %q is not listed", stage)
		}
	}
}
