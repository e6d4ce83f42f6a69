package mail

import (
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// timeout bounds one conversation with the mail server.
const timeout = 10 * time.Second

// SMTP sends by a mail server, with one connection for each mail. It is safe for concurrent use.
type SMTP struct {
	host    string
	options []gomail.Option
	from    *netmail.Address
}

// NewSMTP reads the server from a URL and the sender from an address such as "Gatehouse <noreply@example.org>".
//
//	smtp://user:password@host:587     STARTTLS, refused if the server does not offer it
//	smtps://user:password@host:465    TLS from the first byte
//	smtp://host:25?tls=opportunistic  STARTTLS where offered
//	smtp://host:1025?tls=off          plain; refused together with a password
//
// An error never holds the URL, which may bear a password.
func NewSMTP(server telemetry.Secret, from string) (*SMTP, error) {
	u, err := url.Parse(server.Reveal())
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("mail server: not a URL of the form smtp://host:port or smtps://host:port")
	}
	if (u.Path != "" && u.Path != "/") || u.Fragment != "" {
		return nil, errors.New("mail server: the URL has a path or a fragment; nothing reads them")
	}
	s := &SMTP{host: u.Hostname()}
	if s.from, err = netmail.ParseAddress(from); err != nil {
		return nil, fmt.Errorf("mail sender: %w", err)
	}
	tls, err := tlsOf(u)
	if err != nil {
		return nil, err
	}
	s.options = append(s.options, gomail.WithTimeout(timeout), gomail.WithoutNoop())
	port := 587
	switch {
	case u.Scheme == "smtps":
		port = 465
		s.options = append(s.options, gomail.WithSSL())
	default:
		s.options = append(s.options, gomail.WithTLSPolicy(tls))
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return nil, errors.New("mail server: the port is not a number from 1 to 65535")
		}
	}
	s.options = append(s.options, gomail.WithPort(port))
	if u.User != nil {
		password, _ := u.User.Password()
		s.options = append(s.options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover),
			gomail.WithUsername(u.User.Username()), gomail.WithPassword(password))
	}
	if _, err := gomail.NewClient(s.host, s.options...); err != nil {
		return nil, fmt.Errorf("mail server: %w", err)
	}
	return s, nil
}

func tlsOf(u *url.URL) (gomail.TLSPolicy, error) {
	query := u.Query()
	mode := query.Get("tls")
	query.Del("tls")
	if len(query) > 0 {
		return 0, errors.New("mail server: the URL has parameters other than tls")
	}
	switch {
	case u.Scheme == "smtps" && mode == "":
		return gomail.TLSMandatory, nil
	case u.Scheme != "smtp":
		return 0, errors.New("mail server: the URL begins with smtp:// (where tls may be given) or smtps:// (where it may not)")
	case mode == "" || mode == "required":
		return gomail.TLSMandatory, nil
	case u.User != nil:
		return 0, errors.New("mail server: with a password tls must be required")
	case mode == "opportunistic":
		return gomail.TLSOpportunistic, nil
	case mode == "off":
		return gomail.NoTLS, nil
	}
	return 0, errors.New("mail server: tls is required, opportunistic or off")
}

// Send delivers m to the server. It answers fault.Invalid (mail_refused) for what the server will never take, and
// fault.Unavailable for what may pass.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	refused := fault.New(fault.Invalid, "the mail cannot be delivered").Named("mail_refused")
	to, err := netmail.ParseAddress(m.To)
	if err != nil {
		return refused.Because(errors.New("the address cannot be parsed")) // err quotes the address
	}
	msg := gomail.NewMsg()
	msg.FromMailAddress(s.from)
	msg.ToMailAddress(to)
	msg.Subject(m.Subject)
	msg.SetMessageID()
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: keeps out-of-office replies away
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	client, err := gomail.NewClient(s.host, s.options...)
	if err != nil {
		return fmt.Errorf("mail client: %w", err)
	}
	err = client.DialAndSendWithContext(ctx, msg)
	if err == nil || msg.IsDelivered() { // a server that hangs up after it has taken the mail has taken it
		return nil
	}
	answered, final := answerOf(err)
	if final {
		return refused.Because(answered)
	}
	return fault.New(fault.Unavailable, "the mail server does not take the mail at the moment").Named("mail_unavailable").Because(answered)
}

// answerOf answers err without the server's words and the address, which are nothing for a log, and whether the server has
// refused this mail for good. What it says of the sender or of our password is the operator's to put right.
func answerOf(err error) (answered error, final bool) {
	var failed *gomail.SendError
	var said *textproto.Error
	switch {
	case errors.As(err, &failed) && failed.ErrorCode() > 0:
		return fmt.Errorf("%s: the mail server answered %d %s", failed.Reason, failed.ErrorCode(), failed.EnhancedStatusCode()),
			failed.ErrorCode() >= 500 && failed.Reason != gomail.ErrSMTPMailFrom
	case errors.As(err, &failed):
		return errors.New(failed.Reason.String()), false
	case errors.As(err, &said):
		return fmt.Errorf("the mail server answered %d before it would take a mail", said.Code), false
	}
	return err, false
}
