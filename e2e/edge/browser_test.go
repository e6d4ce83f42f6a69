package edge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// siteConfig guards a site: its pages stand open, the shop and the orders want a challenge.
const siteConfig = `
_format_version: "3.0"
upstreams:
  - name: site
    targets: [{target: "site:80", weight: 100}]
services:
  - name: site
    host: site
    port: 80
    routes:
      - name: pages
        paths: ["/"]
        strip_path: false
        plugins: [{name: gatehouse, config: {identify: none, authorize: false}}]
      - name: shop
        paths: ["/shop"]
        strip_path: false
        plugins:
          - name: gatehouse
            config: &guarded
              identify: none
              authorize: false
              challenge: CHALLENGE
              redis_url: "{vault://env/redis}"
      - name: orders
        paths: ["/api/orders"]
        strip_path: false
        plugins: [{name: gatehouse, config: *guarded}]
`

const siteWork = `{when: always, action: use, max_number: 100000, secret: "{vault://env/secret}"}`

// site is a site that has never heard of challenges, but for one script tag.
type site struct {
	url      string
	shop     atomic.Int64 // pages that the upstream has given
	mu       sync.Mutex
	orders   []string    // bodies that the upstream has got
	policy   string      // of the site's page
	failing  atomic.Bool // whether solutions are answered by nonsense
	unsolved atomic.Int64
}

func startSite(t *testing.T, workers, challenge string) *site {
	t.Helper()
	s := &site{policy: "default-src 'self'; worker-src " + workers}
	upstream := httptest.NewServer(s.handler())
	t.Cleanup(upstream.Close)
	status := testenv.Spare(t)
	edge := gate(t, []byte(strings.Replace(siteConfig, "CHALLENGE", challenge, 1)), socket(t), status, map[string]string{"site:80": host(upstream)}, map[string]string{
		"secret": "0123456789abcdef0123456789abcdef", "redis": testenv.Redis(t),
	})
	await.That(t, "the edge serves", func() bool {
		res, err := testhttp.Client.Get(edge + "/")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == 200
	})
	to, err := url.Parse(edge)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode == http.StatusForbidden {
			s.unsolved.Add(1)
		}
		return nil
	}
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.failing.Load() && r.Header.Get("X-Gatehouse-Challenge") != "" {
			http.Error(w, "nonsense", http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	s.url = front.URL
	return s
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", s.policy)
		_, _ = io.WriteString(w, `<!doctype html><html lang="fr"><title>Site</title><script src="/.well-known/gatehouse/challenge.js"></script>
			<button id="order">Order</button><output id="out"></output><script src="/app.js"></script></html>`)
	})
	mux.HandleFunc("GET /app.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, `
			window.said = [];
			window.took = 0;    // by the check, in milliseconds
			window.slowest = 0; // the longest that the page stood still meanwhile
			let last = performance.now();
			setInterval(() => {
				const now = performance.now(), passed = now - last;
				last = now;
				if (document.getElementById('gatehouse-status').textContent) {
					window.took += passed;
					window.slowest = Math.max(window.slowest, passed);
				}
			}, 5);
			document.addEventListener('DOMContentLoaded', () => {
				const region = document.getElementById('gatehouse-status');
				new MutationObserver(() => window.said.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
			});
			document.getElementById('order').onclick = async () => {
				const one = (n) => fetch('/api/orders', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ n }) });
				const answers = await Promise.all([one(1), one(2), one(3)]);
				document.getElementById('out').textContent = answers.map((r) => r.status).join(' ') + ' ' + await answers[0].text();
			};`)
	})
	mux.HandleFunc("POST /api/orders", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.orders = append(s.orders, r.Header.Get("Content-Type")+" "+string(body))
		s.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "ordered")
	})
	mux.HandleFunc("GET /shop", func(w http.ResponseWriter, _ *http.Request) {
		s.shop.Add(1)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><html lang="en"><title>Shop</title><p id="goods">Goods</p></html>`)
	})
	return mux
}

// browser opens a tab and answers it with what went wrong there: refused by a policy, thrown, or logged as an error.
func browser(t *testing.T) (ctx context.Context, wrong func() string) {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(testenv.Chromium(t)), chromedp.NoSandbox, //nolint:gocritic // a copy is meant
		chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("accept-lang", "de-CH,en"))
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {})) // events that it does not know yet
	t.Cleanup(cancel)
	var mu sync.Mutex
	var lines []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf(format, args...))
	}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *log.EventEntryAdded:
			if !strings.Contains(e.Entry.Text, "status of 403") && !strings.HasSuffix(e.Entry.URL, "/favicon.ico") && e.Entry.Level == log.LevelError {
				note("%s: %s", e.Entry.URL, e.Entry.Text)
			}
		case *runtime.EventExceptionThrown:
			note("thrown: %s", e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				for _, a := range e.Args {
					note("console: %s %s", a.Value, a.Description)
				}
			}
		}
	})
	if err := chromedp.Run(ctx, log.Enable(), runtime.Enable()); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(lines, "\n")
	}
}

