// Package story plays Gatehouse's main story over HTTP against whatever runs it: the set-up in one process, or a real Kong.
// It knows addresses and answers only, never the inside of what it plays against. The end-to-end tests and `make demo` tell
// the same story.
package story

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	altcha "github.com/altcha-org/altcha-lib-go"
)

// Client sends requests to one base address. Copy it to change the token.
type Client struct {
	HTTP  *http.Client
	Base  string // such as http://127.0.0.1:8000
	Token string // sent as a bearer token where it is not empty
	Heard func(Request, Answer)
}

// Request is one request. Body, where there is one, is sent as JSON unless it is already []byte or a string.
type Request struct {
	Method, Path string
	Body         any
	Header       http.Header
}

// Answer is what came back, read whole.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Took   time.Duration
}

// Problem is the error document (RFC 9457) with Gatehouse's members.
type Problem struct {
	Type       string          `json:"type"`
	Title      string          `json:"title"`
	Status     int             `json:"status"`
	Detail     string          `json:"detail"`
	Code       string          `json:"code"`
	TraceID    string          `json:"trace_id"`
	DecisionID string          `json:"decision_id"`
	Challenge  json.RawMessage `json:"challenge"`
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 4 << 20

// As answers a client that is the same but for its token.
func (c Client) As(token string) Client {
	c.Token = token
	return c
}

// Send sends one request and reads the answer whole. A status is never an error.
func (c Client) Send(ctx context.Context, r Request) (Answer, error) {
	body, err := encode(r.Body)
	if err != nil {
		return Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, c.Base+r.Path, body)
	if err != nil {
		return Answer{}, err
	}
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	start := time.Now()
	res, err := c.HTTP.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: read the answer: %w", r.Method, r.Path, err)
	}
	a := Answer{Status: res.StatusCode, Header: res.Header, Body: data, Took: time.Since(start)}
	if c.Heard != nil {
		c.Heard(r, a)
	}
	return a, nil
}

func encode(body any) (io.Reader, error) {
	switch b := body.(type) {
	case nil:
		return http.NoBody, nil
	case string:
		return bytes.NewReader([]byte(b)), nil
	case []byte:
		return bytes.NewReader(b), nil
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode the body: %w", err)
	}
	return bytes.NewReader(data), nil
}

// Problem reads the answer as a problem document; the zero Problem if it is none.
func (a Answer) Problem() Problem {
	var p Problem
	if a.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(a.Body, &p) != nil {
		return Problem{}
	}
	return p
}

// Decode reads the answer's JSON into v.
func (a Answer) Decode(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("the answer is not the JSON that was expected: %w", err)
	}
	return nil
}

// DecisionID is the edge's name for what it decided; "" where the answer is not its own.
func (a Answer) DecisionID() string { return a.Header.Get("X-Gatehouse-Decision") }

// Is answers an error unless the answer has this status and, where code is not "", is a whole problem document of this code.
func (a Answer) Is(status int, code string) error {
	p := a.Problem()
	if a.Status != status || p.Code != code {
		return fmt.Errorf("want %d %s, got %d %s: %.300s", status, code, a.Status, p.Code, a.Body)
	}
	if code == "" {
		return nil
	}
	var err error
	if p.Type == "" || p.Title == "" || p.Detail == "" || p.TraceID == "" || p.Status != status {
		err = fmt.Errorf("the problem document lacks a member: %s", a.Body)
	}
	if status == http.StatusUnauthorized && a.Header.Get("WWW-Authenticate") == "" {
		err = errors.Join(err, errors.New("401 without WWW-Authenticate"))
	}
	if status == http.StatusTooManyRequests {
		for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy"} {
			if a.Header.Get(name) == "" {
				err = errors.Join(err, errors.New("429 without "+name))
			}
		}
	}
	return err
}

// Solve does the work that a challenge asks for and answers the payload for X-Gatehouse-Challenge.
func Solve(challenge json.RawMessage) (string, error) {
	var c altcha.Challenge
	if err := json.Unmarshal(challenge, &c); err != nil {
		return "", fmt.Errorf("the challenge is not ALTCHA's: %w", err)
	}
	solved, err := altcha.SolveChallengeSafe(c.Challenge, c.Salt, altcha.Algorithm(c.Algorithm), int(c.MaxNumber), 0, nil)
	if err != nil || solved == nil {
		return "", errors.Join(errors.New("the challenge cannot be solved"), err)
	}
	payload, err := json.Marshal(altcha.Payload{
		Algorithm: c.Algorithm, Challenge: c.Challenge, Number: int64(solved.Number), Salt: c.Salt, Signature: c.Signature,
	})
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(payload), nil
}

// Until asks again after each pause until met reports true. It answers the last error, or that time is up.
func Until(ctx context.Context, within, pause time.Duration, met func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		ok, err := met(ctx)
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("not within %s", within), err)
		}
	}
}
