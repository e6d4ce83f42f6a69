package store_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/directory"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// unavailable is how a database that is away looks.
func unavailable() error { return fault.New(fault.Unavailable, "").Named("database_unavailable") }

// methods are all that a store does, by name.
func methods(db *store.DB) map[string]func(context.Context) error {
	u := account.User{ID: "u9", Email: "u9@x.test", CreatedAt: noon(), UpdatedAt: noon()}
	r := session.Refresh{Hash: []byte("h"), CreatedAt: noon(), ExpiresAt: noon()}
	keep := func(*profile.Profile) error { return nil }
	ends := func(session.Session) (session.Revocation, []job.Job) { return session.Revocation{}, nil }
	all := roleMethods(db)
	maps.Copy(all, map[string]func(context.Context) error{
		"Ready":            db.Ready,
		"Migrate":          db.Migrate,
		"Accounts.Create":  func(ctx context.Context) error { return db.Accounts().Create(ctx, u, nil) },
		"Accounts.ByID":    func(ctx context.Context) error { _, err := db.Accounts().ByID(ctx, "u9"); return err },
		"Accounts.ByEmail": func(ctx context.Context) error { _, err := db.Accounts().ByEmail(ctx, "u9"); return err },
		"Accounts.NewCode": func(ctx context.Context) error { return db.Accounts().NewCode(ctx, u, account.Code{}) },
		"Accounts.SpendCode": func(ctx context.Context) error {
			return db.Accounts().SpendCode(ctx, "u9", nil, 1, noon())
		},
		"Accounts.Enqueue": func(ctx context.Context) error { return db.Accounts().Enqueue(ctx, job.SendMail(job.Mail{})) },
		"Sessions.Create":  func(ctx context.Context) error { return db.Sessions().Create(ctx, session.Session{ID: "s9"}, r) },
		"Sessions.ByID":    func(ctx context.Context) error { _, err := db.Sessions().ByID(ctx, "s9"); return err },
		"Sessions.Rotate": func(ctx context.Context) error {
			_, err := db.Sessions().Rotate(ctx, []byte("h"), r, nil, noon(), time.Second, ends)
			return err
		},
		"Sessions.Revoke": func(ctx context.Context) error {
			_, err := db.Sessions().Revoke(ctx, "s9", "", session.Revocation{})
			return err
		},
		"Keys.Keys": func(ctx context.Context) error { _, err := db.Keys().Keys(ctx); return err },
		"Keys.Init": func(ctx context.Context) error {
			_, err := db.Keys().Init(ctx, []token.Key{{ID: "k9", State: token.Active}})
			return err
		},
		"Profiles.Create": func(ctx context.Context) error { return db.Profiles().Create(ctx, profile.Profile{ID: "u9"}) },
		"Profiles.ByID":   func(ctx context.Context) error { _, err := db.Profiles().ByID(ctx, "u9"); return err },
		"Profiles.Update": func(ctx context.Context) error { _, err := db.Profiles().Update(ctx, "u9", keep); return err },
	})
	return all
}

// roleMethods are those of roles and of what decision points are told.
func roleMethods(db *store.DB) map[string]func(context.Context) error {
	roles, cause := db.Roles(), role.Cause{Actor: "boss", At: noon()}
	found := func(_ any, err error) error {
		if fault.CodeOf(err) == fault.NotFound {
			return nil
		}
		return err
	}
	set := func(n *role.Subject) error { return nil }
	return map[string]func(context.Context) error{
		"Roles.CreateRole": func(ctx context.Context) error {
			_, _, err := roles.CreateRole(ctx, cause, role.Role{Name: "r9"}, nil)
			if errors.Is(err, role.ErrRoleExists) {
				return nil
			}
			return err
		},
		"Roles.UpdateRole": func(ctx context.Context) error {
			_, _, err := roles.UpdateRole(ctx, cause, "r8", func(*role.Role) error { return nil }, nil)
			return found(nil, err)
		},
		"Roles.DeleteRole": func(ctx context.Context) error {
			return found(roles.DeleteRole(ctx, cause, "r8", func(role.Role) error { return nil }, nil))
		},
		"Roles.Role":  func(ctx context.Context) error { return found(roles.Role(ctx, "r8")) },
		"Roles.Roles": func(ctx context.Context) error { return found(roles.Roles(ctx, role.Page{Limit: 1})) },
		"Roles.Graph": func(ctx context.Context) error { return found(roles.Graph(ctx)) },
		"Roles.Grant": func(ctx context.Context) error {
			return found(roles.Grant(ctx, cause, role.Binding{ID: "b9", Subject: "u9", Role: "r8"}, nil))
		},
		"Roles.Revoke": func(ctx context.Context) error {
			_, _, err := roles.Revoke(ctx, cause, "u9", "r8", "", role.Revocation{})
			return found(nil, err)
		},
		"Roles.Expire":  func(ctx context.Context) error { return found(roles.Expire(ctx, cause, 1)) },
		"Roles.Binding": func(ctx context.Context) error { return found(roles.Binding(ctx, "b8")) },
		"Roles.Bindings": func(ctx context.Context) error {
			return found(roles.Bindings(ctx, role.BindingFilter{}, role.Page{Limit: 1}))
		},
		"Roles.Held":       func(ctx context.Context) error { return found(roles.Held(ctx, "u9")) },
		"Roles.SetSubject": func(ctx context.Context) error { _, _, err := roles.SetSubject(ctx, cause, "u9", set); return err },
		"Roles.DeleteSubject": func(ctx context.Context) error {
			return found(roles.DeleteSubject(ctx, cause, "u8", func(role.Subject) error { return nil }))
		},
		"Roles.Subject":  func(ctx context.Context) error { return found(roles.Subject(ctx, "u8")) },
		"Roles.Subjects": func(ctx context.Context) error { return found(roles.Subjects(ctx, role.Page{Limit: 1})) },
		"Roles.Audits":   func(ctx context.Context) error { return found(roles.Audits(ctx, role.AuditFilter{}, 0, 1)) },
		"Roles.NewEpoch": func(ctx context.Context) error { return found(roles.NewEpoch(ctx)) },
		"Directory.At":   func(ctx context.Context) error { return found(db.Directory().At(ctx)) },
		"Directory.Changes": func(ctx context.Context) error {
			_, _, err := db.Directory().Changes(ctx, "e9", 0, 1)
			if errors.Is(err, directory.ErrGone) {
				return nil
			}
			return err
		},
		"Directory.Snapshot": func(ctx context.Context) error {
			return db.Directory().Snapshot(ctx, func(feed.Begin) error { return nil }, func(feed.Line) error { return nil })
		},
	}
}

