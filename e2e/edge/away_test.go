package edge_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// S56: the policy denies, is away, and comes back.
func TestThePolicyDecidesAndItsAbsenceDenies(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, nil)
	e.decide(authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{"not_owner"}, DecisionID: "d1"}})
	a := e.do(t, "DELETE", "/orders/o1", token)
	want(t, "denied", a, 403, "forbidden")
	if a.problem.DecisionID != "d1" {
		t.Errorf("decision id %q", a.problem.DecisionID)
	}
	want(t, "no rule", e.do(t, "GET", "/orders/o1/items", token), 403, "resource_unknown")
	e.decide(authzen.Response{Decision: true})
	address := host(e.pdp)
	e.pdp.CloseClientConnections()
	e.pdp.Close()
	want(t, "policy away", e.do(t, "GET", "/orders", token), 503, "policy_unavailable")
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	e.pdp = httptest.NewUnstartedServer(http.HandlerFunc(e.answer))
	e.pdp.Listener.Close()
	e.pdp.Listener = ln
	e.pdp.Start()
	await.That(t, "the policy is asked again", func() bool { return e.do(t, "GET", "/orders", token).status == 200 })
}

// S57: the plugin is killed under load; nothing passes unchecked, and service is back by itself.
func TestAKilledPluginLetsNothingPass(t *testing.T) {
	t.Parallel()
	e := start(t)
	good := e.token(t, nil)
	before := e.upstream.Load()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var passed atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if s := e.do(t, "GET", "/orders", "bad").status; s != 401 && s != 429 && s < 500 && s != 0 {
						passed.Add(1)
					}
				}
			}
		})
	}
	pid := func() string {
		out, _ := exec.Command("pgrep", "-f", "gatehouse-plugin -socket "+e.socket).Output()
		return strings.TrimSpace(string(out))
	}
	for range 2 {
		await.That(t, "the plugin runs", func() bool { return pid() != "" })
		if err := exec.Command("pkill", "-KILL", "-f", "gatehouse-plugin -socket "+e.socket).Run(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if n := e.upstream.Load() - before; n != 0 || passed.Load() != 0 {
		t.Errorf("%d requests reached the upstream, %d were not refused", n, passed.Load())
	}
	await.That(t, "service is back", func() bool {
		s := e.do(t, "GET", "/auth/me", good).status
		return s == 200
	})
}

func TestATargetIsKilledAndRequestsGoOn(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, nil)
	e.targets[0].CloseClientConnections()
	e.targets[0].Close()
	for i := range 10 {
		if a := e.do(t, "GET", "/orders", token); a.status != 200 {
			t.Errorf("request %d: status %d", i, a.status)
		}
	}
}
