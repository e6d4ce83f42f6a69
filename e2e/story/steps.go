package story

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// The story's days: a Tuesday, by day and by night, in the policy's office hours and out of them.
func officeHours() time.Time { return time.Date(2026, time.March, 3, 10, 0, 0, 0, time.UTC) }
func night() time.Time       { return time.Date(2026, time.March, 3, 23, 0, 0, 0, time.UTC) }

// asked sends a request that must be answered with this status and, unless it is "", this problem's code.
func asked(ctx context.Context, c Client, method, path string, body any, status int, code string) (Answer, error) {
	a, err := c.Send(ctx, Request{Method: method, Path: path, Body: body})
	if err != nil {
		return a, err
	}
	return a, a.Is(status, code)
}

func registers(ctx context.Context, p *play) error {
	if p.SetPolicyClock != nil {
		p.SetPolicyClock(officeHours())
	}
	p.ann = newPerson("Ann")
	return p.register(ctx, p.ann)
}

func isNotVerifiedYet(ctx context.Context, p *play) error {
	a, err := p.guest.Send(ctx, loginOf(p.ann))
	if err != nil {
		return err
	}
	return a.Is(http.StatusForbidden, "email_not_verified")
}

func verifies(ctx context.Context, p *play) error { return p.verify(ctx, p.ann) }
func logsIn(ctx context.Context, p *play) error   { return p.login(ctx, p.ann) }

func usesOrders(ctx context.Context, p *play) error {
	if _, err := asked(ctx, p.guest, http.MethodGet, "/orders", nil, http.StatusUnauthorized, "token_missing"); err != nil {
		return err
	}
	if _, err := asked(ctx, p.ann.client, http.MethodGet, "/orders", nil, http.StatusOK, ""); err != nil {
		return err
	}
	return p.makeOrder(ctx)
}

// makeOrder has Ann make an order; nobody but the gateway says whose it is.
func (p *play) makeOrder(ctx context.Context) error {
	a, err := asked(ctx, p.ann.client, http.MethodPost, "/orders", map[string]any{"item": "a chair", "amount": 4900, "department": "sales"}, http.StatusCreated, "")
	if err != nil {
		return err
	}
	var o struct{ ID, Owner string }
	if err := a.Decode(&o); err != nil {
		return err
	}
	if o.Owner != p.ann.id {
		return fmt.Errorf("the order belongs to %q, not to %q", o.Owner, p.ann.id)
	}
	p.order = "/orders/" + o.ID
	_, err = asked(ctx, p.ann.client, http.MethodGet, p.order, nil, http.StatusOK, "")
	return err
}

func mayNotTouchAnothers(ctx context.Context, p *play) error {
	p.quiet = true
	bob, err := p.join(ctx, "Bob")
	p.quiet = false
	if err != nil {
		return err
	}
	p.bob = bob
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		a, err := asked(ctx, bob.client, method, p.order, nil, http.StatusForbidden, "forbidden")
		if err != nil {
			return err
		}
		if a.DecisionID() == "" || a.DecisionID() != a.Problem().DecisionID {
			return fmt.Errorf("the decision id is %q in the header and %q in the body", a.DecisionID(), a.Problem().DecisionID)
		}
	}
	_, err = asked(ctx, p.ann.client, http.MethodGet, p.order, nil, http.StatusOK, "") // it is still there
	return err
}

func adminMay(ctx context.Context, p *play) error {
	if p.Admin == nil {
		return skipError("no admin is known here")
	}
	email, password, err := p.Admin(ctx)
	if err != nil {
		return err
	}
	p.admin = &person{email: email, password: password}
	if err := p.login(ctx, p.admin); err != nil {
		return err
	}
	if p.SetPolicyClock == nil {
		if now := time.Now().UTC(); now.Weekday() == time.Sunday || now.Hour() < 6 || now.Hour() >= 20 {
			return skipError("it is out of office hours, and the clock is not ours to set")
		}
	}
	if _, err = asked(ctx, p.admin.client, http.MethodDelete, p.order, nil, http.StatusNoContent, ""); err != nil {
		return err
	}
	return p.isGone(ctx, p.admin)
}

// pause suits what comes true within milliseconds; every request of a person counts against her limit.
const pause = 10 * time.Millisecond

// isGone waits until the API itself says so: the decision point may remember the order for a moment (the look-up's ttl).
func (p *play) isGone(ctx context.Context, who *person) error {
	var last Answer
	p.quiet = true
	err := Until(ctx, 3*time.Second, 150*time.Millisecond, func(ctx context.Context) (bool, error) {
		var err error
		last, err = asked(ctx, who.client, http.MethodGet, p.order, nil, http.StatusNotFound, "")
		return err == nil, err
	})
	p.quiet = false
	if err == nil {
		p.heard(Request{Method: http.MethodGet, Path: p.order}, last)
	}
	return err
}

func adminMayNotAtNight(ctx context.Context, p *play) error {
	if p.SetPolicyClock == nil || p.admin == nil {
		return skipError("the decision point's clock is not ours to set")
	}
	if err := p.makeOrder(ctx); err != nil {
		return err
	}
	p.SetPolicyClock(night())
	defer p.SetPolicyClock(officeHours())
	_, err := asked(ctx, p.admin.client, http.MethodDelete, p.order, nil, http.StatusForbidden, "forbidden")
	return err
}

