package lookup

import (
	"maps"
	"sync"
)

// Result is how a look-up went.
type Result string

// The results.
const (
	Remembered Result = "remembered" // nobody was asked
	Found      Result = "found"
	Missing    Result = "missing" // the object does not exist
	Failed     Result = "failed"
)

// Count says of what a number is counted.
type Count struct {
	Kind   string // resource type; only those that are declared are counted
	Result Result
}

// Counts is how look-ups went since the program began. Its zero value is ready, and it is safe for concurrent use.
type Counts struct {
	mu sync.Mutex
	n  map[Count]uint64
}

func (c *Counts) add(kind string, r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[Count]uint64{}
	}
	c.n[Count{kind, r}]++
}

// All answers a copy.
func (c *Counts) All() map[Count]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
