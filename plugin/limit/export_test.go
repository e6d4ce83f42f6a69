package limit

import "time"

// Patient lets a test that counts exactly run on a machine that is busy with other tests.
func (l *Limiter) Patient(d time.Duration) *Limiter {
	l.timeout = d
	return l
}

// Share sets how many processes are known.
func (l *Limiter) Share(processes int64) { l.processes.Store(processes) }

// NoteSpent makes k known to be spent.
func (l *Limiter) NoteSpent(k Key, reset time.Duration) {
	l.spent.put(note{hash: l.hash(k), until: l.now().Add(reset).UnixMilli(), fact: fact{cost: 1, limit: k.Rate.Limit}})
}