func do(t *testing.T, ctx context.Context, what string, actions ...chromedp.Action) { //nolint:revive // as helpers of tests do
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// S14, S28, S70: a browser that comes to a guarded page is shown one that lets it through by itself; the upstream is asked
// once, and scripts do not see the clearance.
func TestABrowserIsLetThroughByItself(t *testing.T) {
	t.Parallel()
	s := startSite(t, "'self'", siteWork)
	tab, wrong := browser(t)
	var cookies string
	do(t, tab, "come to the shop", chromedp.Navigate(s.url+"/shop"), chromedp.WaitVisible("#goods"), chromedp.Evaluate("document.cookie", &cookies))
	if s.shop.Load() != 1 || s.unsolved.Load() != 1 {
		t.Errorf("the upstream gave %d pages, the edge asked %d times; want once each", s.shop.Load(), s.unsolved.Load())
	}
	if cookies != "" {
		t.Errorf("scripts see %q", cookies)
	}
	do(t, tab, "come again", chromedp.Navigate(s.url+"/shop"), chromedp.WaitVisible("#goods"))
	if s.unsolved.Load() != 1 {
		t.Error("the clearance did not clear")
	}
	do(t, tab, "read the cookies", chromedp.ActionFunc(func(ctx context.Context) error {
		all, err := network.GetCookies().Do(ctx)
		if err == nil && (len(all) != 1 || all[0].Name != "__Host-gatehouse-clearance" || !all[0].HTTPOnly || !all[0].Secure || all[0].SameSite != network.CookieSameSiteLax) {
			t.Errorf("cookies %+v", all)
		}
		return err
	}))
	if w := wrong(); w != "" {
		t.Error(w)
	}
}

// A site adopts challenges by one script tag: three requests at once, made by Enter, are repeated with their bodies, one
// solution clears the others, what happens is said in the site's language, and the page stays alive meanwhile. The site's
// policy may forbid workers.
func TestASiteAdoptsChallengesByOneScriptTag(t *testing.T) {
	t.Parallel()
	for _, workers := range []string{"'self'", "'none'"} {
		t.Run("worker-src "+workers, func(t *testing.T) {
			t.Parallel()
			s := startSite(t, workers, siteWork)
			tab, wrong := browser(t)
			var out string
			var said []string
			var took, slowest float64
			do(t, tab, "order", chromedp.Navigate(s.url+"/"), chromedp.Focus("#order"), chromedp.KeyEvent(kb.Enter),
				chromedp.Poll(`document.getElementById('out')?.textContent`, &out),
				chromedp.Evaluate("window.said", &said), chromedp.Evaluate("window.took", &took), chromedp.Evaluate("window.slowest", &slowest))
			if out != "201 201 201 ordered" {
				t.Errorf("answered %q", out)
			}
			s.mu.Lock()
			orders := strings.Join(s.orders, "\n")
			s.mu.Unlock()
			for _, n := range []string{"1", "2", "3"} {
				if strings.Count(orders, `application/json {"n":`+n+`}`) != 1 {
					t.Errorf("the upstream got %s", orders)
				}
			}
			if n := s.unsolved.Load(); n != 3 {
				t.Errorf("the edge asked %d times, want 3: once for each, of which one solved", n)
			}
			if len(said) < 2 || !strings.HasPrefix(said[0], "Vérification") || said[len(said)-1] != "" {
				t.Errorf("said %q", said)
			}
			if took > 300 && slowest > took/2 {
				t.Errorf("the page stood still for %.0f of %.0f ms", slowest, took)
			}
			if w := wrong(); w != "" && !(workers == "'none'" && strings.Contains(w, "worker-src")) {
				t.Error(w)
			}
		})
	}
}

// Who cannot see or use a mouse is told what happens and can try again: a status that is read out, a button that has the
// focus, in the person's language.
func TestWhenTheCheckFailsAKeyboardIsEnough(t *testing.T) {
	t.Parallel()
	s := startSite(t, "'self'", siteWork)
	s.failing.Store(true)
	tab, _ := browser(t)
	var lang, focused string
	var roles []string
	do(t, tab, "fail", chromedp.Navigate(s.url+"/shop"), chromedp.WaitVisible("button"),
		chromedp.Evaluate("document.documentElement.lang", &lang), chromedp.Evaluate("document.activeElement.textContent", &focused),
		chromedp.ActionFunc(func(ctx context.Context) error {
			nodes, err := accessibility.GetFullAXTree().Do(ctx)
			for _, n := range nodes {
				if !n.Ignored && n.Role != nil && n.Name != nil {
					roles = append(roles, plain(n.Role.Value)+" "+plain(n.Name.Value))
				}
			}
			return err
		}))
	if lang != "de" || focused != "Noch einmal versuchen" {
		t.Errorf("language %q, focus on %q", lang, focused)
	}
	tree := strings.Join(roles, "\n")
	for _, want := range []string{"main ", "heading Einen Moment", "status ", "button Noch einmal versuchen", "StaticText Die Prüfung ist nicht gelungen."} {
		if !strings.Contains(tree, want) {
			t.Errorf("no %s in the accessibility tree:\n%s", want, tree)
		}
	}
	s.failing.Store(false)
	do(t, tab, "try again", chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#goods"))
}

// plain is the text that a JSON value holds.
func plain(v []byte) string {
	var text string
	if json.Unmarshal(v, &text) != nil {
		return string(v)
	}
	return text
}

func TestWithoutScriptsThePageSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := startSite(t, "'self'", siteWork)
	tab, _ := browser(t)
	var text string
	do(t, tab, "come without scripts", emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(s.url+"/shop"), chromedp.Text("main", &text))
	if !strings.Contains(text, "braucht JavaScript") {
		t.Errorf("the page says %q", text)
	}
}