// within fails a test whose call does not return; it says nothing of how fast it is.
func within(t *testing.T, call func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	select {
	case err := <-later(func() error { return call(ctx) }):
		return err
	case <-time.After(deadline):
		t.Fatal("it hangs")
		return nil
	}
}

func TestADatabaseThatIsAwayIsUnavailableAndComesBack(t *testing.T) {
	t.Parallel()
	p, dsn := behindProxy(t)
	db := migrated(t, dsn)
	for round := range 2 {
		p.goAway()
		for name, call := range methods(db) {
			if err := within(t, call); !errors.Is(err, unavailable()) {
				t.Errorf("round %d, %s: %v", round, name, err)
			}
		}
		p.comeBack(t)
		eventually(t, "the database answers again", func(ctx context.Context) bool { return db.Ready(ctx) == nil })
		for name, call := range methods(db) {
			if err := within(t, call); errors.Is(err, unavailable()) {
				t.Errorf("round %d, %s, after its return: %v", round, name, err)
			}
		}
	}
}

func TestADatabaseMayComeAfterItsStore(t *testing.T) {
	t.Parallel()
	p, dsn := behindProxy(t)
	p.goAway()
	db := open(t, dsn)
	if err := within(t, db.Migrate); !errors.Is(err, unavailable()) {
		t.Errorf("migrated without a database: %v", err)
	}
	p.comeBack(t)
	if err := db.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	usable(t, db)
}

func TestADatabaseThatHangsIsUnavailableAndComesBack(t *testing.T) {
	t.Parallel()
	p, dsn := behindProxy(t)
	db := migrated(t, dsn)
	p.hang()
	for _, name := range []string{"Ready", "Accounts.ByID", "Accounts.Create"} { // one of each kind: it takes its time
		if err := within(t, methods(db)[name]); !errors.Is(err, unavailable()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.comeBack(t)
	eventually(t, "the database answers again", func(ctx context.Context) bool { return db.Ready(ctx) == nil })
}

func TestADatabaseThatGoesAwayWithinAStepUndoesTheStep(t *testing.T) {
	t.Parallel()
	p, dsn := behindProxy(t)
	db, raw := migrated(t, dsn), past(t, p.direct)
	release := hold(t, raw, `LOCK TABLE river_job`)
	created := later(func() error {
		return db.Accounts().Create(t.Context(), account.User{ID: "u1", CreatedAt: noon(), UpdatedAt: noon()}, nil, job.SendMail(job.Mail{}))
	})
	waitForBlocked(t, raw, 1) // the user is inserted, the job is not
	p.goAway()
	if err := <-created; !errors.Is(err, unavailable()) {
		t.Errorf("got %v", err)
	}
	release()
	p.comeBack(t)
	eventually(t, "the database answers again", func(ctx context.Context) bool { return db.Ready(ctx) == nil })
	if _, err := db.Accounts().ByID(t.Context(), "u1"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("half of the step is there: %v", err)
	}
}

// A caller's deadline counts too, while it waits for a lock in PostgreSQL and for the only writer in SQLite.
func TestABusyDatabaseIsUnavailableWhenTheCallersTimeIsUp(t *testing.T) {
	t.Parallel()
	for name, lock := range map[string]string{"PostgreSQL": `LOCK TABLE users`, "SQLite": `DELETE FROM users`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := databases()[name](t)
			db, raw := migrated(t, dsn), past(t, dsn)
			release := hold(t, raw, lock)
			err := within(t, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				return db.Accounts().Create(ctx, account.User{ID: "u1", CreatedAt: noon(), UpdatedAt: noon()}, nil)
			})
			if !errors.Is(err, unavailable()) {
				t.Errorf("got %v", err)
			}
			release()
			usable(t, db)
		})
	}
}

