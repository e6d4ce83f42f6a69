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
	seed   maphash.Seed
	shards [16]shard
	bound  int // bytes per shard

	hits, misses *atomic.Uint64 // the engine's, for snapshots come and go
}

type shard struct {
	mu    sync.RWMutex
	known map[string]answer
	size  int
}

// answer is what a policy said; it is shared and never changed.
type answer struct {
	allow bool
	about *authzen.ResponseContext // without id, revision and cache
	rests *rests
}

// overhead is about what an entry takes beside its key and the texts of its answer.
const overhead = 256

func newAnswers(bytes int, hits, misses *atomic.Uint64) *answers {
	if bytes <= 0 {
		return nil
	}
	a := &answers{seed: maphash.MakeSeed(), hits: hits, misses: misses}
	a.bound = bytes / len(a.shards)
	for i := range a.shards {
		a.shards[i].known = map[string]answer{}
	}
	return a
}

func (a *answers) recall(key []byte, seen *consulted) (answer, bool) {
	s := a.of(key)
	s.mu.RLock()
	found, ok := s.known[string(key)]
	s.mu.RUnlock()
	if ok && found.rests != nil {
		var until time.Time
		until, ok = seen.hold(found.rests)
		seen.rely(until)
	}
	if ok {
		a.hits.Add(1)
	} else {
		a.misses.Add(1)
	}
	return found, ok
}

// keep takes an answer in place of one that holds no longer. It makes room by forgetting a few answers at random: map order is random enough, and one that is needed comes back.
func (a *answers) keep(key []byte, v answer) {
	size := sizeOf(key, v)
	if size > a.bound {
		return
	}
	s := a.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, known := s.known[string(key)]; known {
		if old.rests == nil {
			return
		}
		s.size -= sizeOf(key, old)
		delete(s.known, string(key))
	}
	for k, old := range s.known {
		if s.size+size <= a.bound {
			break
		}
		s.size -= sizeOf([]byte(k), old)
		delete(s.known, k)
	}
	s.known[string(key)] = v
	s.size += size
}

func (a *answers) of(key []byte) *shard {
	return &a.shards[maphash.Bytes(a.seed, key)%uint64(len(a.shards))]
}

func sizeOf(key []byte, v answer) int {
	n := overhead + len(key) + v.rests.size()
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
func (l looksAt) key(dst []byte, r *authzen.Request, looked map[string]any, now time.Time) (_ []byte, ok bool) {
	for i := range l.parts {
		if dst, ok = l.parts[i].append(dst, r, looked, now); !ok {
			return dst, false
		}
	}
	return dst, true
}

// part is a path into the input, with its beginning understood.
type part struct {
	of   ofInput
	path []string // what is left of it, below properties or the context
}

// ofInput is what stands in the input of its own, or holds the rest.
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
	resourceSaid       // what the request says of it
	contextWhole
	contextTime
	contextMember
)

// partOf reads a path.
func partOf(path []string) part {
	below := path[min(len(path), 2):]
	switch path[0] + "/" + second(path) {
	case "subject/":
		return part{of: subjectWhole}
	case "subject/type":
		return part{of: subjectType}
	case "subject/id":
		return part{of: subjectID}
	case "subject/properties":
		return part{subjectProperties, below}
	case "action/":
		return part{of: actionWhole}
	case "action/name":
		return part{of: actionName}
	case "action/properties":
		return part{actionProperties, below}
	case "resource/":
		return part{of: resourceWhole}
	case "resource/type":
		return part{of: resourceType}
	case "resource/id":
		return part{of: resourceID}
	case "resource/properties":
		return part{resourceProperties, below}
	case "context/":
		return part{of: contextWhole}
	case "context/time":
		return part{of: contextTime}
	}
	switch path[0] {
	case "subject":
		return part{subjectProperties, path[1:]}
	case "resource":
		return part{resourceSaid, path[1:]}
	case "context":
		return part{contextMember, path[1:]}
	}
	return part{}
}

// append appends what stands in the input there, or more. What inputOf leaves out there may be appended as well: then requests are
// told apart that need not be.
func (p part) append(dst []byte, r *authzen.Request, looked map[string]any, now time.Time) ([]byte, bool) {
	switch p.of {
	case subjectWhole:
		return appendAny(appendText(appendText(dst, r.Subject.Type), r.Subject.ID), r.Subject.Properties)
	case subjectType:
		return appendText(dst, r.Subject.Type), true
	case subjectID:
		return appendText(dst, r.Subject.ID), true
	case subjectProperties:
		return appendAt(dst, r.Subject.Properties, p.path)
	case actionWhole:
		return appendAny(appendText(dst, r.Action.Name), r.Action.Properties)
	case actionName:
		return appendText(dst, r.Action.Name), true
	case actionProperties:
		return appendAt(dst, r.Action.Properties, p.path)
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
			return appendAt(dst, r.Resource.Properties, p.path)
		}
		return appendAt(append(dst, wasLooked), looked, p.path)
	case resourceSaid:
		return appendAt(dst, r.Resource.Properties, p.path)
	case contextWhole:
		return appendAny(appendText(dst, clockOf(now)), r.Context)
	case contextTime:
		return appendText(dst, clockOf(now)), true
	case contextMember:
		return appendAt(dst, r.Context, p.path)
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

// appendAt appends what stands in m at the path. Nothing stands below what is no object.
func appendAt(dst []byte, m map[string]any, path []string) ([]byte, bool) {
	var v any = m
	for _, name := range path {
		object, _ := v.(map[string]any)
		var ok bool
		if v, ok = object[name]; !ok {
			return append(dst, 'a'), true
		}
	}
	return appendAny(dst, v)
}

func appendText(dst []byte, s string) []byte {
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
			if dst, ok = appendAny(dst, item); !ok {
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
