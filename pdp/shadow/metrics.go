package shadow

import "github.com/prometheus/client_golang/prometheus"

// Collector tells Prometheus how the comparison stands.
func (s *Shadow) Collector() prometheus.Collector { return collector{s} }

type collector struct{ *Shadow }

var (
	compared = prometheus.NewDesc("gatehouse_pdp_shadow_compared_requests", "Requests that the candidate decided again since both policies have been as they are, by result: gains, loses, same.", []string{"result"}, nil)
	failed   = prometheus.NewDesc("gatehouse_pdp_shadow_failed_requests", "Of these, requests that the candidate could not decide.", nil, nil)
	dropped  = prometheus.NewDesc("gatehouse_pdp_shadow_dropped_total", "Requests that were not compared for want of room.", nil, nil)
	about    = prometheus.NewDesc("gatehouse_pdp_shadow_info", "The revisions that are compared; always 1.", []string{"active", "candidate"}, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{compared, failed, dropped, about} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	st := c.Status()
	gauge := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(compared, st.Counts.Gains, "gains")
	gauge(compared, st.Counts.Loses, "loses")
	gauge(compared, st.Counts.Compared-st.Counts.Gains-st.Counts.Loses, "same")
	gauge(failed, st.Counts.Failed)
	to <- prometheus.MustNewConstMetric(dropped, prometheus.CounterValue, float64(st.Dropped))
	if st.Candidate != "" {
		gauge(about, 1, st.Active, st.Candidate)
	}
}
