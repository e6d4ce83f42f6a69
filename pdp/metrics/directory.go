package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

var (
	directoryLoaded    = prometheus.NewDesc("gatehouse_pdp_directory_loaded", "Whether anything is known of subjects (1).", nil, nil)
	directoryConfirmed = prometheus.NewDesc("gatehouse_pdp_directory_confirmed_age_seconds", "How long ago the source of the directory last said that what is used is its newest.", nil, nil)
	directoryRevision  = prometheus.NewDesc("gatehouse_pdp_directory_revision", "The revision that is used, within its epoch; of a data.json, a digest.", nil, nil)
	directoryHolds     = prometheus.NewDesc("gatehouse_pdp_directory_entries", "How many subjects, bindings and roles are known, by kind.", []string{"kind"}, nil)
	directoryBytes     = prometheus.NewDesc("gatehouse_pdp_directory_bytes", "What the directory takes.", nil, nil)
	directoryAway      = prometheus.NewDesc("gatehouse_pdp_directory_away", "Whether the source of the directory cannot be asked (1).", nil, nil)
	directoryLoads     = prometheus.NewDesc("gatehouse_pdp_directory_loads_total", "What came into use, by kind: snapshot, changes or kept (at the start).", []string{"kind"}, nil)
	directoryFailures  = prometheus.NewDesc("gatehouse_pdp_directory_failures_total", "What did not, by kind: away (not to be asked), refused (cut off, or wrong) or kept (at the start).", []string{"kind"}, nil)
)

// Directory tells of a directory, which is asked at each scrape.
func Directory(stats func() directory.Stats, now func() time.Time) prometheus.Collector {
	return directoryCollector{stats, now}
}

type directoryCollector struct {
	stats func() directory.Stats
	now   func() time.Time
}

// Describe implements prometheus.Collector.
func (c directoryCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{directoryLoaded, directoryConfirmed, directoryRevision, directoryHolds, directoryBytes, directoryAway, directoryLoads, directoryFailures} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c directoryCollector) Collect(to chan<- prometheus.Metric) {
	s := c.stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(directoryLoaded, number(s.Loaded))
	gauge(directoryAway, number(s.Away))
	if s.Loaded {
		gauge(directoryConfirmed, c.now().Sub(s.Confirmed).Seconds())
		gauge(directoryRevision, float64(s.Number))
		gauge(directoryBytes, float64(s.Bytes))
		for kind, n := range map[string]int{"subjects": s.Subjects, "bindings": s.Bindings, "roles": s.Roles} {
			gauge(directoryHolds, float64(n), kind)
		}
	}
	for kind, n := range s.Loads {
		to <- prometheus.MustNewConstMetric(directoryLoads, prometheus.CounterValue, float64(n), kind)
	}
	for kind, n := range s.Failures {
		to <- prometheus.MustNewConstMetric(directoryFailures, prometheus.CounterValue, float64(n), kind)
	}
}
