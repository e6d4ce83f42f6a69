package forwardauth

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func TestOnlyTheProxysNetworkMayAsk(t *testing.T) {
	t.Parallel()
	h, g, _ := handler(t, Envoy, func(o *Options) { o.Peers = []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")} })
	for peer, want := range map[string]int{"10.0.1.7:1": 200, "[::ffff:10.0.1.7]:1": 200, "10.0.2.7:1": 403, "127.0.0.1:1": 403, "": 403, "@": 403} {
		r := &http.Request{Method: "GET", RequestURI: "/check/things", Host: "x", Header: http.Header{"X-Forwarded-For": {"192.0.2.1"}}, RemoteAddr: peer}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", peer, w.Code, want)
		}
	}
	if g.got.Path == "" {
		t.Error("the guard was not asked")
	}
}

// S69: whoever reaches the listener is believed, so that strangers must not.
func TestTheListenerIsPrivate(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for address, peers := range map[string][]netip.Prefix{
		"0.0.0.0:0": proxies, "[::]:0": proxies, ":0": proxies, "203.0.113.1:0": proxies, "169.254.169.254:0": proxies, "10.0.0.1:0": nil, "127.0.0.1": nil, "": nil,
	} {
		if ln, err := Listen(t.Context(), address, peers); err == nil {
			t.Errorf("%s: listens at %s", address, ln.Addr())
			_ = ln.Close()
		}
	}
	ln, err := Listen(t.Context(), "localhost:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
		t.Errorf("listens at %s", ln.Addr())
	}
}

func TestRequestsUnderWayEndBeforeTheServerDoes(t *testing.T) {
	t.Parallel()
	h, g, _ := handler(t, Envoy, nil)
	under, release := make(chan struct{}), make(chan struct{})
	g.answer = func(guard.Request) guard.Verdict {
		close(under)
		<-release
		return guard.Verdict{Forward: true}
	}
	ln, err := Listen(t.Context(), "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(ctx, ln, h, slog.New(slog.DiscardHandler)) }()
	status := make(chan int, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		r, _ := http.NewRequest(http.MethodGet, "http://"+ln.Addr().String()+"/check/things", nil)
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
		res, err := client.Do(r)
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		_ = res.Body.Close()
		status <- res.StatusCode
	}()
	<-under
	cancel()
	close(release)
	if got := <-status; got != 200 {
		t.Errorf("the request under way got %d", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
