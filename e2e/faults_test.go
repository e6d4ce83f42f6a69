package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/stack"
	"github.com/gatehouse-auth/gatehouse/e2e/story"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

// S56: without the decision point nothing that it decides passes; with it, everything does again.
func TestADecisionPointThatIsAwayDenies(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{})
	ann := s.join(t)
	want(t, send(t, ann.Client, http.MethodGet, "/orders", nil), http.StatusOK, "")
	s.stack.Stop(stack.PDP)
	// What is remembered holds for two seconds at most; an order that was never asked for is not remembered.
	want(t, send(t, ann.Client, http.MethodGet, "/orders/1", nil), http.StatusServiceUnavailable, "policy_unavailable")
	until(t, bound(2*time.Second), ann.Client, http.MethodGet, "/orders", http.StatusServiceUnavailable, "policy_unavailable")
	want(t, send(t, ann.Client, http.MethodGet, "/auth/me", nil), http.StatusOK, "") // nothing to decide there
	if err := s.stack.Start(t.Context(), stack.PDP); err != nil {
		t.Fatal(err)
	}
	until(t, bound(time.Second), ann.Client, http.MethodGet, "/orders", http.StatusOK, "")
}

// bound is a bound that holds on a machine of its own; one that runs other tests beside gets more.
func bound(d time.Duration) time.Duration { return 5 * d }

// Without Redis requests go on under a local limit, and the plugin says that it works with less.
func TestWithoutRedisRequestsGoOnUnderALocalLimit(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{})
	ann := s.join(t)
	want(t, send(t, ann.Client, http.MethodGet, "/orders", nil), http.StatusOK, "")
	s.stack.StopRedis()
	limited := false
	for n := 0; n < 130 && !limited; n++ {
		a := send(t, ann.Client, http.MethodGet, "/orders", nil)
		if limited = a.Status == http.StatusTooManyRequests; !limited && a.Status != http.StatusOK {
			t.Fatalf("request %d without Redis: %d %.300s", n, a.Status, a.Body)
		}
	}
	if !limited {
		t.Error("without Redis nothing is limited")
	}
	if got := readiness(t, s); got != "degraded" {
		t.Errorf("the plugin says %q", got)
	}
	if err := s.stack.StartRedis(); err != nil {
		t.Fatal(err)
	}
	err := story.Until(t.Context(), bound(2*time.Second), 50*time.Millisecond, func(context.Context) (bool, error) {
		got := readiness(t, s)
		return got == "ok", fmt.Errorf("the plugin says %q", got)
	})
	if err != nil {
		t.Error(err)
	}
}

func readiness(t *testing.T, s site) string {
	t.Helper()
	a := send(t, story.Client{HTTP: s.HTTP, Base: "http://" + s.stack.Addresses.Status}, http.MethodGet, "/readyz", nil)
	var health struct{ Status string }
	if err := json.Unmarshal(a.Body, &health); err != nil {
		t.Fatalf("readyz: %v", err)
	}
	return health.Status
}

// Without the database nobody logs in, and whoever has is not disturbed.
func TestWithoutTheDatabaseIssuedTokensGoOnWorking(t *testing.T) {
	t.Parallel()
	breaks(t)
	u, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	database := testenv.NewProxy(t, u.Host)
	u.Host = database.Address
	s := own(t, stack.Options{DatabaseURL: u.String()})
	ann := s.join(t)
	database.Stop()
	login := map[string]string{"email": ann.Email, "password": ann.Password}
	want(t, send(t, s.guest(), http.MethodPost, "/auth/login", login), http.StatusServiceUnavailable, "database_unavailable")
	want(t, send(t, ann.Client, http.MethodGet, "/orders", nil), http.StatusOK, "")
}

// The gateway answers for an API that is away, not the guard.
func TestAnUpstreamThatIsAwayIsTheGatewaysToTell(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{})
	ann := s.join(t)
	s.stack.Stop(stack.Orders1)
	s.stack.Stop(stack.Orders2)
	a := send(t, ann.Client, http.MethodGet, "/orders", nil)
	if (a.Status != http.StatusBadGateway && a.Status != http.StatusServiceUnavailable) || a.DecisionID() != "" {
		t.Errorf("%d, decision %q: %.300s", a.Status, a.DecisionID(), a.Body)
	}
	// What may be done to one order is not known either, and that is the guard's to tell: it denies.
	a = send(t, ann.Client, http.MethodGet, "/orders/1", nil)
	want(t, a, http.StatusForbidden, "forbidden")
	if why := s.stack.Why(a.DecisionID()); why != "resource_unavailable" {
		t.Errorf("the log says %q", why)
	}
}

// S57: the plugin is killed under load. No request passes unchecked, and service is back by itself.
func TestAPluginKilledUnderLoadLetsNothingPass(t *testing.T) {
	t.Parallel()
	binary, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	// Found by its command line, which must be no other test's.
	mine := filepath.Join(t.TempDir(), "gatehouse-plugin")
	if err := os.Link(binary, mine); err != nil {
		t.Fatal(err)
	}
	s := own(t, stack.Options{Plugin: mine})
	ann := s.join(t)
	var passed, failed atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	ended := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer ended()
	for range 4 {
		load.Go(func() {
			c := s.guest().As("a.bad.token")
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := c.Send(t.Context(), story.Request{Method: http.MethodGet, Path: "/auth/me"})
				switch {
				case err != nil || a.Status >= 500:
					failed.Add(1)
				case a.Status != http.StatusUnauthorized && a.Status != http.StatusTooManyRequests:
					passed.Add(1)
				}
			}
		})
	}
	old := pid(t, mine)
	if err := exec.Command("kill", "-9", strconv.Itoa(old)).Run(); err != nil {
		t.Fatal(err)
	}
	until(t, bound(2*time.Second), ann.Client, http.MethodGet, "/auth/me", http.StatusOK, "")
	ended()
	if now := pid(t, mine); now == old {
		t.Error("the same process answers")
	}
	if passed.Load() != 0 {
		t.Errorf("%d requests passed unchecked", passed.Load())
	}
	t.Logf("%d requests failed while the plugin was away", failed.Load())
}

func pid(t *testing.T, binary string) int {
	t.Helper()
	var found int
	err := story.Until(t.Context(), 10*time.Second, 20*time.Millisecond, func(context.Context) (bool, error) {
		out, err := exec.Command("pgrep", "-f", "^"+binary+" -socket").Output()
		if err != nil {
			return false, fmt.Errorf("no process of the plugin: %w", err)
		}
		found, err = strconv.Atoi(strings.Fields(string(out))[0])
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
