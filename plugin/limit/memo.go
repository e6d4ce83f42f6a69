package limit

import (
	"sync"
	"sync/atomic"
)

// memo remembers what holds until a moment, by hash, in a table that never grows. Where it is full the entry that ends first
// gives way; whoever is forgotten is asked for in Redis again. It is safe for concurrent use.
//
// Hashes are 64 bits of a key drawn by this process, so that two keys do not fall together in practice, nor by intent.
type memo struct {
	size  int
	made  atomic.Pointer[[]note]
	locks [256]sync.Mutex // of sets, by number; the first also guards making the table
}

// note is one entry. Times are milliseconds since 1970.
type note struct {
	hash  uint64
	until int64
	fact
}

// fact is what is remembered of a spent key: that a request of this cost, or a dearer one, does not fit into this limit or a
// lower one.
type fact struct{ cost, limit, remaining int64 }

const noteSize = 40 // bytes

func newMemo(memory int64) *memo {
	return &memo{size: max(int(memory/noteSize)/ways, 1) * ways}
}

// find answers what is remembered of a hash at now.
func (m *memo) find(hash uint64, now int64) (note, bool) {
	table := m.made.Load()
	if table == nil {
		return note{}, false
	}
	set := hash % uint64(m.size/ways)
	lock := &m.locks[set%uint64(len(m.locks))]
	lock.Lock()
	defer lock.Unlock()
	for _, n := range (*table)[set*ways : set*ways+ways] {
		if n.hash == hash && n.until > now {
			return n, true
		}
	}
	return note{}, false
}

// put remembers n.
func (m *memo) put(n note) {
	table := m.table()
	set := n.hash % uint64(m.size/ways)
	lock := &m.locks[set%uint64(len(m.locks))]
	lock.Lock()
	defer lock.Unlock()
	slots := table[set*ways : set*ways+ways]
	at := 0
	for i := range slots {
		if slots[i].hash == n.hash {
			at = i
			break
		}
		if slots[i].until < slots[at].until {
			at = i
		}
	}
	slots[at] = n
}

// table makes the table when it is first needed.
func (m *memo) table() []note {
	if t := m.made.Load(); t != nil {
		return *t
	}
	m.locks[0].Lock()
	defer m.locks[0].Unlock()
	if t := m.made.Load(); t != nil {
		return *t
	}
	t := make([]note, m.size)
	m.made.Store(&t)
	return t
}
