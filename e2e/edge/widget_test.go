package edge_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// widgets are stand-ins for what providers serve: each shows a button, or none, and gives a token for its site key.
var widgets = map[string]struct{ address, script string }{
	"turnstile":    {"https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit", button("turnstile", "")},
	"hcaptcha":     {"https://js.hcaptcha.com/1/api.js?render=explicit", button("hcaptcha", "")},
	"recaptcha_v2": {"https://www.google.com/recaptcha/api.js?render=explicit", button("grecaptcha", "ready: (f) => setTimeout(f), ")},
	"recaptcha_v3": {"https://www.google.com/recaptcha/api.js?render=the%20key", "window.grecaptcha = { ready: (f) => setTimeout(f), execute: async (key, o) => `good ${key} ${o.action}`.replaceAll(' ', '-') };"},
}

func button(name, more string) string {
	return "window." + name + " = { " + more + `render: (place, o) => {
		const b = document.createElement('button');
		b.id = 'human';
		b.textContent = 'I am human';
		b.onclick = () => o.callback(('good ' + o.sitekey + ' ' + o.action).replaceAll(' ', '-'));
		place.append(b);
		b.focus();
	} };`
}

// startHosted is a site whose challenges a stand-in for the provider checks. It answers a tab that gets the stand-in's script.
func startHosted(t *testing.T, name string) (s *site, tab context.Context, wrong func() string) {
	t.Helper()
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action := ""
		if name == "turnstile" || name == "recaptcha_v3" {
			action = `,"action":"use","score":0.9`
		}
		_, _ = fmt.Fprintf(w, `{"success":%v,"hostname":"127.0.0.1"%s}`, strings.HasPrefix(r.FormValue("response"), "good-the-key-use"), action)
	}))
	t.Cleanup(provider.Close)
	s = startSite(t, "'self'", fmt.Sprintf(`{when: always, action: use, secret: "{vault://env/secret}", provider: {name: %s, site_key: the key, secret: s, url: "%s",
		hostnames: [127.0.0.1], min_score_percent: %d}}`, name, provider.URL, map[bool]int{true: 50}[name == "recaptcha_v3"]))
	tab, wrong = browser(t)
	chromedp.ListenTarget(tab, func(event any) {
		if e, ok := event.(*fetch.EventRequestPaused); ok {
			go func() {
				body := base64.StdEncoding.EncodeToString([]byte(widgets[name].script))
				answer := fetch.FulfillRequest(e.RequestID, 200).WithBody(body).WithResponseHeaders([]*fetch.HeaderEntry{{Name: "Content-Type", Value: "text/javascript"}})
				if e.Request.URL != widgets[name].address {
					answer = fetch.FulfillRequest(e.RequestID, 404)
				}
				_ = chromedp.Run(tab, answer) // the page tells
			}()
		}
	})
	elsewhere := []*fetch.RequestPattern{{URLPattern: "https://*.com/*"}}
	do(t, tab, "stand in for the provider", fetch.Enable().WithPatterns(elsewhere))
	return s, tab, wrong
}

// S14, S70: each provider's widget is shown by the edge's page, whose policy lets it and nothing else in, and solved by keyboard.
func TestAHostedWidgetIsShownByThePage(t *testing.T) {
	t.Parallel()
	for name := range widgets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, tab, wrong := startHosted(t, name)
			actions := []chromedp.Action{chromedp.Navigate(s.url + "/shop")}
			if name != "recaptcha_v3" {
				actions = append(actions, chromedp.WaitVisible("#human"), chromedp.KeyEvent(kb.Enter))
			}
			do(t, tab, "solve", append(actions, chromedp.WaitVisible("#goods"))...)
			if s.shop.Load() != 1 || s.unsolved.Load() != 1 {
				t.Errorf("the upstream gave %d pages, the edge asked %d times", s.shop.Load(), s.unsolved.Load())
			}
			if w := wrong(); w != "" {
				t.Error(w)
			}
		})
	}
}

// On a site's own page the widget is in a dialog; who closes it gets the answer that asked.
func TestAHostedWidgetIsADialogOnASitesPage(t *testing.T) {
	t.Parallel()
	s, tab, _ := startHosted(t, "turnstile")
	s.policy = "default-src 'self'; script-src 'self' https://challenges.cloudflare.com"
	var out, label string
	do(t, tab, "close it", chromedp.Navigate(s.url+"/"), chromedp.Evaluate(`fetch('/api/orders', { method: 'POST', body: 'x' }).then((r) => { document.getElementById('out').textContent = r.status; }); ''`, nil),
		chromedp.WaitVisible("dialog[open] #human"), chromedp.Evaluate(`document.getElementById(document.querySelector('dialog').getAttribute('aria-labelledby')).textContent`, &label),
		chromedp.KeyEvent(kb.Escape), chromedp.Poll(`document.getElementById('out')?.textContent`, &out))
	if out != "403" || label != "Veuillez montrer que vous n’êtes pas un robot" {
		t.Errorf("closed: answered %q; labelled %q", out, label)
	}
	do(t, tab, "solve it", chromedp.Evaluate(`document.getElementById('out').textContent = ''`, nil), chromedp.Focus("#order"), chromedp.KeyEvent(kb.Enter),
		chromedp.WaitVisible("dialog[open] #human"), chromedp.KeyEvent(kb.Enter), chromedp.Poll(`document.getElementById('out')?.textContent`, &out))
	if out != "201 201 201 ordered" {
		t.Errorf("answered %q", out)
	}
	var left int
	do(t, tab, "look", chromedp.Evaluate(`document.querySelectorAll('dialog').length`, &left))
	if left != 0 {
		t.Errorf("%d dialogs are left", left)
	}
}
