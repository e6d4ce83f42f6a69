package outage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/orders"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/policies"
)

// remembered is how long the edge remembers a decision at most.
const remembered = 2 * time.Second

func pdpOutages() []outage {
	asks := []string{"policy_unavailable"}
	row := outage{
		may:   map[string][]string{"/orders": asks, "/orders/" + mine: asks, "/orders/" + theirs: asks},
		most:  map[string]time.Duration{"/orders": remembered, "/orders/" + mine: remembered},
		shows: map[string]string{"/orders": "policy_unavailable", "/orders/" + mine: "policy_unavailable", "/account": allowed},
		back:  time.Second, long: remembered, metric: "gatehouse_pdp_up", health: "unavailable", says: []string{`"code":"policy_unavailable"`},
	}
	stopped, silent, slow := row, row, row
	stopped.name, stopped.open = "decision point stopped", func(t *testing.T) (*site, func(), func()) {
		network := toxic.New(t, decisionPoint(t))
		return open(t, around{vault: map[string]string{"pdp": "http://" + network.Address()}}), network.Cut, network.Join
	}
	silent.name, silent.open = "decision point partitioned", func(t *testing.T) (*site, func(), func()) {
		network := toxic.New(t, decisionPoint(t))
		return open(t, around{vault: map[string]string{"pdp": "http://" + network.Address()}}), network.Partition, network.Heal
	}
	slow.name, slow.open = "decision point slow", func(t *testing.T) (*site, func(), func()) {
		network := toxic.New(t, decisionPoint(t))
		// The deadline of a decision is a second here.
		begin := func() { network.Add("latency", map[string]any{"latency": 2000}) }
		return open(t, around{vault: map[string]string{"pdp": "http://" + network.Address()}}), begin, network.Heal
	}
	return []outage{stopped, silent, slow}
}

// yes is an allowance, were it given as it has to be.
const yes = `{"decision":true}`

// nonsense is what a decision point may answer that is no decision.
func nonsense() map[string]http.HandlerFunc {
	says := func(media, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			_, _ = io.WriteString(w, body) // the edge is gone; there is nobody to tell
		}
	}
	const media = "application/json"
	return map[string]http.HandlerFunc{
		"html":          says("text/html", "<!doctype html><title>It works</title>"),
		"html-as-json":  says(media, "<!doctype html><title>It works</title>"),
		"empty":         says(media, ""),
		"no-decision":   says(media, "{}"),
		"null":          says(media, `{"decision":null}`),
		"text":          says(media, `{"decision":"yes"}`),
		"number":        says(media, `{"decision":1}`),
		"other-case":    says(media, `{"Decision":true}`),
		"twice":         says(media, `{"decision":true,"decision":true}`),
		"no-and-yes":    says(media, `{"decision":false,"decision":true}`),
		"no-and-YES":    says(media, `{"decision":false,"DECISION":true}`),
		"truncated":     says(media, `{"decision":true,"context":{"id":"x`),
		"trailing":      says(media, yes+yes),
		"list":          says(media, "["+yes+"]"),
		"no-media-type": says("", yes),
		"plain-text":    says("text/plain", yes),
		"not-utf8":      says(media, "{\"decision\":true,\"context\":{\"reason\":\"\xff\"}}"),
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			_, _ = io.WriteString(w, yes[:len(yes)-1]+`,"context":{"x":"`) // as above
			for block := bytes.Repeat([]byte("x"), 64<<10); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		},
		"short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, yes) // as above
		},
		"created": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, yes) // as above
		},
		"error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, yes) // as above
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/yes" {
				says(media, yes)(w, r)
				return
			}
			http.Redirect(w, r, "/yes", http.StatusTemporaryRedirect)
		},
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"+yes[:10]) // as above
				conn.Close()
			}
		},
	}
}

const nonsenseRoute = `
      - name: "%[1]s"
        paths: ["/%[1]s"]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              issuers: [{issuer: http://issuer.test, jwks_url: "{vault://env/keys}", audiences: [gatehouse-api]}]
              resources: [{pattern: /%[1]s, type: order}]
              pdp: {url: "{vault://env/%[1]s}", timeout_ms: 1000}
              redis_url: "{vault://env/redis}"
`

