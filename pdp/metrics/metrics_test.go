package metrics_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
	"github.com/gatehouse-auth/gatehouse/pdp/metrics"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

var _ server.Meter = (*metrics.Registry)(nil)

func filled() *metrics.Registry {
	began := time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC)
	m := metrics.New(func() engine.Stats {
		return engine.Stats{
			Revision: "r-1", Since: began, Loads: 2, Failures: 1, Hits: 9, Misses: 4, Evaluations: map[string]uint64{"native": 4}, Left: 2, Wrong: 1,
			Sources: []engine.SourceStats{
				{Name: "authz", Confirmed: began.Add(30 * time.Second), Newest: true, Failures: map[string]uint64{"signature": 2}},
				{Name: "data", Away: true},
			},
			Lookups: map[lookup.Count]uint64{{Kind: "order", Result: lookup.Found}: 3, {Kind: "order", Result: lookup.Failed}: 1},
		}
	}, func() time.Time { return began.Add(90 * time.Second) })
	m.Decided("authzen", "permit", 30*time.Microsecond)
	m.Decided("authzen", "indeterminate", time.Second)
	m.Decided("data", "document", time.Millisecond)
	m.Shed("authzen")
	m.Stranger()
	m.Register(metrics.Directory(func() directory.Stats {
		return directory.Stats{Loaded: true, Number: 7, Confirmed: began, Subjects: 3, Bytes: 99, Away: true, Loads: map[string]uint64{"changes": 2}, Failures: map[string]uint64{"away": 1}}
	}, func() time.Time { return began.Add(90 * time.Second) }))
	return m
}

func TestTheMetricsAreAsPrometheusWantsThem(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(filled().Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestAScrapeTellsHowItDecidedAndHowThePoliciesAre(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	filled().Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	for _, line := range []string{
		"gatehouse_pdp_directory_confirmed_age_seconds 90", "gatehouse_pdp_directory_revision 7", `gatehouse_pdp_directory_entries{kind="subjects"} 3`, "gatehouse_pdp_directory_away 1",
		`gatehouse_pdp_directory_loads_total{kind="changes"} 2`, `gatehouse_pdp_directory_failures_total{kind="away"} 1`,
		`gatehouse_pdp_decisions_total{api="authzen",outcome="permit"} 1`,
		`gatehouse_pdp_decisions_total{api="authzen",outcome="indeterminate"} 1`,
		`gatehouse_pdp_decisions_total{api="data",outcome="document"} 1`,
		`gatehouse_pdp_decision_duration_seconds_bucket{api="authzen",le="5e-05"} 1`,
		`gatehouse_pdp_decision_duration_seconds_bucket{api="authzen",le="2.5e-05"} 0`,
		`gatehouse_pdp_shed_requests_total{api="authzen"} 1`,
		`gatehouse_pdp_unknown_callers_total 1`,
		`gatehouse_pdp_policy_info{revision="r-1"} 1`,
		`gatehouse_pdp_policy_age_seconds 90`,
		`gatehouse_pdp_policy_newest 0`,
		`gatehouse_pdp_policy_loads_total{result="loaded"} 2`,
		`gatehouse_pdp_policy_loads_total{result="failed"} 1`,
		`gatehouse_pdp_source_confirmed_age_seconds{source="authz"} 60`,
		`gatehouse_pdp_source_newest{source="authz"} 1`,
		`gatehouse_pdp_source_newest{source="data"} 0`,
		`gatehouse_pdp_source_away{source="data"} 1`,
		`gatehouse_pdp_source_failures_total{source="authz",step="signature"} 2`,
		`gatehouse_pdp_evaluations_total{by="native"} 4`,
		`gatehouse_pdp_native_left_total 2`,
		`gatehouse_pdp_forms_dropped_total 1`,
		`gatehouse_pdp_cache_lookups_total{result="hit"} 9`,
		`gatehouse_pdp_cache_lookups_total{result="miss"} 4`,
		`gatehouse_pdp_lookups_total{resource_type="order",result="found"} 3`,
		`gatehouse_pdp_lookups_total{resource_type="order",result="failed"} 1`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}
