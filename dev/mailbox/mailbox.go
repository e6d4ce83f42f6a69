// Package mailbox stands in for a mail server in development: it keeps what is sent in memory and shows it on a page, newest
// first, and as JSON. A mail is other people's text: its HTML is shown only in a sandboxed frame, without scripts and
// without loading anything.
package mailbox

import (
	"context"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
)

// keep is how many mails are remembered.
const keep = 500

// Item is one mail as the page and /messages.json show it.
type Item struct {
	ID      string    `json:"id"`
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	HTML    string    `json:"html"`
	At      time.Time `json:"at"`
}

// Mailbox keeps the last 500 mails.
type Mailbox struct {
	now func() time.Time

	mu    sync.Mutex
	next  int
	items []Item // oldest first
}

// New answers an empty mailbox.
func New(now func() time.Time) *Mailbox { return &Mailbox{now: now} }

// Send keeps one mail; it makes the mailbox a mail.Sender, and never fails.
func (m *Mailbox) Send(_ context.Context, msg mail.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	m.items = append(m.items, Item{
		ID: strconv.Itoa(m.next), To: msg.To, Subject: msg.Subject, Text: msg.Text, HTML: msg.HTML, At: m.now().UTC(),
	})
	if len(m.items) > keep {
		m.items = m.items[len(m.items)-keep:]
	}
	return nil
}

// Messages answers the mails, newest first.
func (m *Mailbox) Messages() []Item {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Item, 0, len(m.items))
	for i := len(m.items) - 1; i >= 0; i-- {
		list = append(list, m.items[i])
	}
	return list
}

// Handler serves the page at / and the list at /messages.json.
func (m *Mailbox) Handler() http.Handler {
	tmpl := template.Must(template.New("page").Parse(page))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /messages.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m.Messages()) // the client is gone; there is nobody to tell
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = tmpl.Execute(w, m.Messages()) // the client is gone; there is nobody to tell
	})
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

const page = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>Mailbox</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
article{border:1px solid #ccc;border-radius:.5rem;padding:1rem;margin:1rem 0}
h2{font-size:1.1rem;margin:0}pre{white-space:pre-wrap}iframe{width:100%;height:16rem;border:1px solid #ddd}
small{color:#555}
</style></head><body><h1>Mailbox</h1>
{{range .}}<article><h2>{{.Subject}}</h2>
<small>to {{.To}}, <time datetime="{{.At.Format "2006-01-02T15:04:05Z07:00"}}">{{.At.Format "2006-01-02 15:04:05"}} UTC</time></small>
<pre>{{.Text}}</pre>
{{if .HTML}}<details><summary>HTML</summary><iframe sandbox="" title="{{.Subject}}" srcdoc="{{.HTML}}"></iframe></details>{{end}}
</article>{{else}}<p>No mail yet.</p>{{end}}
</body></html>
`
