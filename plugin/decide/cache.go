package decide

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Question is a request as far as a remembered answer depends on it.
type Question interface {
	// Kind is what is to be done to what kind of thing.
	Kind() (action, resourceType string)
	// Append appends the value at a JSON Pointer into the evaluation request, or that there is none, in a form of its own for
	// each value and so that two values in a row cannot read as two others. It answers false for what is no pointer.
	Append(dst []byte, pointer string) ([]byte, bool)
}

const (
	// maxRules bounds how many different lists of inputs are tried for one kind of question.
	maxRules = 8
	// maxVary bounds the length of one list.
	maxVary = 32
	// maxKept bounds one answer that is kept, in bytes of its context's JSON.
	maxKept = 4 << 10
	// maxKinds bounds the kinds of questions that have rules; actions are the caller's words.
	maxKinds = 1024
)

// Cache remembers answers for as long, and for those questions, that the decision point said (see package authzen). It drops
// all of them when the revision of the policy or of the directory changes. It is safe for concurrent use.
type Cache struct {
	now     func() time.Time
	ttl     time.Duration
	max     int
	hits    atomic.Uint64
	misses  atomic.Uint64
	revised atomic.Uint64

	buffers sync.Pool

	mu      sync.RWMutex
	current revision
	rules   map[kind][][]string // the lists of inputs that answers depended on, the newest last
	answers map[key]remembered
}

type (
	kind     struct{ action, resourceType string }
	revision struct{ policy, directory string }
	key      [sha256.Size]byte
)

type remembered struct {
	answer authzen.Response
	until  time.Time
}

// NewCache makes a cache of so many answers, none of which is used for longer than ttl.
func NewCache(entries int, ttl time.Duration, now func() time.Time) *Cache {
	return &Cache{now: now, ttl: ttl, max: entries, rules: map[kind][][]string{}, answers: map[key]remembered{}}
}

// Recall answers what is known. The answer is shared: its reader changes nothing of it.
func (c *Cache) Recall(q Question) (authzen.Response, bool) {
	action, resourceType := q.Kind()
	now := c.now()
	c.mu.RLock()
	for _, vary := range c.rules[kind{action, resourceType}] {
		k, ok := c.keyOf(q, vary)
		if !ok {
			continue
		}
		if r, found := c.answers[k]; found && now.Before(r.until) {
			c.mu.RUnlock()
			c.hits.Add(1)
			return r.answer, true
		}
	}
	c.mu.RUnlock()
	c.misses.Add(1)
	return authzen.Response{}, false
}

// Keep takes note of an answer to a question that was asked at the given time. Every answer is to be told, those too that may
// not be kept: they tell of new revisions.
func (c *Cache) Keep(q Question, answer authzen.Response, asked time.Time) {
	about := answer.Context
	if about == nil || about.Revision == "" {
		return
	}
	k, vary, until, keep := c.plan(q, about, asked)
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := (revision{about.Revision, about.DirectoryRevision}); r != c.current {
		if c.current != (revision{}) {
			c.revised.Add(1)
		}
		c.current = r
		clear(c.rules)
		clear(c.answers)
	}
	if !keep {
		return
	}
	c.learn(q, vary)
	c.room()
	c.answers[k] = remembered{answer, until}
}

// plan answers whether the answer may be kept, under what, and until when.
func (c *Cache) plan(q Question, about *authzen.ResponseContext, asked time.Time) (k key, vary []string, until time.Time, keep bool) {
	may := about.Cache
	if may == nil || may.TTL <= 0 || len(may.Vary) == 0 || len(may.Vary) > maxVary {
		return k, nil, until, false
	}
	vary = slices.Clone(may.Vary)
	slices.Sort(vary)
	vary = slices.Compact(vary)
	if k, keep = c.keyOf(q, vary); !keep {
		return k, nil, until, false
	}
	if size, err := json.Marshal(about); err != nil || len(size) > maxKept {
		return k, nil, until, false
	}
	ttl := c.ttl
	if may.TTL < int(c.ttl/time.Millisecond) {
		ttl = time.Duration(may.TTL) * time.Millisecond
	}
	until = asked.Add(ttl)
	return k, vary, until, c.now().Before(until)
}

// learn keeps the list of inputs; where there are too many, the oldest goes, and answers that depend on it are not found again.
func (c *Cache) learn(q Question, vary []string) {
	action, resourceType := q.Kind()
	of := kind{action, resourceType}
	rules, known := c.rules[of]
	if slices.ContainsFunc(rules, func(r []string) bool { return slices.Equal(r, vary) }) {
		return
	}
	if !known && len(c.rules) >= maxKinds {
		clear(c.rules)
	}
	if len(rules) >= maxRules {
		rules = rules[1:]
	}
	c.rules[of] = append(slices.Clone(rules), vary)
}

// room forgets a few answers at random: map order is random enough, and an answer that is needed comes back.
func (c *Cache) room() {
	for k := range c.answers {
		if len(c.answers) < c.max {
			return
		}
		delete(c.answers, k)
	}
}

// keyOf is a digest of the inputs' names and values.
func (c *Cache) keyOf(q Question, vary []string) (k key, ok bool) {
	buf, _ := c.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	b := (*buf)[:0]
	for _, pointer := range vary {
		b = binary.AppendUvarint(b, uint64(len(pointer)))
		b = append(b, pointer...)
		if b, ok = q.Append(b, pointer); !ok {
			break
		}
	}
	if ok {
		k = sha256.Sum256(b)
	}
	if *buf = b; cap(b) <= maxKept {
		c.buffers.Put(buf)
	}
	return k, ok
}

// Counts answers hits and misses so far, and how often a new revision emptied the cache.
func (c *Cache) Counts() (hits, misses, revised uint64) {
	return c.hits.Load(), c.misses.Load(), c.revised.Load()
}

// Len is the number of answers held, those included that have expired.
func (c *Cache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.answers)
}
