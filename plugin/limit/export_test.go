package limit

import "time"

// Patient lets a test that counts exactly run on a machine that is busy with other tests.
func (l *Limiter) Patient(d time.Duration) *Limiter {
	l.timeout = d
	return l
}

// Away reports whether Redis counts as away.
func (l *Limiter) Away() bool { return l.breaker.Open() }
