package mail_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// TestMain makes a certificate for localhost that this process trusts as it trusts the system's.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "mail")
	if err != nil {
		log.Fatal(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := writeCertificate(roots, filepath.Join(dir, "key.pem")); err != nil {
		log.Fatal(err)
	}
	os.Setenv("SSL_CERT_FILE", roots)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func writeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

func certificate(t *testing.T) *tls.Config {
	t.Helper()
	roots := os.Getenv("SSL_CERT_FILE")
	pair, err := tls.LoadX509KeyPair(roots, filepath.Join(filepath.Dir(roots), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

// received is a mail as the server got it.
type received struct {
	from string
	to   []string
	data []byte
	user string
	tls  bool
}

// backend answers the SMTP commands with the errors that a test sets, and keeps what it takes.
type backend struct {
	onMail, onRcpt, onData, onAuth error
	mails                          chan received
}

func (b *backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	_, encrypted := c.TLSConnectionState()
	return &conversation{b: b, mail: received{tls: encrypted}}, nil
}

type conversation struct {
	b    *backend
	mail received
}

func (c *conversation) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *conversation) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if c.b.onAuth == nil && password != "CANARY p@ss" {
			return errors.New("wrong password")
		}
		c.mail.user = user
		return c.b.onAuth
	}), nil
}

func (c *conversation) Mail(from string, _ *smtp.MailOptions) error {
	c.mail.from = from
	return c.b.onMail
}

func (c *conversation) Rcpt(to string, _ *smtp.RcptOptions) error {
	c.mail.to = append(c.mail.to, to)
	return c.b.onRcpt
}

func (c *conversation) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if c.b.onData == nil {
		c.mail.data = data
		c.b.mails <- c.mail
	}
	return c.b.onData
}

func (c *conversation) Reset()        {}
func (c *conversation) Logout() error { return nil }

// listen starts a mail server for the test and answers its port.
func listen(t *testing.T, b *backend, wrap func(net.Listener) net.Listener, config *tls.Config) string {
	t.Helper()
	b.mails = make(chan received, 4)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	if wrap != nil {
		ln = wrap(ln)
	}
	s := smtp.NewServer(b)
	s.Domain, s.TLSConfig, s.AllowInsecureAuth = "localhost", config, config == nil
	s.ErrorLog = log.New(io.Discard, "", 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Close()
		ln.Close() // in case that Serve has not come to know it yet
		<-done
	})
	return port
}

