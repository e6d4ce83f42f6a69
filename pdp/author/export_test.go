package author

import "context"

// Said is how a change is put into words: changed and all are requests by condition.
func Said(changed, all map[string]int) (when, unless []string) {
	c := Change{changed: changed}
	c.say(all)
	return c.When, c.Unless
}

// Traced decides and watches which rules hold.
func (p *Policy) Traced(ctx context.Context, all []Question, each func(Question, Decision, []Held)) error {
	on, err := p.program(ctx)
	if err != nil {
		return err
	}
	names := p.names()
	for _, q := range all {
		d, held, _, err := trace(ctx, on, names, q)
		if err != nil {
			return err
		}
		each(q, d, held)
	}
	return nil
}
