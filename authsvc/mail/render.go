package mail

import (
	"embed"
	"fmt"
	html "html/template"
	"maps"
	"strings"
	text "text/template"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
)

//go:embed templates
var files embed.FS

// Renderer makes messages of jobs. It is safe for concurrent use.
type Renderer struct {
	text map[job.Template]*text.Template // defines "subject" and "body"
	html map[job.Template]*html.Template
}

// NewRenderer parses every template, so that a broken one shows at start and not at the first mail.
func NewRenderer() (*Renderer, error) {
	r := &Renderer{text: map[job.Template]*text.Template{}, html: map[job.Template]*html.Template{}}
	for _, name := range []job.Template{job.VerificationCode, job.RegistrationAttempt, job.RefreshTokenReused} {
		base := "templates/" + string(name)
		t, err := text.New("").Option("missingkey=error").ParseFS(files, base+".txt")
		if err != nil {
			return nil, fmt.Errorf("mail template: %w", err)
		}
		h, err := html.New("").Option("missingkey=error").ParseFS(files, base+".html", "templates/layout.html")
		if err != nil {
			return nil, fmt.Errorf("mail template: %w", err)
		}
		r.text[name], r.html[name] = t, h
	}
	return r, nil
}

// Render answers the message for m. It fails for a template that is unknown or lacks data.
func (r *Renderer) Render(m job.Mail) (Message, error) {
	t, known := r.text[m.Template]
	if !known {
		return Message{}, fmt.Errorf("mail template %q is unknown", m.Template)
	}
	data := maps.Clone(m.Data)
	if data == nil {
		data = map[string]string{}
	}
	if !m.ExpiresAt.IsZero() {
		data["expires"] = m.ExpiresAt.UTC().Format("15:04 on 2 January 2006 (UTC)")
	}
	var subject, body, page strings.Builder
	if err := t.ExecuteTemplate(&subject, "subject", data); err != nil {
		return Message{}, fmt.Errorf("mail subject: %w", err)
	}
	if err := t.ExecuteTemplate(&body, "body", data); err != nil {
		return Message{}, fmt.Errorf("mail text: %w", err)
	}
	if err := r.html[m.Template].ExecuteTemplate(&page, "layout", data); err != nil {
		return Message{}, fmt.Errorf("mail page: %w", err)
	}
	return Message{To: m.To, Subject: subject.String(), Text: body.String(), HTML: page.String()}, nil
}

// Useful reports whether m is still worth sending at now.
func Useful(m job.Mail, now time.Time) bool { return m.ExpiresAt.IsZero() || now.Before(m.ExpiresAt) }
