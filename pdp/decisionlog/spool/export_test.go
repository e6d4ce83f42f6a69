package spool

// BreakActive makes the next write fail, and also that what it left is taken back.
func (s *Spool) BreakActive() { s.active.Close() }

// Check is check.
func Check(b []byte) (end, damaged int) { return check(b) }

// ReadAll answers what a reader finds in the bytes of one segment.
func ReadAll(b []byte) (records []Record) {
	for len(b) > 0 {
		r, n, err := first(b)
		if err != nil {
			n = resume(b)
		} else {
			records = append(records, r)
		}
		b = b[n:]
	}
	return records
}
