// Package decide asks the decision point on the guard's behalf. Whatever is not a whole decision in time is
// "policy_unavailable", and the guard denies.
package decide

import (
	"context"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// ErrUnavailable is every failure to get a decision.
var ErrUnavailable = fault.New(fault.Unavailable, "The policy cannot be asked at the moment.").Named("policy_unavailable")

// Client asks one decision point. It is safe for concurrent use.
type Client struct{ pdp *authzen.Client }

// New makes a client for http://, https:// or unix://; the timeout bounds each decision.
func New(url string, timeout time.Duration) (*Client, error) {
	c, err := authzen.NewClient(url, timeout)
	if err != nil {
		return nil, err
	}
	return &Client{pdp: c}, nil
}

// Decide answers the decision, or ErrUnavailable.
func (c *Client) Decide(ctx context.Context, r authzen.Request) (authzen.Response, error) {
	res, err := c.pdp.Evaluate(ctx, r)
	if err != nil {
		return authzen.Response{}, ErrUnavailable.Because(err)
	}
	return res, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.pdp.Close() }
