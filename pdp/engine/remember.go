package engine

import (
	"encoding/binary"
	"encoding/json"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// DefaultMemory is what remembered decisions may take, in bytes.
const DefaultMemory = 32 << 20

// answers are the decisions of one snapshot, each under all of its input that it can depend on: rules are functions of their input,
// and what they look at is known from them (looksAt). So an answer is good for as long as its snapshot is, and the directory says
// what it said then of those subjects that were looked up (rests).
type answers struct {
	seed    maphash.Seed
	shards  [shards]shard
	bound   int         // bytes per shard
	tallies *tallies    // the engine's, for snapshots come and go
	long    atomic.Bool // some keys are longer than shortKey
}

const shards = 16

type shard struct {
	mu    sync.RWMutex
	known map[uint64]remembered // by the hash of their keys
	size  int
	_     [88]byte // so that no processor waits for a line that another writes
}

// remembered is an answer and the whole key to it: of two keys of one hash, which nobody can make without the seed, one is remembered.
type remembered struct {
	key string
	answer
}

// tallies count what was remembered, each shard by itself.
type tallies [shards]struct {
	hits, misses atomic.Uint64
	_            [112]byte
}

func (t *tallies) sums() (hits, misses uint64) {
	for i := range t {
		hits += t[i].hits.Load()
		misses += t[i].misses.Load()
	}
	return hits, misses
}

// answer is what a policy said; it is shared and never changed.
type answer struct {
	allow bool
	about *authzen.ResponseContext // outcome, reasons, need and obligations
	rests *rests
}

// overhead is about what an entry takes beside its key and the texts of its answer.
const overhead = 256

func newAnswers(bytes int, t *tallies) *answers {
	if bytes <= 0 {
		return nil
	}
	a := &answers{seed: maphash.MakeSeed(), tallies: t}
	a.bound = bytes / len(a.shards)
	for i := range a.shards {
		a.shards[i].known = map[uint64]remembered{}
	}
	return a
}

// hash answers where a key's answer is. Its seed is secret, so that nobody who asks can fill one place.
func (a *answers) hash(key []byte) uint64 { return maphash.Bytes(a.seed, key) }

func (a *answers) recall(hash uint64, key []byte, seen *consulted) (answer, bool) {
	s := &a.shards[hash%shards]
	s.mu.RLock()
	found, ok := s.known[hash]
	s.mu.RUnlock()
	if ok = ok && found.key == string(key); ok && found.rests != nil {
		var until time.Time
		until, ok = seen.hold(found.rests)
		seen.rely(until)
	}
	if ok {
		a.tallies[hash%shards].hits.Add(1)
	} else {
		a.tallies[hash%shards].misses.Add(1)
	}
	return found.answer, ok
}

// keep takes an answer in place of one that holds no longer, or of another key of that hash. It makes room by forgetting a few answers at random: map order is random enough, and one that is needed comes back.
func (a *answers) keep(hash uint64, key []byte, v answer) {
	size := sizeOf(len(key), v)
	if size > a.bound {
		return
	}
	s := &a.shards[hash%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, known := s.known[hash]; known {
		if old.rests == nil && old.key == string(key) {
			return
		}
		s.size -= sizeOf(len(old.key), old.answer)
		delete(s.known, hash)
	}
	for h, old := range s.known {
		if s.size+size <= a.bound {
			break
		}
		s.size -= sizeOf(len(old.key), old.answer)
		delete(s.known, h)
	}
	s.known[hash] = remembered{string(key), v}
	s.size += size
}

func sizeOf(key int, v answer) int {
	n := overhead + key + v.rests.size()
	for _, r := range v.about.Reasons {
		n += 16 + len(r)
	}
	if len(v.about.Obligations) > 0 {
		b, _ := appendAny(nil, v.about.Obligations) // what cannot be written counts by what could
		n += 4 * len(b)
	}
	return n
}

// key appends all of the input that decisions can depend on, as inputOf would make it. It answers false for a value whose form
// is not known. Each value begins with its kind, and what has a length with that, so that no two inputs have the same key.
func (l *looksAt) key(dst []byte, r *authzen.Request, looked map[string]any, now time.Time) (_ []byte, ok bool) {
	for i := range l.parts {
		p := &l.parts[i]
		var in map[string]any
		switch p.of {
		case inSubject:
			in = r.Subject.Properties
		case inAction:
			in = r.Action.Properties
		case inResource:
			in = r.Resource.Properties
		case inKnown:
			if in = looked; looked == nil {
				in = r.Resource.Properties
			} else {
				dst = append(dst, wasLooked)
			}
		case inContext:
			in = r.Context
		default:
			if dst, ok = p.append(dst, r, looked, now); !ok {
				return dst, false
			}
			continue
		}
		v, there := in[p.name]
		for _, name := range p.path { // nothing stands below what is no object
			object, _ := v.(map[string]any)
			v, there = object[name]
		}
		if text, is := v.(string); is {
			dst = appendText(dst, text)
		} else if !there {
			dst = append(dst, 'a')
		} else if dst, ok = appendAny(dst, v); !ok {
			return dst, false
		}
	}
	return dst, true
}

// part is a path into the input, with its beginning understood.
type part struct {
	of   ofInput
	name string   // of a member of what it is in
	path []string // below that
}

// ofInput is what stands in the input of its own, or what holds the rest.
type ofInput int

const (
	nothing ofInput = iota // there is no such member
	subjectWhole
	subjectType
	subjectID
	subjectProperties
	actionWhole
	actionName
	actionProperties
	resourceWhole
	resourceType
	resourceID
	resourceProperties // what is known of it
	contextWhole
	contextTime

	inSubject // its properties
	inAction
	inResource // what the request says of it
	inKnown    // what is known of it
	inContext
)

// partOf reads a path.
func partOf(path []string) part {
	below := path[min(len(path), 2):]
	in := func(of, whole ofInput) part {
		if len(below) == 0 {
			return part{of: whole}
		}
		return part{of, below[0], below[1:]}
	}
	switch path[0] + "/" + second(path) {
	case "subject/":
		return part{of: subjectWhole}
	case "subject/type":
		return part{of: subjectType}
	case "subject/id":
		return part{of: subjectID}
	case "subject/properties":
		return in(inSubject, subjectProperties)
	case "action/":
		return part{of: actionWhole}
	case "action/name":
		return part{of: actionName}
	case "action/properties":
		return in(inAction, actionProperties)
	case "resource/":
		return part{of: resourceWhole}
	case "resource/type":
		return part{of: resourceType}
	case "resource/id":
		return part{of: resourceID}
	case "resource/properties":
		return in(inKnown, resourceProperties)
	case "context/":
		return part{of: contextWhole}
	case "context/time":
		return part{of: contextTime}
	}
	switch path[0] {
	case "subject":
		return part{inSubject, path[1], path[2:]}
	case "resource":
		return part{inResource, path[1], path[2:]}
	case "context":
		return part{inContext, path[1], path[2:]}
	}
	return part{}
}

// append appends what stands in the input there, or more. What inputOf leaves out there may be appended as well: then requests are
// told apart that need not be. What is in something is key's.
func (p *part) append(dst []byte, r *authzen.Request, looked map[string]any, now time.Time) ([]byte, bool) {
	switch p.of {
	case subjectWhole:
		return appendAny(appendText(appendText(dst, r.Subject.Type), r.Subject.ID), r.Subject.Properties)
	case subjectType:
		return appendText(dst, r.Subject.Type), true
	case subjectID:
		return appendText(dst, r.Subject.ID), true
	case subjectProperties:
		return appendAny(dst, r.Subject.Properties)
	case actionWhole:
		return appendAny(appendText(dst, r.Action.Name), r.Action.Properties)
	case actionName:
		return appendText(dst, r.Action.Name), true
	case actionProperties:
		return appendAny(dst, r.Action.Properties)
	case resourceWhole:
		dst, ok := appendAny(appendText(appendText(dst, r.Resource.Type), r.Resource.ID), r.Resource.Properties)
		if !ok || looked == nil {
			return dst, ok
		}
		return appendAny(append(dst, wasLooked), looked)
	case resourceType:
		return appendText(dst, r.Resource.Type), true
	case resourceID:
		return appendText(dst, r.Resource.ID), true
	case resourceProperties:
		if looked == nil {
			return appendAny(dst, r.Resource.Properties)
		}
		return appendAny(append(dst, wasLooked), looked)
	case contextWhole:
		return appendAny(appendText(dst, clockOf(now)), r.Context)
	case contextTime:
		return appendText(dst, clockOf(now)), true
	}
	return dst, true
}

// wasLooked stands before what a look-up found. Under some names (resourceMembers) policies do not see what a request says there, so
// that the same words are not the same input.
const wasLooked = 'k'

func second(p []string) string {
	if len(p) < 2 {
		return ""
	}
	return p[1]
}

func appendText(dst []byte, s string) []byte {
	if len(s) < 0x80 { // of which the length is one byte
		return append(append(dst, 's', byte(len(s))), s...)
	}
	dst = binary.AppendUvarint(append(dst, 's'), uint64(len(s)))
	return append(dst, s...)
}

func appendAny(dst []byte, v any) (_ []byte, ok bool) {
	switch v := v.(type) {
	case nil:
		return append(dst, 'n'), true
	case bool:
		if v {
			return append(dst, '1'), true
		}
		return append(dst, '0'), true
	case string:
		return appendText(dst, v), true
	case json.Number:
		dst = binary.AppendUvarint(append(dst, 'd'), uint64(len(v)))
		return append(dst, v...), true
	case float64:
		return binary.BigEndian.AppendUint64(append(dst, 'f'), math.Float64bits(v)), true
	case []string:
		dst = binary.AppendUvarint(append(dst, 'l'), uint64(len(v)))
		for _, s := range v {
			dst = appendText(dst, s)
		}
		return dst, true
	case []any:
		dst = binary.AppendUvarint(append(dst, 'l'), uint64(len(v)))
		for _, item := range v {
			if text, is := item.(string); is {
				dst = appendText(dst, text)
			} else if dst, ok = appendAny(dst, item); !ok {
				return dst, false
			}
		}
		return dst, true
	case map[string]any:
		dst = binary.AppendUvarint(append(dst, 'o'), uint64(len(v)))
		if len(v) == 0 {
			return dst, true
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if dst, ok = appendAny(appendText(dst, name), v[name]); !ok {
				return dst, false
			}
		}
		return dst, true
	}
	return dst, false
}
