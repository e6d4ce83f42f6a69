package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// A made-up directory holds so many subjects, and is made of so many words.
const (
	probeSubjects = 16
	probeWords    = 60
)

// probe is a made-up input, which is compared by a made-up directory.
type probe struct {
	native.JSON
	seen *consulted
}

func (p probe) sees() *consulted { return p.seen }

// madeUp is a directory to compare forms by: of words that the rules hold, so that they find something in it. It is the same for the
// same policies, whatever the real one says. It answers nil where no rule reads one.
func (d *documents) madeUp() (*consulted, map[string]any) {
	own, ok := d.store.(*store)
	if !ok || own.directory == nil {
		return nil, nil
	}
	words, reads := wordsOf(d.compiler)
	if !reads {
		return nil, nil
	}
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same each time
	one := func() string { return words[random.IntN(len(words))] }
	some := func(most int) []string {
		all := make([]string, random.IntN(most+1))
		for i := range all {
			all[i] = one()
		}
		return all
	}
	subjects, roles := map[string]any{}, map[string]any{}
	for i := range probeSubjects {
		attributes := map[string]any{}
		for range random.IntN(6) {
			attributes[one()] = []any{one(), random.IntN(5), true, some(2)}[random.IntN(4)]
		}
		id := fmt.Sprintf("subject %d", i)
		if i%2 == 0 {
			id = one()
		}
		subjects[id] = map[string]any{"roles": some(4), "groups": some(3), "tenant": []string{"", one()}[random.IntN(2)], "attributes": attributes}
	}
	for _, name := range words {
		roles[name] = map[string]any{"inherits": some(2), "permissions": []any{map[string]any{"action": one(), "resource": one(), "conditions": some(2)}}}
	}
	text, err := json.Marshal(map[string]any{"subjects": subjects, "roles": roles})
	if err != nil {
		return nil, nil
	}
	view, err := directory.ReadData(bytes.NewReader(text), directory.Limits{})
	if err != nil { // a word that no role can be called; then the forms are compared without
		return &consulted{now: time.Unix(0, 0)}, nil
	}
	return &consulted{view: view, now: time.Unix(0, 0)}, map[string]any{"subjects": subjects, "roles": roles}
}

// wordsOf are texts that the rules hold, as many as make a directory, and whether any rule reads one.
func wordsOf(c *ast.Compiler) (words []string, reads bool) {
	found := map[string]bool{"x": true}
	for _, m := range c.Modules {
		for _, rule := range m.Rules {
			ast.WalkTerms(rule, func(t *ast.Term) bool {
				switch v := t.Value.(type) {
				case ast.String:
					if s := string(v); s != "" && len(s) < 100 {
						found[s] = true
					}
				case ast.Ref:
					reads = reads || v.HasPrefix(ast.DefaultRootRef) && readsDirectory(v.ConstantPrefix())
				}
				return false
			})
		}
	}
	words = slices.Sorted(maps.Keys(found))
	if step := len(words) / probeWords; step > 1 {
		for i := range probeWords {
			words[i] = words[i*step]
		}
		words = words[:probeWords]
	}
	return words, reads
}
