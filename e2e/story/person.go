package story

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Account is a verified user of the site who has logged in.
type Account struct {
	ID, Email, Password  string
	Access, Refresh, SID string
	Client               Client // sends the access token
}

// Join registers a new user, verifies the address by the mailbox, and logs in.
func Join(ctx context.Context, site Site) (Account, error) {
	p := newPlay(site, io.Discard)
	who, err := p.join(ctx, "guest")
	if err != nil {
		return Account{}, err
	}
	return who.account(), nil
}

// Login logs in a user who is verified already.
func Login(ctx context.Context, site Site, email, password string) (Account, error) {
	p := newPlay(site, io.Discard)
	who := &person{email: email, password: password}
	if err := p.login(ctx, who); err != nil {
		return Account{}, err
	}
	return who.account(), nil
}

func (who *person) account() Account {
	return Account{
		ID: who.id, Email: who.email, Password: who.password,
		Access: who.tokens.AccessToken, Refresh: who.tokens.RefreshToken, SID: who.tokens.SessionID, Client: who.client,
	}
}

func newPerson(name string) *person {
	return &person{
		email:    strings.ToLower(name) + "-" + strings.ToLower(rand.Text()[:10]) + "@example.com",
		password: "correct horse " + rand.Text(),
	}
}

func (p *play) join(ctx context.Context, name string) (*person, error) {
	who := newPerson(name)
	if err := p.register(ctx, who); err != nil {
		return nil, err
	}
	if err := p.verify(ctx, who); err != nil {
		return nil, err
	}
	return who, p.login(ctx, who)
}

// register asks, is told to solve a challenge, solves it, and asks again.
func (p *play) register(ctx context.Context, who *person) error {
	ask := Request{Method: http.MethodPost, Path: "/auth/register", Body: map[string]string{
		"email": who.email, "password": who.password, "name": "A. Person",
	}}
	a, err := p.guest.Send(ctx, ask)
	if err != nil {
		return err
	}
	if err := a.Is(http.StatusForbidden, "challenge_required"); err != nil {
		return err
	}
	start := time.Now()
	payload, err := Solve(a.Problem().Challenge)
	if err != nil {
		return err
	}
	p.say("solved the challenge in %s", time.Since(start).Round(100*time.Microsecond))
	ask.Header = http.Header{"X-Gatehouse-Challenge": {payload}}
	if a, err = p.guest.Send(ctx, ask); err != nil {
		return err
	}
	if err := a.Is(http.StatusAccepted, ""); err != nil {
		return err
	}
	// The same solution is worth nothing a second time.
	if a, err = p.guest.Send(ctx, ask); err != nil {
		return err
	}
	return a.Is(http.StatusForbidden, "challenge_invalid")
}

// code waits for the newest mail to the address that holds a code.
func (p *play) code(ctx context.Context, email string) (string, error) {
	digits := regexp.MustCompile(`\b\d{6,8}\b`)
	mailbox := Client{HTTP: p.HTTP, Base: p.Mailbox}
	var code string
	err := Until(ctx, 10*time.Second, pause, func(ctx context.Context) (bool, error) {
		a, err := mailbox.Send(ctx, Request{Method: http.MethodGet, Path: "/messages.json"})
		if err != nil {
			return false, err
		}
		var mails []struct{ To, Text string }
		if err := a.Decode(&mails); err != nil {
			return false, err
		}
		for _, m := range mails { // newest first
			if strings.Contains(m.To, email) {
				if code = digits.FindString(m.Text); code != "" {
					return true, nil
				}
			}
		}
		return false, fmt.Errorf("no mail with a code for %s among %d", email, len(mails))
	})
	return code, err
}

func (p *play) verify(ctx context.Context, who *person) error {
	start := time.Now()
	code, err := p.code(ctx, who.email)
	if err != nil {
		return err
	}
	p.say("the mail was there after %s", time.Since(start).Round(time.Millisecond))
	a, err := p.guest.Send(ctx, Request{Method: http.MethodPost, Path: "/auth/verify-email", Body: map[string]string{"email": who.email, "code": code}})
	if err != nil {
		return err
	}
	return a.Is(http.StatusNoContent, "")
}

func (p *play) login(ctx context.Context, who *person) error {
	a, err := p.guest.Send(ctx, loginOf(who))
	if err != nil {
		return err
	}
	if err := a.Is(http.StatusOK, ""); err != nil {
		return err
	}
	if who.tokens, err = readTokens(a); err != nil {
		return err
	}
	who.client = p.guest.As(who.tokens.AccessToken)
	if a, err = who.client.Send(ctx, Request{Method: http.MethodGet, Path: "/auth/me"}); err != nil {
		return err
	}
	var me struct {
		ID       string
		Email    string
		Verified bool `json:"email_verified"`
		Roles    []string
		Created  time.Time `json:"created_at"`
	}
	if err := errors.Join(a.Is(http.StatusOK, ""), a.Decode(&me)); err != nil {
		return err
	}
	if me.ID == "" || me.Email != who.email || !me.Verified || len(me.Roles) == 0 || me.Created.IsZero() {
		return fmt.Errorf("/auth/me answers %s", a.Body)
	}
	who.id = me.ID
	return nil
}

func loginOf(who *person) Request {
	return Request{Method: http.MethodPost, Path: "/auth/login", Body: map[string]string{"email": who.email, "password": who.password}}
}

func readTokens(a Answer) (tokens, error) {
	var t tokens
	if err := json.Unmarshal(a.Body, &t); err != nil {
		return t, fmt.Errorf("the answer holds no tokens: %w", err)
	}
	if t.AccessToken == "" || t.RefreshToken == "" || t.SessionID == "" || t.ExpiresIn <= 0 || t.TokenType != "Bearer" {
		return t, errors.New("the answer lacks a token, its type, its life or the session")
	}
	return t, nil
}

// Register asks for an account of this address, solving the challenge. It tells nothing of whether the address is known.
func Register(ctx context.Context, site Site, email string) error {
	who := newPerson("guest")
	who.email = email
	return newPlay(site, io.Discard).register(ctx, who)
}
