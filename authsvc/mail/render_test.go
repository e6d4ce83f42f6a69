package mail_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
)

var until = time.Date(2026, 1, 2, 3, 14, 5, 0, time.FixedZone("CET", 3600))

// mails is every mail that there is, with the data that its job gives it.
func mails() []job.Mail {
	return []job.Mail{
		{Template: job.VerificationCode, To: "ada@example.org", Data: map[string]string{"code": "012345"}, ExpiresAt: until},
		{Template: job.RegistrationAttempt, To: "ada@example.org"},
		{Template: job.RefreshTokenReused, To: "ada@example.org"},
	}
}

func renderer(t *testing.T) *mail.Renderer {
	t.Helper()
	r, err := mail.NewRenderer()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryMailRenders(t *testing.T) {
	t.Parallel()
	r, subjects := renderer(t), map[string]bool{}
	for _, m := range mails() {
		got, err := r.Render(m)
		if err != nil {
			t.Errorf("%s: %v", m.Template, err)
			continue
		}
		if got.To != m.To || got.Subject == "" || subjects[got.Subject] || strings.ContainsAny(got.Subject, "\r\n") {
			t.Errorf("%s: to %q, subject %q", m.Template, got.To, got.Subject)
		}
		subjects[got.Subject] = true
		for form, s := range map[string]string{"text": got.Text, "page": got.HTML} {
			if len(s) < 100 || strings.Contains(s, "<no value>") || strings.Contains(s, "{{") {
				t.Errorf("%s: the %s is %q", m.Template, form, s)
			}
		}
		if strings.Contains(got.Text, "<") || !strings.HasPrefix(got.HTML, "<!doctype html>") || !strings.Contains(got.HTML, "</html>") {
			t.Errorf("%s: text and page are mixed up", m.Template)
		}
		for _, line := range strings.Split(got.Text, "\n") {
			if len(line) > 998 { // RFC 5322 section 2.1.1
				t.Errorf("%s: a line of %d bytes", m.Template, len(line))
			}
		}
		if strings.Contains(got.HTML, "http") || strings.Contains(got.HTML, "<img") {
			t.Errorf("%s: the page loads something from elsewhere, or teaches people to click: %s", m.Template, got.HTML)
		}
	}
}

func TestTheCodeAndItsEndAreInBothForms(t *testing.T) {
	t.Parallel()
	got, err := renderer(t).Render(mails()[0])
	if err != nil {
		t.Fatal(err)
	}
	for form, s := range map[string]string{"text": got.Text, "page": got.HTML} {
		if !strings.Contains(s, "012345") || !strings.Contains(s, "until 02:14 on 2 January 2026 (UTC)") {
			t.Errorf("the %s lacks the code or its end in UTC: %s", form, s)
		}
	}
	if strings.Contains(got.Subject, "012345") {
		t.Error("the subject holds the code: a locked screen shows subjects")
	}
}

func TestDataCannotBecomeMarkup(t *testing.T) {
	t.Parallel()
	m := mails()[0]
	m.Data = map[string]string{"code": `<img src=x onerror="alert('x')">&`}
	got, err := renderer(t).Render(m)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.HTML, "<img") || !strings.Contains(got.HTML, "&lt;img") {
		t.Errorf("the page holds the data as markup: %s", got.HTML)
	}
}

func TestDataDoesNotReachTheSubject(t *testing.T) {
	t.Parallel()
	r := renderer(t)
	for _, m := range mails() {
		m.Data = map[string]string{"code": "x\r\nBcc: eve@example.org", "subject": "x\r\nBcc: eve@example.org"}
		got, err := r.Render(m)
		if err != nil || strings.ContainsAny(got.Subject, "\r\n") || strings.Contains(got.Subject, "Bcc") {
			t.Errorf("%s: subject %q, %v", m.Template, got.Subject, err)
		}
	}
}

func TestAMailThatCannotBeRenderedIsAnError(t *testing.T) {
	t.Parallel()
	r := renderer(t)
	for name, m := range map[string]job.Mail{
		"unknown template": {Template: "no_such_mail", To: "ada@example.org"},
		"no template":      {To: "ada@example.org"},
		"data missing":     {Template: job.VerificationCode, To: "ada@example.org"},
	} {
		if got, err := r.Render(m); err == nil {
			t.Errorf("%s: rendered %+v", name, got)
		}
	}
}

func TestRenderingLeavesTheJobAsItIs(t *testing.T) {
	t.Parallel()
	m := mails()[0]
	if _, err := renderer(t).Render(m); err != nil || len(m.Data) != 1 {
		t.Errorf("data is now %v, %v", m.Data, err)
	}
}

func TestAMailIsUsefulUntilItsEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end, now time.Time
		want     bool
	}{
		"no end":     {time.Time{}, until, true},
		"before it":  {until, until.Add(-1), true},
		"at its end": {until, until, false},
		"after it":   {until, until.Add(1), false},
	} {
		if got := mail.Useful(job.Mail{ExpiresAt: c.end}, c.now); got != c.want {
			t.Errorf("%s: useful = %v", name, got)
		}
	}
}
