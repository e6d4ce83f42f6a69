package decisionlog

import "github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"

// Sampled is Rates.sampled.
func (r Rates) Sampled(route, id string) (float64, bool) { return r.sampled(route, id) }

// MaxRecord is maxRecord.
const MaxRecord = maxRecord

// Passing has a record wait for the writer while somebody else comes by who leads, and answers whether it is acknowledged by that.
func (j *Journal) Passing() bool {
	frame := append(spool.AppendFrame(nil), `{"decision_id":"d-1"}`...)
	if err := spool.Seal(frame, 0, j.opts.Now()); err != nil {
		panic(err)
	}
	b, _, err := j.enqueue(frame)
	if err != nil {
		panic(err)
	}
	j.lead()
	return b.isDone()
}
