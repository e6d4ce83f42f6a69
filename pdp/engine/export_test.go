package engine

// Kept is how many decisions are remembered, and how many bytes they count for.
func (e *Engine) Kept() (n, bytes int) {
	a := e.current.Load().answers
	for i := range a.shards {
		a.shards[i].mu.RLock()
		n += len(a.shards[i].known)
		bytes += a.shards[i].size
		a.shards[i].mu.RUnlock()
	}
	return n, bytes
}

// Prepared is how many queries of documents are kept.
func (e *Engine) Prepared() int {
	d := &e.current.Load().documents
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queries)
}

// Occupy takes every processor that policies are evaluated on, until the answered function is called.
func (e *Engine) Occupy() (leave func()) {
	for range cap(e.slots) {
		e.slots <- struct{}{}
	}
	return func() {
		for range cap(e.slots) {
			<-e.slots
		}
	}
}
