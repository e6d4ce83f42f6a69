package guard

import (
	"context"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// authorizeNamed asks about each object that the request names outside its path. It passes only if all may pass; the first that
// may not is the answer.
func (g *Guard) authorizeNamed(ctx context.Context, s *state) error {
	if len(s.failed) > 0 && s.target.IDs.In == InBody { // in observe mode: a body is read for those alone who have come so far
		return nil
	}
	ids, err := s.named(ctx)
	if err != nil {
		return err
	}
	if len(ids) == 0 { // optional: the collection
		answer, err := g.decide(ctx, s)
		if err != nil {
			return err
		}
		return g.follow(s, answer)
	}
	answers, err := g.decideAll(ctx, s, ids)
	if err != nil {
		return err
	}
	return g.follow(s, answers...)
}

// decideAll answers for each object, in their order and up to the first denial, what is remembered or else what the decision point
// says, which is asked once.
func (g *Guard) decideAll(ctx context.Context, s *state, ids []string) ([]authzen.Response, error) {
	asked := make([]*question, len(ids))
	for i, id := range ids {
		asked[i] = &question{state: s, target: s.target}
		asked[i].target.object = id
	}
	if g.Decisions == nil {
		return g.askAll(ctx, asked)
	}
	answers := make([]authzen.Response, 0, len(ids))
	var unknown []*question
	var gaps []int // where the answers to them belong
	for _, q := range asked {
		answer, known := g.Decisions.Recall(q)
		if !known {
			unknown, gaps = append(unknown, q), append(gaps, len(answers))
		}
		answers = append(answers, answer)
		if known && !answer.Decision { // what stands behind it changes nothing
			break
		}
	}
	if len(unknown) == 0 {
		return answers, nil
	}
	fresh, err := g.askAll(ctx, unknown)
	if err != nil {
		return nil, err
	}
	if outdated(answers, gaps, fresh) { // what was remembered is of another policy or directory than what was said just now
		return g.askAll(ctx, asked)
	}
	for i, answer := range fresh {
		answers[gaps[i]] = answer
	}
	if last := len(fresh) - 1; !fresh[last].Decision {
		answers = answers[:gaps[last]+1]
	}
	return answers, nil
}

// outdated reports whether a remembered answer bears other revisions than a new one.
func outdated(answers []authzen.Response, gaps []int, fresh []authzen.Response) bool {
	type revisions struct{ policy, directory string }
	of := func(a authzen.Response) (r revisions) {
		if a.Context != nil {
			r = revisions{a.Context.Revision, a.Context.DirectoryRevision}
		}
		return r
	}
	next := 0
	for i, a := range answers {
		if next < len(gaps) && gaps[next] == i {
			next++
			continue
		}
		for _, f := range fresh {
			if of(f) != of(a) {
				return true
			}
		}
	}
	return false
}

// askAll asks the decision point, and remembers what it may. It answers one decision at least, and as many as questions unless the
// last of them is a denial.
func (g *Guard) askAll(ctx context.Context, qs []*question) ([]authzen.Response, error) {
	on := make([]authzen.Resource, len(qs))
	for i, q := range qs {
		on[i] = q.target.resource(q.Route)
	}
	at := g.Now()
	answers, err := g.Decider.DecideAll(ctx, qs[0].evaluation(), on)
	if err != nil {
		return nil, err
	}
	for i, a := range answers {
		if i < len(qs) && !a.Decision {
			answers = answers[:i+1]
			break
		}
	}
	if n := len(answers); n == 0 || n > len(qs) || n < len(qs) && answers[n-1].Decision {
		return nil, errFailed.Because(fmt.Errorf("%d decisions on %d objects", n, len(qs)))
	}
	if g.Decisions != nil {
		for i, a := range answers {
			g.Decisions.Keep(qs[i], a, at)
		}
	}
	return answers, nil
}
