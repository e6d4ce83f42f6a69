package limit

import (
	"errors"
	"sync"
	"testing"
)

// sender is the far end of a gather: each batch waits until it is let go.
type sender struct {
	batches chan []*taking
	goOn    chan struct{}
}

func (s sender) send(batch []*taking) {
	s.batches <- batch
	<-s.goOn
	for _, t := range batch {
		t.err = nil
	}
}

// waits returns when n requests wait for their turn.
func (g *gather) waits(n int) {
	for {
		g.mu.Lock()
		waiting := len(g.waiting)
		g.mu.Unlock()
		if waiting == n {
			return
		}
	}
}

func TestRequestsThatWaitAreSentTogether(t *testing.T) {
	t.Parallel()
	s := sender{make(chan []*taking), make(chan struct{})}
	g := gather{send: s.send}
	var done sync.WaitGroup
	request := func(id string) {
		one := &taking{id: id}
		done.Go(func() {
			if g.do(one); one.err != nil {
				t.Errorf("%s: %v", id, one.err)
			}
		})
	}
	request("first")
	if batch := <-s.batches; len(batch) != 1 {
		t.Fatalf("a request that comes alone goes with %d", len(batch))
	}
	for range maxBatch + 3 {
		request("later")
	}
	g.waits(maxBatch + 3)
	for _, want := range []int{maxBatch, 3} {
		s.goOn <- struct{}{}
		if batch := <-s.batches; len(batch) != want {
			t.Errorf("a batch of %d, want %d", len(batch), want)
		}
	}
	s.goOn <- struct{}{}
	done.Wait()
	request("alone again")
	if batch := <-s.batches; len(batch) != 1 {
		t.Errorf("a request that comes alone goes with %d", len(batch))
	}
	s.goOn <- struct{}{}
	done.Wait()
}

func TestABatchThatPanicsCountsNobodyAndLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	s := sender{make(chan []*taking), make(chan struct{})}
	g := gather{}
	g.send = func(batch []*taking) {
		s.batches <- batch
		<-s.goOn
		panic("a bug")
	}
	var done sync.WaitGroup
	request := func() {
		done.Go(func() {
			one := &taking{}
			defer func() {
				_ = recover() // the sender's own
				if !errors.Is(one.err, errUncounted) {
					t.Errorf("counted: %v", one.err)
				}
			}()
			g.do(one)
		})
	}
	request()
	<-s.batches
	request()
	request()
	g.waits(2)
	s.goOn <- struct{}{}
	<-s.batches
	s.goOn <- struct{}{}
	done.Wait()
	if g.flying != 0 || g.waiting != nil {
		t.Errorf("%d under way, %d waiting", g.flying, len(g.waiting))
	}
}