func sender(t *testing.T, url string) *mail.SMTP {
	t.Helper()
	s, err := mail.NewSMTP(telemetry.Secret(url), "Gatehouse <noreply@gatehouse.example>")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func message() mail.Message {
	return mail.Message{
		To: "ada@example.org", Subject: "Your vérification code", Text: "Tëxt 012345\nsecond line\n.\nafter the dot\n", HTML: "<p>Päge 012345</p>",
	}
}

func taken(t *testing.T, b *backend) received {
	t.Helper()
	select {
	case m := <-b.mails:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("the server got no mail")
		return received{}
	}
}

func TestAMailArrivesInBothForms(t *testing.T) {
	t.Parallel()
	b := &backend{}
	s := sender(t, "smtp://localhost:"+listen(t, b, nil, nil)+"?tls=off")
	if err := s.Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	got := taken(t, b)
	if got.from != "noreply@gatehouse.example" || len(got.to) != 1 || got.to[0] != "ada@example.org" || got.tls {
		t.Errorf("envelope: %+v", got)
	}
	m, err := netmail.ReadMessage(bytes.NewReader(got.data))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "Your vérification code" {
		t.Errorf("subject = %q, %v", subject, err)
	}
	for name, want := range map[string]string{"To": "<ada@example.org>", "From": `"Gatehouse" <noreply@gatehouse.example>`, "Auto-Submitted": "auto-generated"} {
		if m.Header.Get(name) != want {
			t.Errorf("%s: %s, want %s", name, m.Header.Get(name), want)
		}
	}
	if m.Header.Get("Message-Id") == "" || m.Header.Get("Date") == "" {
		t.Error("Message-ID or Date is missing")
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []struct{ media, body string }{{"text/plain", message().Text}, {"text/html", message().HTML}} {
		p, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(p.Header.Get("Content-Type"), want.media) || strings.ReplaceAll(string(body), "\r\n", "\n") != want.body {
			t.Errorf("%s: %s is %q, want %q", want.media, p.Header, body, want.body)
		}
	}
}

func TestAPasswordGoesOverTLSOnly(t *testing.T) {
	t.Parallel()
	t.Run("STARTTLS", func(t *testing.T) {
		t.Parallel()
		b := &backend{}
		s := sender(t, "smtp://mailer:CANARY%20p%40ss@localhost:"+listen(t, b, nil, certificate(t)))
		if err := s.Send(t.Context(), message()); err != nil {
			t.Fatal(err)
		}
		if got := taken(t, b); !got.tls || got.user != "mailer" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("TLS from the first byte", func(t *testing.T) {
		t.Parallel()
		b, config := &backend{}, certificate(t)
		port := listen(t, b, func(ln net.Listener) net.Listener { return tls.NewListener(ln, config) }, config)
		s := sender(t, "smtps://mailer:CANARY%20p%40ss@localhost:"+port)
		if err := s.Send(t.Context(), message()); err != nil {
			t.Fatal(err)
		}
		if got := taken(t, b); got.user != "mailer" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("opportunistic where offered", func(t *testing.T) {
		t.Parallel()
		b := &backend{}
		s := sender(t, "smtp://localhost:"+listen(t, b, nil, certificate(t))+"?tls=opportunistic")
		if err := s.Send(t.Context(), message()); err != nil {
			t.Fatal(err)
		}
		if got := taken(t, b); !got.tls {
			t.Error("the mail went in the clear although the server offers TLS")
		}
	})
	t.Run("not offered", func(t *testing.T) {
		t.Parallel()
		b := &backend{}
		seen := &spy{}
		s := sender(t, "smtp://mailer:CANARY%20p%40ss@localhost:"+listen(t, b, seen.wrap, nil))
		wantUnavailable(t, s.Send(t.Context(), message()))
		if len(b.mails) != 0 || strings.Contains(seen.String(), "AUTH") || strings.Contains(seen.String(), "MAIL") {
			t.Errorf("the client went on in the clear: %s", seen)
		}
	})
	t.Run("a certificate for another host", func(t *testing.T) {
		t.Parallel()
		b := &backend{}
		s := sender(t, "smtp://mailer:CANARY%20p%40ss@127.0.0.1:"+listen(t, b, nil, certificate(t)))
		wantUnavailable(t, s.Send(t.Context(), message()))
	})
}

func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Code != fault.Unavailable || f.Reason != "mail_unavailable" {
		t.Errorf("Send = %v, want unavailable", err)
	}
	wantNoSecret(t, err)
}

func wantRefused(t *testing.T, err error) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Code != fault.Invalid || f.Reason != "mail_refused" {
		t.Errorf("Send = %v, want mail_refused", err)
	}
	wantNoSecret(t, err)
}

// wantNoSecret: what failed is logged, and neither the server's password, the address nor the code belong there (S67).
func wantNoSecret(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, secret := range []string{"CANARY", "ada@example.org", "012345"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error holds %q: %v", secret, err)
		}
	}
}

func TestWhatTheServerAnswersDecidesWhetherToTryAgain(t *testing.T) {
	t.Parallel()
	no := func(code int, text string) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: text}
	}
	for name, c := range map[string]struct {
		b     backend
		final bool
	}{
		"no such mailbox":                          {backend{onRcpt: no(550, "no ada@example.org here")}, true},
		"mailbox full for now":                     {backend{onRcpt: no(452, "ada@example.org is full")}, false},
		"content refused":                          {backend{onData: no(554, "012345 looks like spam")}, true},
		"try again after the data":                 {backend{onData: no(451, "012345 greylisted")}, false},
		"shutting down":                            {backend{onMail: no(421, "bye")}, false},
		"the sender is refused: ours to put right": {backend{onMail: no(553, "noreply may not send")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := c.b
			err := sender(t, "smtp://localhost:"+listen(t, &b, nil, nil)+"?tls=off").Send(t.Context(), message())
			if c.final {
				wantRefused(t, err)
			} else {
				wantUnavailable(t, err)
			}
		})
	}
	t.Run("the password is refused: ours to put right", func(t *testing.T) {
		t.Parallel()
		b := &backend{onAuth: no(535, "CANARY p@ss is not the password")}
		err := sender(t, "smtp://mailer:CANARY%20p%40ss@localhost:"+listen(t, b, nil, certificate(t))).Send(t.Context(), message())
		wantUnavailable(t, err)
	})
}

func TestAServerThatIsAwayIsTriedAgain(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	s := sender(t, fmt.Sprintf("smtp://localhost:%d?tls=off", ln.Addr().(*net.TCPAddr).Port))
	wantUnavailable(t, s.Send(t.Context(), message()))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &backend{}
	wantUnavailable(t, sender(t, "smtp://localhost:"+listen(t, b, nil, nil)+"?tls=off").Send(ctx, message()))
}

// A server that hangs up once it has taken the mail has taken it: to try again would send it twice.
func TestAMailThatWasTakenIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"RSET", "QUIT"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			b, seen := &backend{}, &spy{hangUpAt: at}
			if err := sender(t, "smtp://localhost:"+listen(t, b, seen.wrap, nil)+"?tls=off").Send(t.Context(), message()); err != nil {
				t.Errorf("Send = %v", err)
			}
			taken(t, b)
		})
	}
}

