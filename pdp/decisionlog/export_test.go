package decisionlog

// Sampled is Rates.sampled.
func (r Rates) Sampled(route, id string) (float64, bool) { return r.sampled(route, id) }

// MaxRecord is maxRecord.
const MaxRecord = maxRecord
