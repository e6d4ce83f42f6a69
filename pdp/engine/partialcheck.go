package engine

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
)

// fewAnswers are so many probes with an unusual answer as are asked again with less of their input.
const fewAnswers = 32

// missed answers whether a form takes something for there that is not. Partial evaluation leaves out what compares a part of the
// input with itself, though it does not hold where there is no such part; made-up inputs lack each part too seldom to show it. So
// each of them that is answered otherwise than most are is asked again without each of its parts.
func missed(ctx context.Context, plain, form func(context.Context, any) said, probes []any, expected []said) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	for _, probe := range unusual(probes, expected) {
		for _, path := range partsWithin(probe, nil) {
			less := dropped(probe, path)
			want, got := plain(ctx, less), form(ctx, less)
			switch {
			case ctx.Err() != nil:
				return false
			case !got.failed && !got.like(want): // what fails is asked of topdown again
				return true
			}
		}
	}
	return false
}

// unusual are probes whose answers are not the one that most have.
func unusual(probes []any, expected []said) (some []any) {
	texts, counts := make([]string, len(expected)), map[string]int{}
	for i, e := range expected {
		text, err := json.Marshal(e.value)
		if err != nil || e.failed || !e.defined {
			continue
		}
		texts[i] = string(text)
		counts[texts[i]]++
	}
	most := ""
	for _, text := range slices.Sorted(maps.Keys(counts)) {
		if counts[text] > counts[most] {
			most = text
		}
	}
	for i, text := range texts {
		if text != "" && text != most && len(some) < fewAnswers {
			some = append(some, probes[i])
		}
	}
	return some
}

// partsWithin are the paths to all members of objects in v.
func partsWithin(v any, at []string) (paths [][]string) {
	object, _ := v.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(object)) {
		here := append(slices.Clone(at), name)
		paths = append(append(paths, here), partsWithin(object[name], here)...)
	}
	return paths
}

// dropped is v without what stands at a path.
func dropped(v any, path []string) any {
	object, _ := v.(map[string]any)
	object = maps.Clone(object)
	if len(path) == 1 {
		delete(object, path[0])
	} else {
		object[path[0]] = dropped(object[path[0]], path[1:])
	}
	return object
}
