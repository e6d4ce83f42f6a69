package store

import "sync"

// changes tells those who wait in this process that something has been committed. The zero value works.
type changes struct {
	mu sync.Mutex
	c  chan struct{}
}

// next answers a channel that the next wake closes.
func (c *changes) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c == nil {
		c.c = make(chan struct{})
	}
	return c.c
}

func (c *changes) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c != nil {
		close(c.c)
		c.c = nil
	}
}

func (d *DB) announce() { d.changes.wake() }