func refreshOf(token string) Request {
	return Request{Method: http.MethodPost, Path: "/auth/refresh", Body: map[string]string{"refresh_token": token}}
}

func (p *play) refresh(ctx context.Context, token string) (tokens, error) {
	a, err := p.guest.Send(ctx, refreshOf(token))
	if err != nil {
		return tokens{}, err
	}
	if err := a.Is(http.StatusOK, ""); err != nil {
		return tokens{}, err
	}
	return readTokens(a)
}

func refreshesTwice(ctx context.Context, p *play) error {
	type result struct {
		answer Answer
		err    error
	}
	const tabs = 2
	quiet := p.guest
	quiet.Heard = nil // the transcript is written below, in order
	results := make(chan result, tabs)
	for range tabs {
		go func() {
			a, err := quiet.Send(ctx, refreshOf(p.bob.tokens.RefreshToken))
			results <- result{a, err}
		}()
	}
	var successors []string
	for range tabs {
		r := <-results
		if r.err != nil {
			return r.err
		}
		p.heard(refreshOf(""), r.answer)
		if err := r.answer.Is(http.StatusOK, ""); err != nil {
			return err
		}
		t, err := readTokens(r.answer)
		if err != nil {
			return err
		}
		successors = append(successors, t.RefreshToken)
	}
	if successors[0] == p.bob.tokens.RefreshToken || len(slices.Compact(successors)) != 1 {
		return errors.New("the refreshes did not give one and the same new token")
	}
	p.say("both got the same new refresh token")
	next, err := p.refresh(ctx, successors[0]) // using it closes the grace of the first
	if err != nil {
		return err
	}
	p.spent = p.bob.tokens.RefreshToken
	p.bob.tokens, p.bob.client = next, p.guest.As(next.AccessToken)
	return nil
}

func replaysRefresh(ctx context.Context, p *play) error {
	a, err := p.guest.Send(ctx, refreshOf(p.spent))
	if err != nil {
		return err
	}
	if a.Status != http.StatusUnauthorized {
		return fmt.Errorf("the replay got %d: %.300s", a.Status, a.Body)
	}
	if a, err = p.guest.Send(ctx, refreshOf(p.bob.tokens.RefreshToken)); err != nil {
		return err
	}
	if a.Status != http.StatusUnauthorized {
		return fmt.Errorf("the session's newest refresh token got %d after the replay", a.Status)
	}
	return p.isRefusedSoon(ctx, p.bob)
}

// isRefusedSoon holds if the edge refuses the access token, for its session, within a second.
func (p *play) isRefusedSoon(ctx context.Context, who *person) error {
	var last Answer
	start := time.Now()
	p.quiet = true
	err := Until(ctx, time.Second, pause, func(ctx context.Context) (bool, error) {
		var err error
		last, err = asked(ctx, who.client, http.MethodGet, "/orders", nil, http.StatusUnauthorized, "session_revoked")
		return err == nil, err
	})
	p.quiet = false
	if err != nil {
		return err
	}
	p.heard(Request{Method: http.MethodGet, Path: "/orders"}, last)
	if last.DecisionID() == "" {
		return errors.New("it was not the edge that refused")
	}
	p.say("refused at the edge %s after the session's end", time.Since(start).Round(time.Millisecond))
	return nil
}

// limitOfOrders is what kong.yml grants a subject in a minute. A window that is used up at its very beginning has room again
// when it is over and has then lost the weight of one request: longestWait seconds.
const (
	limitOfOrders = 60
	longestWait   = 61
)

func exceedsTheLimit(ctx context.Context, p *play) error {
	p.quiet = true
	defer func() { p.quiet = false }()
	for n := 1; n <= 2*limitOfOrders+1; n++ {
		a, err := p.ann.client.Send(ctx, Request{Method: http.MethodGet, Path: "/orders"})
		if err != nil {
			return err
		}
		if a.Status == http.StatusOK {
			continue
		}
		p.quiet = false
		p.say("%d requests went through", n-1)
		p.heard(Request{Method: http.MethodGet, Path: "/orders"}, a)
		if err := a.Is(http.StatusTooManyRequests, "rate_limited"); err != nil {
			return err
		}
		p.say("Retry-After: %s, RateLimit: %s, RateLimit-Policy: %s", a.Header.Get("Retry-After"), a.Header.Get("RateLimit"), a.Header.Get("RateLimit-Policy"))
		wait, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if err != nil || wait < 1 || wait > longestWait {
			return fmt.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
		}
		return nil
	}
	return errors.New("no request was limited")
}

func logsOut(ctx context.Context, p *play) error {
	if _, err := asked(ctx, p.ann.client, http.MethodPost, "/auth/logout", nil, http.StatusNoContent, ""); err != nil {
		return err
	}
	return p.isRefusedSoon(ctx, p.ann)
}

func outlivesATarget(ctx context.Context, p *play) error {
	if p.KillOrders == nil {
		return skipError("the targets are not ours to kill")
	}
	p.quiet = true
	cay, err := p.join(ctx, "Cay")
	p.quiet = false
	if err != nil {
		return err
	}
	if err := p.KillOrders(); err != nil {
		return err
	}
	const requests = 20
	p.quiet = true
	defer func() { p.quiet = false }()
	for range requests {
		if _, err := asked(ctx, cay.client, http.MethodGet, "/orders", nil, http.StatusOK, ""); err != nil {
			return err
		}
	}
	p.say("%d requests, all answered 200", requests)
	return nil
}
