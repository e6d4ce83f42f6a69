package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Site is what the story is played against. Only the addresses are needed; a step that wants more than the site can do is
// skipped, and says so.
type Site struct {
	Gateway string // such as http://127.0.0.1:8000
	Mailbox string // where GET /messages.json lists the mails
	HTTP    *http.Client

	// Admin answers the address and the password of a user with the role admin.
	Admin func(context.Context) (email, password string, err error)
	// SetPolicyClock makes the decision point believe that it is this time.
	SetPolicyClock func(time.Time)
	// KillOrders ends one of the targets of the upstream orders.
	KillOrders func() error
	// Why answers what staff find in the log under a decision id, or "".
	Why func(decisionID string) string
}

// Play tells the story against the site and writes the transcript to w. It stops at the first surprise and answers it.
func Play(ctx context.Context, site Site, w io.Writer) error {
	p := newPlay(site, w)
	start := time.Now()
	skipped := 0
	for i, s := range steps() {
		p.title(i+1, s.title)
		var skip skipError
		switch err := s.does(ctx, p); {
		case errors.As(err, &skip):
			skipped++
			p.say("skipped: %s", skip)
		case err != nil:
			p.say("SURPRISE: %v", err)
			return fmt.Errorf("step %d, %s: %w", i+1, s.title, err)
		}
	}
	fmt.Fprintf(w, "\n%d steps, %d skipped, no surprises, %s\n", len(steps()), skipped, time.Since(start).Round(10*time.Millisecond))
	return nil
}

// skipError says why a step cannot be played here.
type skipError string

func (e skipError) Error() string { return string(e) }

type step struct {
	title string
	does  func(context.Context, *play) error
}

func steps() []step {
	return []step{
		{"Registering needs a solved challenge", registers},
		{"Nobody logs in before the address is verified", isNotVerifiedYet},
		{"The code from the mail verifies the address", verifies},
		{"Logging in gives tokens", logsIn},
		{"Ann lists orders and makes one", usesOrders},
		{"Bob may not delete Ann's order, although the API itself would let him", mayNotTouchAnothers},
		{"The admin may, in office hours", adminMay},
		{"The same call at night is denied", adminMayNotAtNight},
		{"Two refreshes at once give one successor", refreshesTwice},
		{"A spent refresh token is replayed: the session ends", replaysRefresh},
		{"More requests than the limit", exceedsTheLimit},
		{"After logging out, the unexpired access token is refused within a second", logsOut},
		{"One target of orders is killed; requests go on", outlivesATarget},
	}
}

// play is one telling of the story: who is in it, and what happened so far.
type play struct {
	Site
	out   io.Writer
	quiet bool // while a loop asks the same again and again
	guest Client

	ann, bob, admin *person
	order           string // the path of Ann's order
	spent           string // a refresh token of Bob's that has been used
}

// person is a user of the API.
type person struct {
	email, password string
	id              string
	tokens          tokens
	client          Client
}

// tokens are what logging in and refreshing answer.
type tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
	SessionID    string `json:"session_id"`
}

func newPlay(site Site, w io.Writer) *play {
	p := &play{Site: site, out: w}
	p.guest = Client{HTTP: site.HTTP, Base: site.Gateway, Heard: p.heard}
	return p
}

func (p *play) title(n int, text string) { fmt.Fprintf(p.out, "\n%2d. %s\n", n, text) }

func (p *play) say(format string, args ...any) {
	fmt.Fprintf(p.out, "    %s\n", fmt.Sprintf(format, args...))
}

// heard writes one line per request: what was asked, what came back, what Gatehouse decided and why, and how long it took.
func (p *play) heard(r Request, a Answer) {
	if p.quiet {
		return
	}
	verdict := "forwarded"
	if code := a.Problem().Code; code != "" {
		verdict = code
	}
	if id := a.DecisionID(); id != "" {
		verdict += "  decision " + id
		if p.Why != nil {
			if why := p.Why(id); why != "" {
				verdict += " (" + why + ")"
			}
		}
	}
	p.say("%-6s %-22s %d  %s  %s", r.Method, r.Path, a.Status, verdict, a.Took.Round(100*time.Microsecond))
}
