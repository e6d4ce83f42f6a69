//go:build race

package engine_test

import "flag"

// With the race detector a drawn policy takes ten times as long, so that there are fewer of them; -rapid.checks says how many.
func init() {
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
}
