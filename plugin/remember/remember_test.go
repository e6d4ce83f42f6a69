package remember_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

func TestWhatIsKeptIsFound(t *testing.T) {
	t.Parallel()
	c := remember.New(1 << 20)
	a, b := c.Owner(), c.Owner()
	a.Put(remember.SumOf("t"), 1, 100)
	if v, ok := a.Get(remember.SumOf("t")); !ok || v != 1 {
		t.Errorf("%v, %v", v, ok)
	}
	if _, ok := b.Get(remember.SumOf("t")); ok {
		t.Error("one owner's entry is another's")
	}
	if _, ok := a.Get(remember.SumOf("u")); ok {
		t.Error("found what was not kept")
	}
	a.Put(remember.SumOf("t"), 2, 200)
	if v, _ := a.Get(remember.SumOf("t")); v != 2 {
		t.Errorf("the newer value is %v", v)
	}
	if bytes, entries := c.Used(); entries != 1 || bytes < 200 || bytes > 600 {
		t.Errorf("%d bytes, %d entries", bytes, entries)
	}
}

// However many there are, they stay within the bound, and what the bound says is what the heap grows by.
func TestAFloodStaysWithinTheBound(t *testing.T) { // not parallel: it looks at the heap
	const most, size = 4 << 20, 1000
	c := remember.New(most)
	o := c.Owner()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range 100_000 {
		o.Put(remember.SumOf(fmt.Sprint(i)), make([]byte, size), size+24)
		if bytes, _ := c.Used(); i%1000 == 0 && bytes > most {
			t.Fatalf("%d bytes after %d", bytes, i)
		}
	}
	if grown := heap() - before; grown > most*5/4 {
		t.Errorf("the heap has grown by %d bytes, the bound is %d", grown, most)
	}
	if _, entries := c.Used(); entries < most/size/2 {
		t.Errorf("only %d entries are kept", entries)
	}
	o.Put(remember.SumOf("huge"), 1, most)
	if _, ok := o.Get(remember.SumOf("huge")); ok {
		t.Error("one entry takes all")
	}
	runtime.KeepAlive(c)
}

func TestManyUseOneCache(t *testing.T) {
	t.Parallel()
	c := remember.New(64 << 10)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			o := c.Owner()
			for i := range 1000 {
				k := remember.SumOf(fmt.Sprint(i))
				o.Put(k, i, 100)
				if v, ok := o.Get(k); ok && v != i {
					t.Errorf("%v for %d", v, i)
				}
			}
		})
	}
	wg.Wait()
	if bytes, _ := c.Used(); bytes > 64<<10 {
		t.Errorf("%d bytes", bytes)
	}
}
