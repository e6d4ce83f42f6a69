package memory_test

import (
	"context"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/memory"
)

func TestTheCollectorWaitsForRoomToBeUsedUpWhileLittleIsAlive(t *testing.T) {
	t.Setenv("GOGC", "")
	alive, set := make(chan uint64), make(chan int)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- memory.Pacer{Every: time.Millisecond, Alive: func() uint64 {
			select {
			case n := <-alive:
				return n
			case <-ctx.Done():
				return 0
			}
		}, Set: func(percent int) {
			select {
			case set <- percent:
			case <-ctx.Done():
			}
		}}.Run(ctx)
	}()
	for _, c := range []struct {
		alive uint64
		want  int // 0: not set again
	}{
		{0, 800},
		{1 << 20, 0},
		{memory.Room / 2, 200},
		{memory.Room / 2 * 105 / 100, 0},
		{memory.Room, 100},
		{10 * memory.Room, 0},
		{memory.Room / 4, 400},
	} {
		alive <- c.alive
		if c.want == 0 {
			continue // it is asked again only if it does not wait for Set
		}
		if got := <-set; got != c.want {
			t.Errorf("with %d bytes alive the percentage is %d, want %d", c.alive, got, c.want)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestGOGCOfTheOperatorStays(t *testing.T) {
	t.Setenv("GOGC", "50")
	err := memory.Pacer{Alive: func() uint64 { return 1 }, Set: func(int) { t.Error("the percentage was set") }}.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
}