func TestAnAddressCannotCarryCommandsOrHeaders(t *testing.T) {
	t.Parallel()
	b, seen := &backend{}, &spy{}
	s := sender(t, "smtp://localhost:"+listen(t, b, seen.wrap, nil)+"?tls=off")
	for _, to := range []string{"", "ada", "ada@example.org>\r\nRCPT TO:<eve@example.org", "ada@example.org\r\nBcc: eve@example.org", "ada@example.org, eve@example.org"} {
		m := message()
		m.To = to
		wantRefused(t, s.Send(t.Context(), m))
	}
	m := message()
	m.Subject = "x\r\nBcc: eve@example.org\r\n\r\nbody"
	err := s.Send(t.Context(), m)
	if err == nil {
		got, readErr := netmail.ReadMessage(bytes.NewReader(taken(t, b).data))
		if readErr != nil || got.Header.Get("Bcc") != "" {
			t.Errorf("the subject became a header: %v, %v", got, readErr)
		}
	}
	if strings.Contains(seen.String(), "RCPT TO:<eve") {
		t.Error("the server was told to deliver to eve")
	}
}

func TestOnlyAURLThatIsWhollyUnderstoodIsTaken(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"smtp://mail.example", "smtp://mail.example:25?tls=opportunistic", "smtp://mail.example:1025?tls=off", "smtp://[::1]:1025/?tls=off",
		"smtp://u:p@mail.example:587", "smtp://u:p@mail.example?tls=required", "smtps://u:p@mail.example", "smtps://mail.example:465",
	} {
		if _, err := mail.NewSMTP(telemetry.Secret(url), "noreply@gatehouse.example"); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for name, url := range map[string]string{
		"empty":                             "",
		"no scheme":                         "CANARY",
		"host and port alone":               "CANARY.example:587",
		"another scheme":                    "https://u:CANARY@mail.example",
		"no host":                           "smtp://u:CANARY@:587",
		"a path":                            "smtp://u:CANARY@mail.example/CANARY",
		"a fragment":                        "smtp://u:CANARY@mail.example#CANARY",
		"another parameter":                 "smtp://u:CANARY@mail.example?CANARY=1",
		"an unknown tls":                    "smtp://mail.example?tls=CANARY",
		"smtps without TLS":                 "smtps://u:CANARY@mail.example?tls=off",
		"a password in the clear":           "smtp://u:CANARY@mail.example?tls=off",
		"a password perhaps in the clear":   "smtp://u:CANARY@mail.example?tls=opportunistic",
		"no number":                         "smtp://u:CANARY@mail.example:CANARY",
		"port 0":                            "smtp://u:CANARY@mail.example:0",
		"port 65536":                        "smtp://u:CANARY@mail.example:65536",
		"unescaped slash in the password":   "smtp://u:CANARY/x@mail.example",
		"unescaped hash in the password":    "smtp://u:1#CANARY@mail.example",
		"unescaped percent in the password": "smtp://u:CANARY%zz@mail.example",
		"a line feed":                       "smtp://u:CANARY@mail.example\n",
	} {
		_, err := mail.NewSMTP(telemetry.Secret(url), "noreply@gatehouse.example")
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
	for _, from := range []string{"", "Gatehouse", "a@x.example, b@x.example", "a@x.example\r\nBcc: eve@x.example"} {
		if _, err := mail.NewSMTP("smtp://u:CANARY@mail.example", from); err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("sender %q: %v", from, err)
		}
	}
}
