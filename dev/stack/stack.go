// Package stack is all of Gatehouse in one process on embedded parts: the gateway that drives the plugin by Kong's frames,
// authsvc over SQLite, the decision point, Redis in process, the mailbox and two copies of the sample upstream. It chooses
// parts and joins them; what a part does is its own package's business.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/dev/mailbox"
	"github.com/gatehouse-auth/gatehouse/dev/orders"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/traced"
	"github.com/gatehouse-auth/gatehouse/policies"
)

// Addresses are where the servers listen, each host:port; port 0 is any free one.
type Addresses struct {
	Gateway, Authsvc, Admin, PDP, Mailbox, Orders1, Orders2 string
	Status                                                  string // the plugin's /healthz and /readyz
}

// Options say what to run. The zero value of each field but KongFile and DataDir has a meaning of its own.
type Options struct {
	KongFile    string        // kong.yml
	DataDir     string        // for what outlives the process; made if missing
	Listen      Addresses     // an empty one is any free port of 127.0.0.1
	DatabaseURL string        // "" for an SQLite file in DataDir
	RedisURL    string        // "" for the embedded Redis
	PolicyDir   string        // "" for the policies that are built in
	DecisionLog string        // file that says how decisions are recorded; "" for none
	Deadline    time.Duration // of one evaluation; 0 for the engine's own
	Plugin      string        // path of gatehouse-plugin, to run it as a child; "" for this process
	Traces      string        // where the edge's and the decision point's spans go: "", none, otlp or a URL
	Log         *slog.Logger
}

// Stack is everything, joined and listening. Run makes it work.
type Stack struct {
	Addresses Addresses
	Logins    *login.Service // for accounts that the developer makes

	gateway   *gateway.Gateway
	engine    *engine.Engine
	directory *directory.Directory
	sockets   string         // folder of the Unix sockets between parts
	redis     *embeddedRedis // nil if Redis is somebody else's
	servers   []*server
	services  []lifecycle.Service
	spans     *tracing.Tracer // of the decision point; nil for none
	ahead     atomic.Int64    // how far the policies' clock is ahead of the real one, in nanoseconds
	closers   []func() error
	why       *decisions
	log       *slog.Logger
}

// New opens the database, listens on every address and joins the parts. Close undoes it.
func New(ctx context.Context, o Options) (s *Stack, err error) {
	s = &Stack{why: newDecisions()}
	s.log = slog.New(s.why.watch(o.Log.Handler()))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return s, fmt.Errorf("data directory: %w", err)
	}
	root, err := rootKey(filepath.Join(o.DataDir, "root.key"))
	if err != nil {
		return s, err
	}
	for _, step := range []func() error{
		func() error { return s.listen(ctx, o.Listen) },
		func() error { return s.makeSockets() },
		func() error { return s.startRedis(o.RedisURL) },
		func() error { s.spans, err = s.tracer(o.Traces, "gatehouse-pdp"); return err },
		func() error { return s.buildOrders() },
		func() error { return s.openDirectory() },
		func() error { return s.buildPDP(ctx, o) },
		func() error { return s.buildAuthsvc(ctx, o, root) },
		func() error { return s.buildGateway(ctx, o, root) },
	} {
		if err := step(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// makeSockets makes a folder for Unix sockets alone: a path may have 107 bytes, which the data directory's can exceed.
func (s *Stack) makeSockets() (err error) {
	if s.sockets, err = os.MkdirTemp("", "gatehouse-"); err != nil {
		return fmt.Errorf("sockets: %w", err)
	}
	s.closers = append(s.closers, func() error { return os.RemoveAll(s.sockets) })
	return nil
}

func (s *Stack) socket(name string) string { return filepath.Join(s.sockets, name+".socket") }

// Run works until ctx ends or a part fails, and returns when all parts have ended.
func (s *Stack) Run(ctx context.Context) error {
	services := append([]lifecycle.Service{}, s.services...)
	for _, srv := range s.servers {
		services = append(services, srv)
	}
	return lifecycle.Run(ctx, services...)
}

// Close releases what New took: files, sockets, the database. Run must have ended.
func (s *Stack) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// Ready waits until a request through the gateway is answered by the plugin and by authsvc.
func (s *Stack) Ready(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = s.ready(ctx); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", last)
		case <-tick.C:
		}
	}
}

// ready asks whether subjects are known, for the key set, which the edge needs too, and then for what only a plugin that knows its
// revocations refuses with 401.
func (s *Stack) ready(ctx context.Context) error {
	if err := s.directory.Ready(); err != nil {
		return err
	}
	asker := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{"/auth/.well-known/jwks.json": http.StatusOK, "/orders": http.StatusUnauthorized} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+path, nil)
		if err != nil {
			return err
		}
		res, err := asker.Do(req)
		if err != nil {
			return err
		}
		_ = res.Body.Close() // only the status was wanted
		if res.StatusCode != want {
			return fmt.Errorf("%s answers %d", path, res.StatusCode)
		}
	}
	return nil
}

// URL is where the guarded APIs are.
func (s *Stack) URL() string { return "http://" + s.Addresses.Gateway }

// MailboxURL is where the mails are.
func (s *Stack) MailboxURL() string { return "http://" + s.Addresses.Mailbox }

// SetPolicyClock makes policies believe that it is t now. Their clock goes on from there, for what they have looked up ages by
// it.
func (s *Stack) SetPolicyClock(t time.Time) { s.ahead.Store(int64(time.Until(t))) }

func (s *Stack) policyNow() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// Why answers what the log says of a denial, or "".
func (s *Stack) Why(decisionID string) string { return s.why.find(decisionID) }

func (s *Stack) buildOrders() error {
	all := orders.NewStore(time.Now)
	for i, name := range []string{Orders1, Orders2} {
		s.serve(name, orders.Handler(all, fmt.Sprintf("copy %d", i+1)))
	}
	return nil
}

func (s *Stack) buildPDP(ctx context.Context, o Options) error {
	var builtIn fs.FS
	if o.PolicyDir == "" {
		builtIn = policies.FS
	}
	var err error
	s.engine, err = engine.Open(ctx, engine.Options{
		Policies: builtIn, Dir: o.PolicyDir, Deadline: o.Deadline, Directory: s.directory, Now: s.policyNow, Log: s.log, Span: traced.Parts(s.spans),
		Services: map[string][]string{"orders": {"http://" + s.Addresses.Orders1, "http://" + s.Addresses.Orders2}},
	})
	if err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	s.services = append(s.services, s.engine)
	return s.decide(o.DecisionLog)
}

// mails is where authsvc's mails go.
func (s *Stack) mails() *mailbox.Mailbox {
	m := mailbox.New(time.Now)
	s.serve(Mailbox, m.Handler())
	return m
}

// database answers the DSN, by default of a file.
func (o Options) database() string {
	if o.DatabaseURL != "" {
		return o.DatabaseURL
	}
	return "sqlite:" + filepath.Join(o.DataDir, "gatehouse.db")
}

func (s *Stack) openDatabase(ctx context.Context, o Options) (*store.DB, error) {
	db, err := store.Open(ctx, o.database())
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, db.Close)
	if err := db.Migrate(ctx); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	return db, nil
}
