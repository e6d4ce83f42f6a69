package decisionlog

// Encode answers the record of an event.
func Encode(e Event, masks *Masks, rate float64) []byte {
	enc := &encoder{}
	enc.reset(nil, masks)
	enc.appendRecord(&e, []byte(`{"app":"gatehouse-pdp"}`), rate)
	return enc.dst
}

// Sampled is Rates.sampled.
func (r Rates) Sampled(route, id string) (float64, bool) { return r.sampled(route, id) }

// MaxRecord is maxRecord.
const MaxRecord = maxRecord
