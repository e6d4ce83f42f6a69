package lookup

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// sideBySide bounds the requests that are under way for one batch.
const sideBySide = 16

// Object is one that a look-up may be asked for.
type Object struct{ Kind, ID string }

// Together says that all these objects are about to be asked for under the context, one after the other, and that an answer may be as
// old as the first question: they are the objects of one batch. The first Find looks up all of its kind at once.
func Together(ctx context.Context, objects []Object) context.Context {
	t := &together{ids: map[string][]string{}, known: map[Object]bool{}, asked: map[asking]*outcomes{}}
	for _, o := range objects {
		if !t.known[o] && safeID(o.ID) {
			t.known[o] = true
			t.ids[o.Kind] = append(t.ids[o.Kind], o.ID)
		}
	}
	return context.WithValue(ctx, togetherKey{}, t)
}

type togetherKey struct{}

func togetherIn(ctx context.Context) *together {
	t, _ := ctx.Value(togetherKey{}).(*together)
	return t
}

type together struct {
	ids   map[string][]string // by kind, each once
	known map[Object]bool

	mu    sync.Mutex
	asked map[asking]*outcomes
}

// asking is who asks for what: policies may be replaced while a batch is decided.
type asking struct {
	set  *Set
	kind string
}

type outcomes struct {
	once sync.Once
	by   map[string]outcome
}

// outcome is how one object's look-up went.
type outcome struct {
	found  map[string]any
	result Result
	err    error
}

// find answers false for an object that is not of the batch, or that is the only one of its kind there.
func (t *together) find(ctx context.Context, s *Set, kind, id string) (outcome, bool) {
	if !t.known[Object{kind, id}] || len(t.ids[kind]) < 2 {
		return outcome{}, false
	}
	t.mu.Lock()
	of := t.asked[asking{s, kind}]
	if of == nil {
		of = &outcomes{}
		t.asked[asking{s, kind}] = of
	}
	t.mu.Unlock()
	of.once.Do(func() { of.by = s.findAll(ctx, kind, t.ids[kind]) })
	o, ok := of.by[id]
	if !ok { // a panic ended it
		o.err = errors.New("look-up: failed")
	}
	return o, true
}

// findAll looks all of these up that are not remembered, side by side, and counts each.
func (s *Set) findAll(ctx context.Context, kind string, ids []string) map[string]outcome {
	spec, by := s.specs[kind], make(map[string]outcome, len(ids))
	var mu sync.Mutex
	note := func(id string, o outcome) {
		s.counts.add(kind, o.result)
		mu.Lock()
		defer mu.Unlock()
		by[id] = o
	}
	var unknown []string
	for _, id := range ids {
		if found, ok := s.remembered(key{kind, id}); ok {
			note(id, outcome{found, Remembered, nil})
		} else {
			unknown = append(unknown, id)
		}
	}
	room := make(chan struct{}, sideBySide)
	var all sync.WaitGroup
	for _, some := range spec.batch.chunks(unknown) {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			defer func() { // here a panic would end the program
				if p := recover(); p != nil {
					for _, id := range some {
						note(id, outcome{nil, Failed, fmt.Errorf("look-up: panic: %T", p)})
					}
				}
			}()
			if len(some) > 1 {
				for id, o := range s.findSome(ctx, kind, spec, some) {
					note(id, o)
				}
				return
			}
			found, result, err := s.find(ctx, kind, some[0])
			note(some[0], outcome{found, result, err})
		})
	}
	all.Wait()
	return by
}
