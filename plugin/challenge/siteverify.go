package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// Provider names who sets and checks challenges.
type Provider string

// The providers. Generic is anybody who answers a POST of secret and response by {"success": …}, as the others do.
const (
	ALTCHA      Provider = "altcha" // also "": a proof of work of our own, with no third party
	Turnstile   Provider = "turnstile"
	HCaptcha    Provider = "hcaptcha"
	RecaptchaV2 Provider = "recaptcha_v2"
	RecaptchaV3 Provider = "recaptcha_v3"
	Generic     Provider = "siteverify"
)

// Hosted reports whether somebody else checks the solutions.
func (p Provider) Hosted() bool { return p != ALTCHA && p != "" }

// Siteverify is where the provider checks; "" for Generic.
func (p Provider) Siteverify() string {
	switch p {
	case Turnstile:
		return "https://challenges.cloudflare.com/turnstile/v0/siteverify"
	case HCaptcha:
		return "https://api.hcaptcha.com/siteverify"
	case RecaptchaV2, RecaptchaV3:
		return "https://www.google.com/recaptcha/api/siteverify"
	}
	return ""
}

// names reports whether the provider always says for which action a solution was made.
func (p Provider) names() bool { return p == Turnstile || p == RecaptchaV3 }

// HostedOptions of a Hosted.
type HostedOptions struct {
	Provider     Provider
	URL          string           // of siteverify; "" for the provider's own
	SiteKey      string           // public; the page's widget needs it
	Secret       telemetry.Secret // ours and the provider's
	Hostnames    []string         // a solution must come from a page of one of these; none for Generic alone
	MinScore     float64          // 0 to 1; needed for RecaptchaV3. Above 0 a solution without a score is refused
	SendAddress  bool             // tell the provider the client's address
	AllowPrivate bool             // let URL be on the private network, by plain http too
	Timeout      time.Duration    // of one check
	AtOnce       int              // checks at the same moment; 0 is 32
	TTL          time.Duration    // how old a solution may be, and how long it stays spent
	Redis        redis.UniversalClient
	Now          func() time.Time
}

const (
	maxToken      = 8 << 10  // bytes of a solution
	maxVerdict    = 16 << 10 // bytes of the provider's answer
	defaultAtOnce = 32
)

// errBusy is our own limit, not the provider's absence: nobody may bring that about and pass for it.
var errBusy = fault.New(fault.Unavailable, "Too many challenges are being checked at the moment.").Named("challenge_busy")

// ErrAway says that the provider cannot be asked, or does not answer as one would.
var ErrAway = fault.New(fault.Unavailable, "Challenges cannot be checked at the moment.").Named("challenge_provider_away")

// Hosted has a provider check what clients have solved. It is safe for concurrent use.
type Hosted struct {
	HostedOptions
	client *egress.Client
	slots  chan struct{}
}

// NewHosted checks the options. Errors name the field below challenge.
func NewHosted(o HostedOptions) (*Hosted, error) {
	if o.URL == "" {
		o.URL = o.Provider.Siteverify()
	}
	if o.AtOnce <= 0 {
		o.AtOnce = defaultAtOnce
	}
	switch {
	case o.URL == "":
		return nil, errors.New("provider.url: is needed")
	case o.Secret == "":
		return nil, errors.New("provider.secret: is needed")
	case len(o.Hostnames) == 0 && o.Provider != Generic:
		return nil, errors.New("provider.hostnames: at least one is needed")
	case o.MinScore < 0 || o.MinScore > 1 || (o.MinScore == 0 && o.Provider == RecaptchaV3):
		return nil, errors.New("provider.min_score_percent: expected 1 to 100")
	case o.Timeout <= 0:
		return nil, errors.New("provider.timeout_ms: expected a time above zero")
	case o.TTL < time.Second:
		return nil, errors.New("ttl_seconds: at least 1")
	}
	client, err := egress.New(egress.Options{
		Origin: o.URL, AllowPrivate: o.AllowPrivate, AllowHTTP: o.AllowPrivate, Timeout: o.Timeout, Connections: o.AtOnce,
	})
	if err != nil {
		return nil, fmt.Errorf("provider.url: %w", err)
	}
	return &Hosted{HostedOptions: o, client: client, slots: make(chan struct{}, o.AtOnce)}, nil
}

// Close drops idle connections to the provider.
func (h *Hosted) Close() { h.client.Close() }

// HostedChallenge is what a page needs to show the provider's widget.
type HostedChallenge struct {
	Provider Provider `json:"provider"`
	SiteKey  string   `json:"site_key"`
	Action   string   `json:"action"`
}

// Issue says whose widget to show. What is solved there is bound by the provider.
func (h *Hosted) Issue(_ context.Context, b Bind, _ int) (any, error) {
	return HostedChallenge{h.Provider, h.SiteKey, b.Action}, nil
}

