package authzen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
)

// EvaluateAll asks for the decisions on several resources, all else being as in about, up to the first denial. The answers are in the
// order of the resources, and as many unless the last of them is a denial. A batch of which one decision could not be made, or that
// does not fit to what was asked, is an error; the caller must deny.
func (c *Client) EvaluateAll(ctx context.Context, about Request, on []Resource) ([]Response, error) {
	batch := BatchRequest{
		Subject: about.Subject, Action: about.Action, Context: about.Context,
		Evaluations: make([]On, len(on)), Options: Options{Semantic: DenyOnFirstDeny},
	}
	for i, r := range on {
		batch.Evaluations[i].Resource = r
	}
	if len(on) == 0 { // the decision point would take it for one evaluation of what stands at the top
		return nil, errors.New("encode evaluations: none")
	}
	body, err := json.Marshal(batch)
	if err != nil {
		return nil, fmt.Errorf("encode evaluations: %w", err)
	}
	answer, err := c.ask(ctx, BatchPath, about, body)
	if err != nil {
		return nil, err
	}
	return parseAll(answer, len(on))
}

// parseAll insists on the member evaluations by this very name, and on decisions as parse does.
func parseAll(answer []byte, asked int) ([]Response, error) {
	if err := onejson.Check(answer); err != nil {
		return nil, fmt.Errorf("decision point answered malformed JSON: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(answer, &members); err != nil {
		return nil, errors.New("decision point answered no object")
	}
	var items []json.RawMessage
	if err := json.Unmarshal(members["evaluations"], &items); err != nil || len(items) == 0 || len(items) > asked {
		return nil, fmt.Errorf("decision point answered %d decisions for %d", len(items), asked)
	}
	all := make([]Response, len(items))
	for i, item := range items {
		r, err := decode(item)
		if err != nil {
			return nil, err
		}
		if r.Context != nil && r.Context.Error != nil {
			return nil, fmt.Errorf("decision point could not decide: status %d", r.Context.Error.Status)
		}
		if all[i] = r; !r.Decision {
			return all[:i+1], nil
		}
	}
	if len(all) < asked {
		return nil, fmt.Errorf("decision point answered %d decisions for %d", len(all), asked)
	}
	return all, nil
}
