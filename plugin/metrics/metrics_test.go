package metrics_test

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/metrics"
)

func filled() *metrics.Registry {
	m := metrics.New(func() metrics.Parts {
		return metrics.Parts{
			Redis:   []metrics.Redis{{Address: "redis://r/0", Up: true, Known: true, Lag: 1500 * time.Millisecond, Revocations: 7}, {Address: "redis://r/0"}, {Address: "redis://new/0"}},
			KeySets: []metrics.KeySet{{URL: "https://a/jwks", Loaded: true, Age: time.Minute}, {URL: "https://b/jwks"}},
			Caches:  []metrics.Cache{{"token", 3, 1}, {"token", 2, 0}, {"decision", 0, 4}},
			PDPs:    []metrics.PDP{{"unix:///pdp", true}, {"http://pdp", false}},

			TokenBytes: 4096,
		}
	})
	m.Decided(&guard.Decision{Route: "orders", Code: "allowed", Allowed: true})
	m.Decided(&guard.Decision{Route: "orders", Code: "forbidden"})
	m.Decided(&guard.Decision{Route: "orders", Code: "session_revoked", Observed: true})
	m.Failed("orders", "alive", "session_revoked")
	m.Challenged("login", "solved")
	m.Passed("identify", 3*time.Microsecond)
	m.Passed("no such stage", time.Second)
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

func TestAScrapeTellsWhatWasDecidedAndHowThePartsAre(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	filled().Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	body, err := io.ReadAll(w.Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("status %d, error %v", w.Code, err)
	}
	for _, line := range []string{
		`gatehouse_requests_total{decision="allowed",reason="allowed",route="orders"} 1`,
		`gatehouse_requests_total{decision="denied",reason="forbidden",route="orders"} 1`,
		`gatehouse_requests_total{decision="observed",reason="session_revoked",route="orders"} 1`,
		`gatehouse_challenges_total{result="solved",route="login"} 1`,
		`gatehouse_failed_checks_total{reason="session_revoked",route="orders",stage="alive"} 1`,
		`gatehouse_stage_duration_seconds_bucket{stage="identify",le="5e-06"} 1`,
		`gatehouse_stage_duration_seconds_bucket{stage="identify",le="2.5e-06"} 0`,
		`gatehouse_redis_up{redis="redis://r/0"} 1`, `gatehouse_redis_up{redis="redis://new/0"} 0`,
		`gatehouse_revocation_lag_seconds{redis="redis://r/0"} 1.5`, `gatehouse_revocations{redis="redis://r/0"} 7`,
		`gatehouse_key_set_age_seconds{url="https://a/jwks"} 60`, `gatehouse_key_set_loaded{url="https://b/jwks"} 0`,
		`gatehouse_cache_lookups_total{cache="token",result="hit"} 5`, `gatehouse_cache_lookups_total{cache="decision",result="miss"} 4`,
		`gatehouse_pdp_up{pdp="http://pdp"} 0`, `gatehouse_token_memory_bytes 4096`,
	} {
		if !strings.Contains(string(body), line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	for _, line := range []string{`gatehouse_revocation_lag_seconds{redis="redis://new/0"}`, `gatehouse_key_set_age_seconds{url="https://b/jwks"}`} {
		if strings.Contains(string(body), line) {
			t.Errorf("%s, of which nothing is known", line)
		}
	}
}

func TestEveryStageHasItsHistogram(t *testing.T) {
	t.Parallel()
	m := metrics.New(func() metrics.Parts { return metrics.Parts{} })
	if n, err := testutil.GatherAndCount(m.Gatherer(), "gatehouse_stage_duration_seconds"); err != nil || n != len(guard.Stages()) {
		t.Errorf("%d histograms, error %v", n, err)
	}
}