// Spend has the provider check the payload, the token that its widget gave. It answers ErrInvalid where the provider says
// no, or says yes to another page, action, time or score, or where the token was used; ErrAway where the provider gives no
// answer that can be understood, and ErrUnavailable where nobody can say whether the token was used.
func (h *Hosted) Spend(ctx context.Context, payload string, b Bind, request string) error {
	if !tokenLike(payload) {
		return ErrInvalid.Because(errors.New("no token"))
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return errBusy
	}
	sum := sha256.Sum256([]byte(payload))
	name := hex.EncodeToString(sum[:])
	if request != "" { // run again, its token must not be asked about again: it would be spent
		if by, err := spentBy(ctx, h.Redis, name); err == nil && by == request {
			return nil
		} // an error is spend's to tell, once the provider has said yes
	}
	v, err := h.ask(ctx, payload, b)
	if err != nil {
		return err
	}
	if err := h.holds(v, b); err != nil {
		return ErrInvalid.Because(err)
	}
	return spend(ctx, h.Redis, name, request, h.TTL+time.Minute) // the provider's own "once" may lag
}

// tokenLike reports whether s could be a provider's token: printable ASCII, not endless.
func tokenLike(s string) bool {
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// verdict is a provider's answer. Fields that it leaves out are empty.
type verdict struct {
	Success  *bool    `json:"success"`
	Hostname string   `json:"hostname"`
	Action   string   `json:"action"`
	Score    *float64 `json:"score"`
	At       string   `json:"challenge_ts"`
	Errors   []string `json:"error-codes"`
}

func (h *Hosted) ask(ctx context.Context, token string, b Bind) (verdict, error) {
	form := url.Values{"secret": {h.Secret.Reveal()}, "response": {token}}
	if h.Provider == HCaptcha && h.SiteKey != "" {
		form.Set("sitekey", h.SiteKey)
	}
	if h.SendAddress && b.Addr.IsValid() {
		form.Set("remoteip", b.Addr.Unmap().String())
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return verdict{}, ErrAway.Because(errors.New("not a URL"))
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	status, _, body, err := h.client.Do(r, maxVerdict)
	if err != nil {
		return verdict{}, ErrAway.Because(err)
	}
	return readVerdict(status, body)
}

// readVerdict tells a refusal from an absence. A refusal is whatever the token, which is the client's, can have brought about:
// a 4xx too, unless it says that we ask too often.
func readVerdict(status int, body []byte) (verdict, error) {
	refused := status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout
	if status != http.StatusOK && !refused {
		return verdict{}, ErrAway.Because(fmt.Errorf("status %d", status))
	}
	var v verdict
	if err := json.Unmarshal(body, &v); err != nil || v.Success == nil {
		if refused {
			return verdict{}, ErrInvalid.Because(fmt.Errorf("status %d", status))
		}
		return verdict{}, ErrAway.Because(errors.New("the answer is no verdict"))
	}
	if *v.Success && !refused {
		return v, nil
	}
	if slices.ContainsFunc(v.Errors, func(e string) bool { return e == "internal-error" }) {
		return verdict{}, ErrAway.Because(errors.New("the provider says internal-error"))
	}
	return verdict{}, ErrInvalid.Because(fmt.Errorf("the provider says no%s", ours(v.Errors)))
}

// ours tells which of our own mistakes the provider complains of: an operator must see that, and nothing else of a stranger's
// text belongs in a log.
func ours(codes []string) string {
	for _, known := range []string{"missing-input-secret", "invalid-input-secret", "not-using-dummy-secret", "sitekey-secret-mismatch", "bad-request", "timeout-or-duplicate"} {
		if slices.Contains(codes, known) {
			return ": " + known
		}
	}
	return ""
}

// holds checks what a successful verdict is about.
func (h *Hosted) holds(v verdict, b Bind) error {
	if len(h.Hostnames) > 0 && !slices.ContainsFunc(h.Hostnames, func(n string) bool { return strings.EqualFold(n, v.Hostname) }) {
		return errors.New("solved on another host")
	}
	if v.Action != b.Action && (h.Provider.names() || v.Action != "") {
		return errors.New("for another action")
	}
	if h.MinScore > 0 && (v.Score == nil || *v.Score < h.MinScore) {
		return errors.New("the score is too low")
	}
	if v.At == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, v.At)
	if err != nil {
		at, err = time.Parse("2006-01-02T15:04:05Z0700", v.At)
	}
	if err != nil {
		return errors.New("the time cannot be read")
	}
	if age := h.Now().Sub(at); age > h.TTL || age < -time.Minute {
		return errors.New("expired")
	}
	return nil
}
