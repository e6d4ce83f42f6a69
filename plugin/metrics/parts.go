package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// Parts is how the parts of the edge are at one moment.
type Parts struct {
	Redis   []Redis
	KeySets []KeySet
	Caches  []Cache
	PDPs    []PDP

	TokenBytes int64 // that are kept of tokens
}

// Redis is one Redis, by its address without password, and what hangs on it.
type Redis struct {
	Address     string
	Up          bool
	Known       bool          // whether revocations have been read at all
	Lag         time.Duration // of the revocations, if Known
	Revocations int
	Gaps        int64 // how often revocations were found to have been trimmed unread
	Limits      limit.Stats
}

// KeySet is one issuer's keys.
type KeySet struct {
	URL    string
	Loaded bool
	Age    time.Duration // if Loaded
}

// Cache is one kind of memory: "token", "introspection" or "decision".
type Cache struct {
	Name         string
	Hits, Misses uint64
}

// PDP is one decision point.
type PDP struct {
	URL  string
	Well bool
}

// collector asks the parts when it is scraped.
type collector struct{ parts func() Parts }

var (
	redisUp = desc("gatehouse_redis_up", "Whether Redis answers (1) or limits are counted by this process alone (0).", "redis")
	lag     = desc("gatehouse_revocation_lag_seconds", "How long ago it was last known that no revocation is missing.", "redis")
	entries = desc("gatehouse_revocations", "Revocations held in memory.", "redis")
	gaps    = desc("gatehouse_revocation_gaps_total", "How often revocations were found to have been trimmed from the stream before they could be read.", "redis")
	takes   = desc("gatehouse_limited_requests_total", "Requests with limits, by how they were counted: shared (in Redis), local (by this process alone), spent (refused without asking), repeated (counted before).", "redis", "how")
	sharers = desc("gatehouse_limit_processes", "Processes that share the limits, by the last count.", "redis")
	keyAge  = desc("gatehouse_key_set_age_seconds", "How long ago an issuer's key set was last fetched; missing until it was.", "url")
	keyIn   = desc("gatehouse_key_set_loaded", "Whether an issuer's key set is there (1) or tokens cannot be verified (0).", "url")
	lookups = desc("gatehouse_cache_lookups_total", "Look-ups in memory by cache (token, introspection, decision) and result (hit, miss).", "cache", "result")
	memory  = desc("gatehouse_token_memory_bytes", "What is kept of tokens, in bytes.")
	pdpWell = desc("gatehouse_pdp_up", "Whether a decision point is well (1) or others are asked first (0).", "pdp")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{redisUp, lag, entries, gaps, takes, sharers, keyAge, keyIn, lookups, memory, pdpWell} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	type series struct {
		of    *prometheus.Desc
		label string
	}
	told := map[series]bool{} // two users of one Redis are one series
	gauge := func(d *prometheus.Desc, v float64, label string) {
		if told[series{d, label}] {
			return
		}
		told[series{d, label}] = true
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, label)
	}
	counted := map[string]bool{}
	p := c.parts()
	for _, r := range p.Redis {
		gauge(redisUp, number(r.Up), r.Address)
		gauge(entries, float64(r.Revocations), r.Address)
		gauge(sharers, float64(r.Limits.Processes), r.Address)
		if !counted[r.Address] {
			counted[r.Address] = true
			to <- prometheus.MustNewConstMetric(gaps, prometheus.CounterValue, float64(r.Gaps), r.Address)
			for how, n := range map[string]uint64{"shared": r.Limits.Shared, "local": r.Limits.Local, "spent": r.Limits.Spent, "repeated": r.Limits.Repeated} {
				to <- prometheus.MustNewConstMetric(takes, prometheus.CounterValue, float64(n), r.Address, how)
			}
		}
		if r.Known {
			gauge(lag, r.Lag.Seconds(), r.Address)
		}
	}
	for _, k := range p.KeySets {
		gauge(keyIn, number(k.Loaded), k.URL)
		if k.Loaded {
			gauge(keyAge, k.Age.Seconds(), k.URL)
		}
	}
	for _, d := range p.PDPs {
		gauge(pdpWell, number(d.Well), d.URL)
	}
	to <- prometheus.MustNewConstMetric(memory, prometheus.GaugeValue, float64(p.TokenBytes))
	hits, misses := map[string]uint64{}, map[string]uint64{}
	for _, m := range p.Caches { // those of several configurations are one
		hits[m.Name] += m.Hits
		misses[m.Name] += m.Misses
	}
	for name := range hits {
		to <- prometheus.MustNewConstMetric(lookups, prometheus.CounterValue, float64(hits[name]), name, "hit")
		to <- prometheus.MustNewConstMetric(lookups, prometheus.CounterValue, float64(misses[name]), name, "miss")
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
