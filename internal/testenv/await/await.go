// Package await lets a test wait for what something else brings about: other goroutines, other processes.
package await

import (
	"testing"
	"time"
)

// Patience is how long that may take. It is long because the machine may have much else to do.
const Patience = 60 * time.Second

// That asks again and again until the condition holds, and ends the test if it does not within Patience. It is called from the
// test's own goroutine.
func That(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}
