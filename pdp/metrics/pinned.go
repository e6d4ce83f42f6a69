package metrics

import "github.com/prometheus/client_golang/prometheus"

var pinnedTo = prometheus.NewDesc("gatehouse_pdp_source_pinned", "Whether a source of policies is pinned to an earlier bundle, or to one that was promoted (1).", []string{"source"}, nil)

// Pinned tells which of the sources are pinned.
func Pinned(sources []string, pinned func() map[string]bool) prometheus.Collector {
	return pins{sources, pinned}
}

type pins struct {
	sources []string
	pinned  func() map[string]bool
}

// Describe implements prometheus.Collector.
func (p pins) Describe(to chan<- *prometheus.Desc) { to <- pinnedTo }

// Collect implements prometheus.Collector.
func (p pins) Collect(to chan<- prometheus.Metric) {
	now := p.pinned()
	for _, source := range p.sources {
		to <- prometheus.MustNewConstMetric(pinnedTo, prometheus.GaugeValue, number(now[source]), source)
	}
}
