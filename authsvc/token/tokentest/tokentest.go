// Package tokentest makes signing keys for the tests of what stands on a ring.
package tokentest

import (
	"sync"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

var made struct {
	sync.Mutex
	keys []jose.SigningKey
}

// Keys is a token.Options.Generate. The keys of one ring differ; the next ring gets the same ones, for with the race detector it
// takes a tenth of a second to make one, though they are shorter than those of production.
func Keys() func() (jose.SigningKey, error) {
	next := 0
	return func() (jose.SigningKey, error) {
		made.Lock()
		defer made.Unlock()
		if next == len(made.keys) {
			key, err := jose.GenerateRSA(2048)
			if err != nil {
				return key, err
			}
			made.keys = append(made.keys, key)
		}
		next++
		return made.keys[next-1], nil
	}
}
