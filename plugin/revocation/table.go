package revocation

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
)

// table maps the 64-bit keyed hash of a revoked value to when it ends and what it ends. Readers take no lock and allocate
// nothing; writers are serialised. It holds hashes only, 16 bytes a slot and at most three quarters full, so a million
// entries cost 32 MiB.
//
// Two values may share a hash. Then a live token is refused, and a dead one never passes: two entries that fall together end
// what either of them ends. With a million entries that is one look-up in 18,000,000,000,000, and since each process draws
// its own seeds nobody can aim at it, nor does it follow a client to another process.
type table struct {
	mu     sync.Mutex // of writers
	shards [shards]atomic.Pointer[shard]
}

// shards bounds what grows at once, and what a growing table needs beside itself.
const shards = 64

type shard struct {
	slots []slot
	used  int // writers' only
}

// slot is free while hash is 0. ending is written before hash, so a reader that finds the hash finds the ending too.
type slot struct{ hash, ending atomic.Uint64 }

// ending packs until when an entry matters and which tokens it ends, both in whole seconds since 1970, so that both change at
// once. An expiry is rounded up; since is compared with a token's iat, and always means all tokens.
type ending uint64

const always = math.MaxUint32

func newEnding(expiresMilli int64, since uint32) ending {
	return ending(uint64(seconds((expiresMilli+999)/1000))<<32 | uint64(since))
}

func (e ending) expires() int64 { return int64(e >> 32) }
func (e ending) since() int64   { return int64(e & math.MaxUint32) }

// wider ends what either of the two ends, as long as either does.
func (e ending) wider(o ending) ending {
	return max(e>>32, o>>32)<<32 | max(e&math.MaxUint32, o&math.MaxUint32)
}

// seconds fits a time into 32 bits; what is beyond 2106 stays there.
func seconds(s int64) uint32 { return uint32(min(max(s, 0), math.MaxUint32-1)) }

// spread makes a hash what a slot holds: never 0.
func spread(seed maphash.Seed, value string) uint64 {
	if h := maphash.String(seed, value); h != 0 {
		return h
	}
	return 1
}

// find answers what is held for a hash, 0 for nothing.
func (t *table) find(hash uint64) ending {
	s := t.shards[hash%shards].Load()
	if s == nil {
		return 0
	}
	for mask, i := uint64(len(s.slots)-1), hash>>32; ; i++ {
		switch at := &s.slots[i&mask]; at.hash.Load() {
		case hash:
			return ending(at.ending.Load())
		case 0:
			return 0
		}
	}
}

// add merges e into what is held for the hash.
func (t *table) add(hash uint64, e ending) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.shards[hash%shards]
	s := p.Load()
	if s == nil || (s.used+1)*4 > len(s.slots)*3 {
		s = s.rebuilt(1, 0)
		p.Store(s)
	}
	s.add(hash, e)
}

func (s *shard) add(hash uint64, e ending) {
	for mask, i := uint64(len(s.slots)-1), hash>>32; ; i++ {
		at := &s.slots[i&mask]
		switch at.hash.Load() {
		case hash:
			at.ending.Store(uint64(e.wider(ending(at.ending.Load()))))
			return
		case 0:
			at.ending.Store(uint64(e))
			at.hash.Store(hash)
			s.used++
			return
		}
	}
}

// sweep drops what has expired by now, in seconds. Readers go on with the old slots until they are done.
func (t *table) sweep(now int64) {
	for i := range t.shards {
		t.mu.Lock()
		if s := t.shards[i].Load(); s != nil && s.live(now) < s.used {
			t.shards[i].Store(s.rebuilt(0, now))
		}
		t.mu.Unlock()
	}
}

func (s *shard) live(now int64) (n int) {
	for i := range s.slots {
		if s.slots[i].hash.Load() != 0 && ending(s.slots[i].ending.Load()).expires() > now {
			n++
		}
	}
	return n
}

// rebuilt is s without what has expired by now, with room for more.
func (s *shard) rebuilt(more int, now int64) *shard {
	if s == nil {
		return &shard{slots: make([]slot, 16)}
	}
	size := 16
	for live := s.live(now) + more; live*4 > size*3; {
		size *= 2
	}
	out := &shard{slots: make([]slot, size)}
	for i := range s.slots {
		if hash, e := s.slots[i].hash.Load(), ending(s.slots[i].ending.Load()); hash != 0 && e.expires() > now {
			out.add(hash, e)
		}
	}
	return out
}

func (t *table) len() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.shards {
		if s := t.shards[i].Load(); s != nil {
			n += s.used
		}
	}
	return n
}
