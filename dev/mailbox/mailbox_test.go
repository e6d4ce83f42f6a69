package mailbox_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
	"github.com/gatehouse-auth/gatehouse/dev/mailbox"
)

func send(t *testing.T, to mail.Sender, m mail.Message) {
	t.Helper()
	if err := to.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func TestMailsAreShownNewestFirstAndCannotRun(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	m := mailbox.New(func() time.Time { return now })
	send(t, m, mail.Message{To: "ada@example.test", Subject: "first", Text: "one"})
	send(t, m, mail.Message{To: "eve@example.test", Subject: "<script>alert(1)</script>", Text: "</pre><script>", HTML: `"><script>alert(2)</script>`})

	get := func(path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if rec.Code != http.StatusOK {
			t.Fatalf("GET %s: %d", path, rec.Code)
		}
		return rec
	}
	var list []map[string]any
	if err := json.Unmarshal(get("/messages.json").Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[1]["subject"] != "first" || list[1]["to"] != "ada@example.test" || list[1]["at"] != "2026-03-02T09:00:00Z" || list[1]["id"] != "1" {
		t.Fatalf("messages: %v", list)
	}
	rec := get("/")
	if strings.Contains(rec.Body.String(), "<script") {
		t.Errorf("a mail's text became part of the page:\n%s", rec.Body)
	}
	if !strings.Contains(rec.Body.String(), `sandbox=""`) || !strings.Contains(rec.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Error("the page does not fence a mail's HTML in")
	}
}

func TestOldMailsAreForgotten(t *testing.T) {
	t.Parallel()
	m := mailbox.New(time.Now)
	for range 600 {
		send(t, m, mail.Message{})
	}
	if got := m.Messages(); len(got) != 500 || got[0].ID != "600" {
		t.Fatalf("%d mails, newest %s", len(got), got[0].ID)
	}
}
