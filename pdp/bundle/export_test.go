package bundle

import "time"

// SetAfter replaces the timer between two requests.
func (s *Source) SetAfter(after func(time.Duration) <-chan time.Time) { s.after = after }