// S56: nothing that is not exactly a decision allows anything, and once decisions come again, they count again.
func TestNonsenseIsNoDecision(t *testing.T) {
	t.Parallel()
	config, vault := routes[:strings.Index(routes, "      - name: orders")], map[string]string{}
	may, most, paths := map[string][]string{}, map[string]time.Duration{}, []string{}
	var mad atomic.Bool
	decide := reverse(t)
	for name, answer := range nonsense() {
		front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if mad.Load() {
				answer(w, r)
				return
			}
			decide.ServeHTTP(w, r)
		}))
		front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		front.Start()
		t.Cleanup(front.Close)
		path := "/" + name
		config += fmt.Sprintf(nonsenseRoute, name)
		vault[name], may[path], most[path], paths = front.URL, []string{"policy_unavailable"}, remembered, append(paths, path)
	}
	s := open(t, around{config: config, vault: vault})
	s.may, s.most = may, most
	s.kinds = []kind{
		{name: "good", paths: paths, token: signed(t, key(t), nil), want: allowed},
		{name: "role missing", paths: paths, token: signed(t, key(t), map[string]any{"roles": []string{"guest"}}), want: "forbidden"},
	}
	s.start()
	s.wait("the edge serves", s.settled(starting))
	s.enter(well)
	s.wait("all is well", s.settled(well))
	s.enter(away)
	mad.Store(true)
	for _, path := range paths {
		for _, k := range s.kinds {
			s.wait(path+" knows no decision", func() bool { return s.sighted(sight{away, k.name, path, "policy_unavailable"}) })
		}
	}
	s.lasts(remembered)
	if got := s.health(); got != "unavailable" {
		t.Errorf("/readyz says %q", got)
	}
	s.enter(returning)
	mad.Store(false)
	s.wait("everything is as before", s.settled(returning))
	s.enter(again)
	s.wait("all is well again", s.settled(again))
	s.finish()
}

// shared is a decision point for all rows: compiling the policies once is enough.
type shared struct {
	once    sync.Once
	err     error
	address string
	handler http.Handler
	closing []func()
}

// decisionPoint answers the address of one that decides by policies/.
func decisionPoint(t *testing.T) string {
	t.Helper()
	point.once.Do(func() { point.err = point.start() })
	if point.err != nil {
		t.Fatal(point.err)
	}
	return point.address
}

// reverse answers what decides as decisionPoint does, to be put behind something else.
func reverse(t *testing.T) http.Handler {
	t.Helper()
	decisionPoint(t)
	return point.handler
}

func (p *shared) start() error {
	quiet := slog.New(slog.DiscardHandler)
	store := orders.NewStore(time.Now)
	if o := store.Add(orders.Order{Owner: me, Department: "sales", Item: "desk", Amount: 24900}); o.ID != mine {
		return fmt.Errorf("the first order has number %s", o.ID)
	}
	api := httptest.NewServer(orders.Handler(store, "1"))
	files, err := relaxed()
	if err != nil {
		return err
	}
	e, err := engine.Open(context.Background(), engine.Options{
		Policies: files, Services: map[string][]string{"orders": {api.URL}}, Deadline: time.Second, Log: quiet,
	})
	if err != nil {
		return err
	}
	log := decisionlog.New(quiet)
	ctx, cancel := context.WithCancel(context.Background())
	var logging sync.WaitGroup
	logging.Go(func() { _ = log.Run(ctx) }) // it writes to nobody
	p.handler = server.New(server.Options{Engine: e, DecisionLog: log, Log: quiet})
	pdp := httptest.NewServer(p.handler)
	p.address = pdp.Listener.Addr().String()
	p.closing = []func(){pdp.Close, e.Close, cancel, logging.Wait, api.Close}
	return nil
}

func (p *shared) close() {
	for _, f := range p.closing {
		f()
	}
}

// relaxed is policies/ with a deadline for look-ups that a busy machine can keep.
func relaxed() (fs.FS, error) {
	files := fstest.MapFS{}
	err := fs.WalkDir(policies.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(policies.FS, name)
		files[name] = &fstest.MapFile{Data: text}
		return err
	})
	if err != nil {
		return nil, err
	}
	lookups := files["gatehouse/lookups.yaml"]
	if lookups == nil || !bytes.Contains(lookups.Data, []byte("deadline: 20ms")) {
		return nil, errors.New("policies/gatehouse/lookups.yaml no longer has its deadline")
	}
	lookups.Data = bytes.Replace(lookups.Data, []byte("deadline: 20ms"), []byte("deadline: 1s"), 1)
	return files, nil
}
