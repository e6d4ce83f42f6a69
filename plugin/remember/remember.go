// Package remember keeps what was found out about tokens, within a bound of bytes. A token is known by its SHA-256 alone.
// What is pushed out is chosen at random, so that a flood of tokens nobody sees twice cannot push out just those in use; what
// is in use comes back at the price of finding it out again.
package remember

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
)

// DefaultMemory is how many bytes a process keeps of tokens where nothing else is configured.
const DefaultMemory = 32 << 20

// Sum is the SHA-256 of a token.
type Sum [sha256.Size]byte

// SumOf answers the token's sum.
func SumOf(token string) Sum { return sha256.Sum256([]byte(token)) }

type key struct {
	owner uint64
	sum   Sum
}

const shards = 16

// Cache holds entries of several owners within one bound. It is safe for concurrent use.
type Cache struct {
	owners atomic.Uint64
	shards [shards]shard
	most   int64 // bytes of one shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[key]entry
	used    int64
	_       [16]byte
}

type entry struct {
	value any
	size  int64
}

// overhead is what an entry costs beyond its value: its share of a map that is half full, in bytes.
const overhead = 2 * 80

// New makes a cache of so many bytes at most; 0 or less is DefaultMemory.
func New(bytes int64) *Cache {
	if bytes <= 0 {
		bytes = DefaultMemory
	}
	c := &Cache{most: bytes / shards}
	for i := range c.shards {
		c.shards[i].entries = map[key]entry{}
	}
	return c
}

// Owner is one who keeps entries; it sees no other's.
type Owner struct {
	cache *Cache
	id    uint64
}

// Owner makes a new owner.
func (c *Cache) Owner() *Owner { return &Owner{c, c.owners.Add(1)} }

// Get answers what was kept.
func (o *Owner) Get(sum Sum) (value any, ok bool) {
	s := &o.cache.shards[sum[0]%shards]
	s.mu.RLock()
	e, ok := s.entries[key{o.id, sum}]
	s.mu.RUnlock()
	return e.value, ok
}

// Put keeps a value that takes size bytes. One that would take more than an eighth of a shard is not kept.
func (o *Owner) Put(sum Sum, value any, size int) {
	c, s, k := o.cache, &o.cache.shards[sum[0]%shards], key{o.id, sum}
	e := entry{value, int64(size) + overhead}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(k)
	if e.size > c.most/8 {
		return
	}
	for old := range s.entries { // a map's order is random enough
		if s.used+e.size <= c.most {
			break
		}
		s.drop(old)
	}
	s.entries[k] = e
	s.used += e.size
}

// drop is called with s.mu held.
func (s *shard) drop(k key) {
	if e, ok := s.entries[k]; ok {
		s.used -= e.size
		delete(s.entries, k)
	}
}

// Used answers how many bytes the entries take, and how many there are.
func (c *Cache) Used() (bytes int64, entries int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		bytes, entries = bytes+s.used, entries+len(s.entries)
		s.mu.RUnlock()
	}
	return bytes, entries
}
