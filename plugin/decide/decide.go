// Package decide asks the decision points on the guard's behalf, and remembers what they allow to be remembered. Whatever is
// not a whole decision in time is "policy_unavailable", and the guard denies.
package decide

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// ErrUnavailable is every failure to get a decision.
var ErrUnavailable = fault.New(fault.Unavailable, "The policy cannot be asked at the moment.").Named("policy_unavailable")

const (
	// tolerate is how many failures in a row are taken for bad luck before a decision point goes to the end of the row.
	tolerate = 2
	// probeEvery is how often one at the end of the row is asked whether it is back.
	probeEvery = time.Second
)

// Options of a Client.
type Options struct {
	URLs    []string         // http://, https:// or unix://; the first that is well is asked
	Timeout time.Duration    // of a decision in all, whoever is asked
	Token   telemetry.Secret // shown to all of them; "" for none
	TLS     *tls.Config      // for https://; nil for the system's authorities and no certificate
	Log     *slog.Logger

	Traceparent func(context.Context) string // names the span that asks; nil for none
}

// Client asks one of several decision points that decide alike. The first that is well is asked; when it fails, or has used
// half of the time that is left, the next one is. It is safe for concurrent use.
type Client struct {
	points  []*point
	timeout time.Duration
	log     *slog.Logger
}

// point is one decision point.
type point struct {
	url   string
	pdp   *authzen.Client
	fails atomic.Int64 // in a row
}

func (p *point) well() bool { return p.fails.Load() <= tolerate }

// New makes a client and connects nothing yet.
func New(o Options) (*Client, error) {
	if len(o.URLs) == 0 {
		return nil, errors.New("decision points: at least one")
	}
	c := &Client{timeout: o.Timeout, log: o.Log}
	for _, url := range o.URLs {
		pdp, err := authzen.NewClient(url, o.Timeout, authzen.WithToken(o.Token.Reveal()), authzen.WithTLS(o.TLS), authzen.WithTraceparent(o.Traceparent))
		if err != nil {
			return nil, err
		}
		c.points = append(c.points, &point{url: url, pdp: pdp})
	}
	return c, nil
}

// Decide answers the decision, or ErrUnavailable.
func (c *Client) Decide(ctx context.Context, r authzen.Request) (res authzen.Response, err error) {
	err = c.ask(ctx, func(ctx context.Context, p *authzen.Client) (err error) {
		res, err = p.Evaluate(ctx, r)
		return err
	})
	if err != nil {
		return authzen.Response{}, err
	}
	return res, nil
}

// DecideAll answers the decisions on several resources, all else being as in about, up to the first denial; or ErrUnavailable. They
// are one decision point's, in the time of one decision.
func (c *Client) DecideAll(ctx context.Context, about authzen.Request, on []authzen.Resource) (all []authzen.Response, err error) {
	err = c.ask(ctx, func(ctx context.Context, p *authzen.Client) (err error) {
		all, err = p.EvaluateAll(ctx, about, on)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// ask puts a question to one decision point after the other, until one answers.
func (c *Client) ask(ctx context.Context, question func(context.Context, *authzen.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var failed []error
	row := c.row()
	for i, p := range row {
		err := c.attempt(ctx, p, question, i == len(row)-1)
		if err == nil {
			return nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return ErrUnavailable.Because(errors.Join(failed...))
}

// row is the decision points in the order in which they are asked: their own, but those that are not well come last.
func (c *Client) row() []*point {
	if len(c.points) == 1 {
		return c.points
	}
	row := make([]*point, 0, len(c.points))
	var unwell []*point
	for _, p := range c.points {
		if p.well() {
			row = append(row, p)
		} else {
			unwell = append(unwell, p)
		}
	}
	return append(row, unwell...)
}

// attempt asks p with half of the time that is left, so that there is some for the next, or with all of it if there is none.
func (c *Client) attempt(ctx context.Context, p *point, question func(context.Context, *authzen.Client) error, last bool) error {
	if end, ok := ctx.Deadline(); ok && !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	err := question(ctx, p.pdp)
	switch {
	case err == nil:
		c.revive(p)
	case errors.Is(ctx.Err(), context.Canceled): // the caller went away; that says nothing of the decision point
		return fmt.Errorf("%s: %w", p.url, err)
	default:
		if p.fails.Add(1) == tolerate+1 && len(c.points) > 1 {
			c.log.WarnContext(ctx, "a decision point is not well; others are asked first", "pdp", p.url, "error", err)
		}
		return fmt.Errorf("%s: %w", p.url, err)
	}
	return nil
}

func (c *Client) revive(p *point) {
	if p.fails.Load() != 0 && p.fails.Swap(0) > tolerate && len(c.points) > 1 {
		c.log.Info("a decision point is well again", "pdp", p.url)
	}
}

// Run asks those that are not well every second whether they are back, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.probe(ctx)
		}
	}
}

func (c *Client) probe(ctx context.Context) {
	for _, p := range c.points {
		if !p.well() && p.pdp.Ready(ctx) == nil {
			c.revive(p)
		}
	}
}

// Ready answers a degraded state while decision points are missing, and ErrUnavailable while all are.
func (c *Client) Ready() error {
	missing := 0
	for _, p := range c.points {
		if !p.well() {
			missing++
		}
	}
	switch missing {
	case 0:
		return nil
	case len(c.points):
		return ErrUnavailable
	default:
		return web.Degraded("A decision point is not well; others are asked.")
	}
}

// Points answers which of the decision points are well, by their URL.
func (c *Client) Points() map[string]bool {
	out := make(map[string]bool, len(c.points))
	for _, p := range c.points {
		out[p.url] = p.well()
	}
	return out
}

// Close drops idle connections.
func (c *Client) Close() {
	for _, p := range c.points {
		p.pdp.Close()
	}
}
