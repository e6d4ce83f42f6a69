// Package metrics tells Prometheus what the edge does: which requests it let pass or refused and why, how long each stage
// took, and how its parts are. It labels by what configuration names, never by what a client sends.
package metrics

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// Registry counts what guards do (guard.Meter) and asks the parts how they are when it is scraped. It is safe for concurrent
// use.
type Registry struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	failures   *prometheus.CounterVec
	behind     *prometheus.CounterVec
	challenged *prometheus.CounterVec
	answers    *prometheus.CounterVec
	stages     map[string]prometheus.Observer
}

// buckets span what a stage takes: from a look-up in memory to a decision point at its deadline.
var buckets = []float64{.000001, .0000025, .000005, .00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25}

// New makes a registry. parts is asked at each scrape.
func New(parts func() Parts) *Registry {
	r := &Registry{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_requests_total",
			Help: "Requests by route, decision (allowed, denied, or observed: denied and let pass) and reason (the problem's code).",
		}, []string{"route", "decision", "reason"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_failed_checks_total",
			Help: "Checks that requests did not pass, by route, stage and reason; one request may fail several in observe mode.",
		}, []string{"route", "stage", "reason"}),
		behind: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_behind_requests_total",
			Help: "Requests by route that went on though it was not known which sessions had ended lately.",
		}, []string{"route"}),
		challenged: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_challenges_total",
			Help: "Requests of routes with a challenge, by route and result (calm, cleared, solved, unproved, set, wrong, unchecked).",
		}, []string{"route", "result"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_login_answers_total",
			Help: "Answers of routes with gatehouse-outcome, by route and result (failed: counted as a failed log-in; passed; unknown: failed, but of an unknown address or not counted).",
		}, []string{"route", "result"}),
		stages: map[string]prometheus.Observer{},
	}
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gatehouse_stage_duration_seconds", Help: "How long a request was in a stage, by stage.", Buckets: buckets,
	}, []string{"stage"})
	for _, stage := range guard.Stages() {
		r.stages[stage] = took.WithLabelValues(stage)
	}
	r.registry.MustRegister(
		r.requests, r.failures, r.behind, r.challenged, r.answers, took, collector{parts},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// Decided implements guard.Meter.
func (r *Registry) Decided(d *guard.Decision) {
	r.requests.WithLabelValues(d.Route, d.Outcome(), d.Code).Inc()
}

// Failed implements guard.Meter.
func (r *Registry) Failed(route, stage, reason string) {
	r.failures.WithLabelValues(route, stage, reason).Inc()
}

// Behind implements guard.Meter.
func (r *Registry) Behind(route string) { r.behind.WithLabelValues(route).Inc() }

// Challenged implements guard.Meter.
func (r *Registry) Challenged(route, result string) {
	r.challenged.WithLabelValues(route, result).Inc()
}

// Answered counts what became of an answer that Kong told of.
func (r *Registry) Answered(route, result string) { r.answers.WithLabelValues(route, result).Inc() }

// Passed implements guard.Meter.
func (r *Registry) Passed(stage string, took time.Duration) {
	if o, ok := r.stages[stage]; ok {
		o.Observe(took.Seconds())
	}
}

// Register adds what tells of other parts.
func (r *Registry) Register(c prometheus.Collector) { r.registry.MustRegister(c) }

// Handler serves the metrics, for a private address (S69).
func (r *Registry) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError})
}

// Gatherer is for tests.
func (r *Registry) Gatherer() prometheus.Gatherer { return r.registry }
