package revocation_test

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/plugin/revocation"
)

const million = 1_000_000

// filled holds n revocations of all kinds that expire an hour from now.
func filled(n int, now time.Time) *revocation.Set {
	s := revocation.New(func() time.Time { return now }, 24*time.Hour)
	kinds := []string{"sid", "sub", "jti", "client_id", "kid"}
	for i := range n {
		s.Add(redisx.Revocation{Kind: kinds[i%len(kinds)], Value: "v" + strconv.Itoa(i), NotBefore: now, ExpiresAt: now.Add(time.Hour)})
	}
	return s
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAMillionEntriesTake64MiBAtMost(t *testing.T) {
	// Not parallel: the heap is everybody's.
	now, before := time.Now(), heap()
	s := filled(million, now)
	if took := heap() - before; took > 64<<20 {
		t.Errorf("%d MiB", took>>20)
	} else {
		t.Logf("%.1f MiB", float64(took)/(1<<20))
	}
	for _, p := range []principal.Principal{{SessionID: "v0"}, {Subject: "v1"}, {TokenID: "v999997"}, {ClientID: "v999998"}, {KeyID: "v999999"}} {
		if p.IssuedAt = now; !s.Revoked(p) {
			t.Errorf("%+v is alive", p)
		}
	}
	if n := s.Len(); n != million {
		t.Errorf("%d entries: %d fell together", n, million-n)
	}
	if s.Revoked(principal.Principal{SessionID: "v1", Subject: "v0", TokenID: "v0", ClientID: "v0", KeyID: "v0", IssuedAt: now}) {
		t.Error("an entry of one kind answers for another")
	}
}

// BenchmarkRevoked looks up tokens that nobody ended: by one claim, and by all five as the edge does. The tokens are many, for
// one alone would keep its places in the processor's cache. A map under a lock is the alternative.
func BenchmarkRevoked(b *testing.B) {
	now := time.Now()
	five := make([]principal.Principal, 4096)
	one := make([]principal.Principal, len(five))
	for i := range five {
		five[i] = principal.Principal{Subject: uuid.NewString(), SessionID: uuid.NewString(), TokenID: uuid.NewString(), ClientID: "web", KeyID: "k1", IssuedAt: now}
		one[i] = principal.Principal{SessionID: uuid.NewString(), IssuedAt: now}
	}
	run := func(b *testing.B, name string, tokens []principal.Principal, revoked func(principal.Principal) bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if revoked(tokens[i%len(tokens)]) {
					b.Fatal("revoked")
				}
			}
		})
	}
	for _, n := range []int{0, 1000, million} {
		s, m := filled(n, now), newLocked(n)
		run(b, strconv.Itoa(n)+"/one", one, s.Revoked)
		run(b, strconv.Itoa(n)+"/one/map", one, m.revoked)
		run(b, strconv.Itoa(n)+"/five", five, s.Revoked)
		run(b, strconv.Itoa(n)+"/five/map", five, m.revoked)
		b.Run(strconv.Itoa(n)+"/five/parallel", func(b *testing.B) {
			var worker atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for i := int(worker.Add(1)) * 1000; pb.Next(); i++ {
					s.Revoked(five[i%len(five)])
				}
			})
		})
	}
}

type entry struct{ kind, value string }

type locked struct {
	mu  sync.RWMutex
	all map[entry]int64
}

func newLocked(n int) *locked {
	l := &locked{all: map[entry]int64{}}
	for i := range n {
		l.all[entry{[]string{"sid", "sub", "jti", "client_id", "kid"}[i%5], "v" + strconv.Itoa(i)}] = 1
	}
	return l
}

func (l *locked) revoked(p principal.Principal) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, e := range [5]entry{{"sid", p.SessionID}, {"sub", p.Subject}, {"jti", p.TokenID}, {"client_id", p.ClientID}, {"kid", p.KeyID}} {
		if e.value != "" && l.all[e] != 0 {
			return true
		}
	}
	return false
}