func TestACallerWhoHangsUpIsNoOutage(t *testing.T) {
	t.Parallel()
	for name, lock := range map[string]string{"PostgreSQL": `LOCK TABLE users`, "SQLite": `DELETE FROM users`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := databases()[name](t)
			db, raw := migrated(t, dsn), past(t, dsn)
			release := hold(t, raw, lock)
			defer release()
			ctx, hangUp := context.WithCancel(t.Context())
			created := later(func() error {
				return db.Accounts().Create(ctx, account.User{ID: "u1", CreatedAt: noon(), UpdatedAt: noon()}, nil)
			})
			if name == "PostgreSQL" {
				waitForBlocked(t, raw, 1)
			}
			hangUp()
			if err := <-created; !errors.Is(err, context.Canceled) || errors.Is(err, unavailable()) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// proxy stands before a PostgreSQL that can thus go away, hang and come back.
type proxy struct {
	target, address string
	direct          string // the DSN past the proxy
	mu              sync.Mutex
	ln              net.Listener
	conns           []net.Conn
	hung            chan struct{} // closed while nothing is passed on
	wg              sync.WaitGroup
}

// behindProxy answers the DSN of a new database behind a proxy.
func behindProxy(t *testing.T) (*proxy, string) {
	t.Helper()
	direct := testenv.Postgres(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, address: "127.0.0.1:0", direct: direct}
	p.comeBack(t)
	t.Cleanup(func() {
		p.goAway()
		p.wg.Wait()
	})
	u.Host = p.address
	return p, u.String()
}

// comeBack listens, at the address that it has always had, and ends what hangs.
func (p *proxy) comeBack(t *testing.T) {
	t.Helper()
	p.goAway()
	ln, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	hung := make(chan struct{})
	p.ln, p.address, p.hung = ln, ln.Addr().String(), hung
	p.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			p.pass(ln, client, hung)
		}
	})
}

func (p *proxy) pass(ln net.Listener, client net.Conn, hung <-chan struct{}) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln != ln { // gone meanwhile
		client.Close()
		server.Close()
		return
	}
	p.conns = append(p.conns, client, server)
	p.wg.Go(func() { _, _ = io.Copy(server, silenced{client, hung}); server.Close() })
	p.wg.Go(func() { _, _ = io.Copy(client, server); client.Close() })
}

// goAway ends all connections and takes no more.
func (p *proxy) goAway() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln == nil {
		return
	}
	p.ln.Close()
	for _, c := range p.conns {
		c.Close()
	}
	p.ln, p.conns = nil, nil
}

// hang leaves all connections open, takes more, and passes nothing on.
func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.hung)
}

// silenced reads on when it hangs, and says nothing of it.
type silenced struct {
	io.Reader
	hung <-chan struct{}
}

func (s silenced) Read(b []byte) (int, error) {
	for {
		n, err := s.Reader.Read(b)
		select {
		case <-s.hung:
			if err == nil {
				continue
			}
			return 0, err
		default:
			return n, err
		}
	}
}

// canary is a password that must never be seen.
const canary = "c4n4ry-p4ssw0rd"

// S67: what is wrong with a DSN is said without the DSN.
func TestNoErrorHoldsTheDSNsPassword(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		canary, "mysql://u:" + canary + "@127.0.0.1/db", "POSTGRES://u:" + canary + "@127.0.0.1/db", ":" + canary, "sqlite://u:" + canary + "@h/db",
		"postgres://u:" + canary + "@127.0.0.1:port/db", "postgres://u:" + canary + "@127.0.0.1/db?sslmode=" + canary,
		"postgres://u:" + canary + "@%zz/db", "postgres://u:" + canary + "%zz@127.0.0.1/db",
		"postgres://u:" + canary + "@127.0.0.1/db?connect_timeout=x", "postgres://u:" + canary + "@127.0.0.1/db?pool_max_conns=x",
		"postgres:user=u password=" + canary + " host=127.0.0.1 port=x",
	} {
		db, err := store.Open(t.Context(), dsn)
		if err == nil {
			db.Close()
			t.Errorf("%q was taken", dsn)
			continue
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

// S67: nor does a server's refusal, nor its absence.
func TestNoOutageTellsThePassword(t *testing.T) {
	t.Parallel()
	right, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, change := range map[string]func(*url.URL){
		"nobody listens": func(u *url.URL) { u.Host = closed.Addr().String() },
		"unknown user":   func(u *url.URL) { u.User = url.UserPassword("nobody", canary) },
		"no database":    func(u *url.URL) { u.Path = "/no_such_database" },
		"no TLS":         func(u *url.URL) { u.RawQuery = "sslmode=require" },
	} {
		u := *right
		u.User = url.UserPassword(right.User.Username(), canary)
		change(&u)
		db := open(t, u.String())
		for method, call := range methods(db) {
			if err := within(t, call); err == nil || strings.Contains(err.Error(), canary) {
				t.Errorf("%s, %s: %v", name, method, err)
			}
		}
	}
}
