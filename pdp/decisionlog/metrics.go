package decisionlog

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// Stats is how a journal is at one moment.
type Stats struct {
	Records map[string]uint64 // made, by outcome
	Dropped uint64            // of these, not spooled and the decision answered (Drop)
	Refused uint64            // of these, not spooled and the decision denied (Block, Fail)
	Spool   spool.Stats
	Sinks   map[string]SinkStats
}

// SinkStats is how one sink is.
type SinkStats struct {
	Shipped  uint64        // records
	Failed   uint64        // deliveries that have to be tried again
	Rejected uint64        // records that were set aside
	Lag      time.Duration // age of the oldest record on its way to the sink
}

// Stats tells how the journal is.
func (j *Journal) Stats() Stats {
	s := Stats{
		Records: map[string]uint64{}, Dropped: j.counts.dropped.Load(), Refused: j.counts.refused.Load(),
		Spool: j.spool.Stats(), Sinks: map[string]SinkStats{},
	}
	for _, outcome := range []string{Permit, Deny, NotApplicable, Indeterminate, Document} {
		s.Records[outcome] = j.counts.of(outcome).Load()
	}
	for _, sh := range j.shippers {
		s.Sinks[sh.name] = SinkStats{sh.shipped.Load(), sh.failed.Load(), sh.rejected.Load(), sh.reader.Lag(j.opts.Now())}
	}
	return s
}

// Collector tells Prometheus how the journal is.
func (j *Journal) Collector() prometheus.Collector { return collector{j} }

type collector struct{ journal *Journal }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gatehouse_pdp_decision_log_"+name, help, labels, nil)
}

var (
	records    = desc("records_total", "Records made, by outcome of the decision; those that were not spooled are among them.", "outcome")
	unspooled  = desc("unrecorded_total", "Records that could not be spooled, by what became of the decision: answered or denied.", "decision")
	spoolBytes = desc("spool_bytes", "Bytes in the spool that not all sinks have taken.")
	spoolLimit = desc("spool_limit_bytes", "Bytes that the spool may have.")
	torn       = desc("torn_total", "Records that were cut short by a crash or a failed write.")
	damaged    = desc("damaged_total", "Damaged stretches of the spool that were passed over.")
	shipped    = desc("shipped_total", "Records that a sink has taken.", "sink")
	failed     = desc("failed_deliveries_total", "Deliveries that failed and are tried again.", "sink")
	rejected   = desc("rejected_total", "Records that a sink will never take, set aside.", "sink")
	lag        = desc("lag_seconds", "Age of the oldest record on its way to a sink; 0 when none is.", "sink")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{records, unspooled, spoolBytes, spoolLimit, torn, damaged, shipped, failed, rejected, lag} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.journal.Stats()
	for outcome, n := range s.Records {
		counter(records, n, outcome)
	}
	counter(unspooled, s.Dropped, "answered")
	counter(unspooled, s.Refused, "denied")
	gauge(spoolBytes, float64(s.Spool.Bytes))
	gauge(spoolLimit, float64(s.Spool.Limit))
	counter(torn, s.Spool.Torn)
	counter(damaged, s.Spool.Damaged)
	for name, sink := range s.Sinks {
		counter(shipped, sink.Shipped, name)
		counter(failed, sink.Failed, name)
		counter(rejected, sink.Rejected, name)
		gauge(lag, sink.Lag.Seconds(), name)
	}
}
