// Package metrics tells Prometheus what the decision point does: how it decided and how long that took, whom it refused, and how
// its policies and look-ups are. It labels by what policies and configuration name, never by what a caller sends.
package metrics

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// buckets span a decision from memory to one whose look-up used all of its time, in seconds.
var buckets = []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1}

// Registry counts what the server does (server.Meter) and asks the engine how it is when it is scraped. It is safe for
// concurrent use.
type Registry struct {
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec
	took      *prometheus.HistogramVec
	shed      *prometheus.CounterVec
	strangers prometheus.Counter
	known     sync.Map // series → *decided
}

// New makes a registry. engine is asked at each scrape.
func New(stats func() engine.Stats, now func() time.Time) *Registry {
	r := &Registry{
		registry: prometheus.NewRegistry(),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_pdp_decisions_total",
			Help: "Decisions by api (authzen, data, search, envoy) and outcome: permit, deny, not_applicable (no rule), indeterminate (failed), document (told by the Data API or a search).",
		}, []string{"api", "outcome"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gatehouse_pdp_decision_duration_seconds", Help: "How long a decision took, its look-ups included, by api.", Buckets: buckets,
		}, []string{"api"}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_pdp_shed_requests_total", Help: "Requests refused by 503 because too many were being decided on, by api.",
		}, []string{"api"}),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gatehouse_pdp_unknown_callers_total", Help: "Requests refused by 401 because it was not known who asked.",
		}),
	}
	r.registry.MustRegister(r.decisions, r.took, r.shed, r.strangers, collector{stats, now},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Decided implements server.Meter.
func (r *Registry) Decided(api, outcome string, took time.Duration) {
	of := series{api, outcome}
	s, ok := r.known.Load(of)
	if !ok {
		s, _ = r.known.LoadOrStore(of, &decided{r.decisions.WithLabelValues(api, outcome), r.took.WithLabelValues(api)})
	}
	d, _ := s.(*decided)
	d.count.Inc()
	d.took.Observe(took.Seconds())
}

// series are the labels of what is counted of decisions; there are few.
type series struct{ api, outcome string }

// decided is what they name, since to find it by its labels takes longer than to count.
type decided struct {
	count prometheus.Counter
	took  prometheus.Observer
}

// Shed implements server.Meter.
func (r *Registry) Shed(api string) { r.shed.WithLabelValues(api).Inc() }

// Stranger implements server.Meter.
func (r *Registry) Stranger() { r.strangers.Inc() }

// Register adds what tells of other parts.
func (r *Registry) Register(c prometheus.Collector) { r.registry.MustRegister(c) }

// Handler serves the metrics, for a private address (S69).
func (r *Registry) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError})
}

// Gatherer is for tests.
func (r *Registry) Gatherer() prometheus.Gatherer { return r.registry }

// collector asks the engine when it is scraped.
type collector struct {
	stats func() engine.Stats
	now   func() time.Time
}

var (
	info   = prometheus.NewDesc("gatehouse_pdp_policy_info", "The revision of the policies that decide; always 1.", []string{"revision"}, nil)
	age    = prometheus.NewDesc("gatehouse_pdp_policy_age_seconds", "How long ago the policies that decide came into force.", nil, nil)
	newest = prometheus.NewDesc("gatehouse_pdp_policy_newest", "Whether the newest policies decide (1) or do not load, and older ones do (0).", nil, nil)
	loads  = prometheus.NewDesc("gatehouse_pdp_policy_loads_total", "Policies by result: loaded, or failed and not in force.", []string{"result"}, nil)

	confirmed = prometheus.NewDesc("gatehouse_pdp_source_confirmed_age_seconds", "How long ago a source of policies last said that what decides is its newest.", []string{"source"}, nil)
	latest    = prometheus.NewDesc("gatehouse_pdp_source_newest", "Whether the newest policies of a source decide (1).", []string{"source"}, nil)
	away      = prometheus.NewDesc("gatehouse_pdp_source_away", "Whether a source of policies cannot be asked (1).", []string{"source"}, nil)
	unkept    = prometheus.NewDesc("gatehouse_pdp_source_unkept", "Whether what decides of a source could not be kept for the next start (1).", []string{"source"}, nil)
	refused   = prometheus.NewDesc("gatehouse_pdp_source_failures_total", "Policies of a source that did not come into force, by the step that refused them: read, signature, roots, parse, lookups, compile, schema, tests, prepare, golden, budget or probe.",
		[]string{"source", "step"}, nil)

	asked = prometheus.NewDesc("gatehouse_pdp_lookups_total", "Look-ups by resource type and result: remembered, found, missing (there is no such object) or failed.",
		[]string{"resource_type", "result"}, nil)
	evaluated = prometheus.NewDesc("gatehouse_pdp_evaluations_total", "Decisions and documents that were not remembered, by what answered: native, partial or topdown.", []string{"by"}, nil)
	left      = prometheus.NewDesc("gatehouse_pdp_native_left_total", "Questions that native code left to OPA.", nil, nil)
	wrong     = prometheus.NewDesc("gatehouse_pdp_forms_dropped_total", "Times that a fast form of the policies answered otherwise than OPA would have, and was dropped.", nil, nil)
	late      = prometheus.NewDesc("gatehouse_pdp_late_evaluations_total", "Evaluations that were ended because they took too long.", nil, nil)
	barred    = prometheus.NewDesc("gatehouse_pdp_refused_questions_total", "Questions that were not evaluated because those of their kind (resource type and action) took too long, one after the other.", nil, nil)
	shut      = prometheus.NewDesc("gatehouse_pdp_refused_kinds", "Kinds of questions that are refused now because they take too long.", nil, nil)
	recalled  = prometheus.NewDesc("gatehouse_pdp_cache_lookups_total", "Decisions by whether they were remembered (hit) or had to be made (miss).", []string{"result"}, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{info, age, newest, loads, confirmed, latest, away, unkept, refused, asked, evaluated, left, wrong, late, barred, shut, recalled} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	if !s.Since.IsZero() {
		gauge(info, 1, s.Revision)
		gauge(age, c.now().Sub(s.Since).Seconds())
	}
	for _, of := range s.Sources {
		if !of.Confirmed.IsZero() {
			gauge(confirmed, c.now().Sub(of.Confirmed).Seconds(), of.Name)
		}
		gauge(latest, number(of.Newest), of.Name)
		gauge(away, number(of.Away), of.Name)
		gauge(unkept, number(of.Unkept), of.Name)
		for step, n := range of.Failures {
			counter(refused, n, of.Name, step)
		}
	}
	gauge(newest, number(s.Newest))
	counter(loads, s.Loads, "loaded")
	counter(loads, s.Failures, "failed")
	counter(recalled, s.Hits, "hit")
	counter(recalled, s.Misses, "miss")
	for by, n := range s.Evaluations {
		counter(evaluated, n, by)
	}
	counter(left, s.Left)
	counter(wrong, s.Wrong)
	counter(late, s.Late)
	counter(barred, s.Refused)
	gauge(shut, float64(s.Shut))
	for of, n := range s.Lookups {
		counter(asked, n, of.Kind, string(of.Result))
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
