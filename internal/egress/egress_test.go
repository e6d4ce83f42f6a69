package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// S64, S31: what a URL's text already tells.
func TestAURLIsHTTPSOutsideThisMachine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		origin string
		o      Options
		good   bool
	}{
		{"https://issuer.test/keys", Options{}, true},
		{"http://issuer.test/keys", Options{}, false},
		{"http://10.0.0.7/keys", Options{AllowPrivate: true}, false},
		{"http://authsvc:8081/keys", Options{AllowPrivate: true, AllowHTTP: true}, true},
		{"https://issuer.test", Options{AllowHTTP: true}, false},
		{"http://127.0.0.1:1/keys", Options{}, true},
		{"http://[::1]:1/keys", Options{}, true},
		{"http://localhost/keys", Options{}, true},
		{"http://localhost.issuer.test/keys", Options{}, false},
		{"file:///etc/passwd", Options{}, false},
		{"gopher://127.0.0.1/", Options{}, false},
		{"https://user:secret@issuer.test/", Options{}, false},
		{"https:issuer.test", Options{}, false},
		{"", Options{}, false},
		{"://", Options{}, false},
	} {
		c.o.Origin = c.origin
		if _, err := New(c.o); (err == nil) != c.good {
			t.Errorf("%q %+v: %v", c.origin, c.o, err)
		}
	}
}

// S64: a document that a remote issuer serves cannot send the client to this machine.
func TestARemoteOriginNeverReachesThisMachine(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(s.Close)
	c, err := New(Options{Origin: "https://issuer.test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{s.URL, strings.Replace(s.URL, "https", "http", 1), strings.Replace(s.URL, "127.0.0.1", "localhost", 1)} {
		if _, _, err := c.Get(t.Context(), address, "*/*", 1); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if asked.Load() != 0 {
		t.Error("the request arrived")
	}
}

// S64: which addresses may be dialled, whatever the name was.
func TestAddressesAreCheckedAsTheyAreDialled(t *testing.T) {
	t.Parallel()
	for address, kind := range map[string]string{
		"8.8.8.8": "public", "2606:4700::1": "public", "::ffff:8.8.8.8": "public",
		"10.1.2.3": "private", "172.16.0.1": "private", "192.168.1.1": "private", "100.64.0.1": "private", "fd00::1": "private", "::ffff:10.0.0.1": "private",
		"127.0.0.1": "loopback", "127.9.9.9": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"169.254.169.254": "never", "fe80::1%eth0": "never", "0.0.0.0": "never", "::": "never", "224.0.0.1": "never", "ff02::1": "never", "255.255.255.255": "never",
		"192.0.2.1": "never", "198.18.0.1": "never", "64:ff9b::a00:1": "never", "2002:a00:1::1": "never", "::10.0.0.1": "never", "fec0::1": "never", "0.1.2.3": "never", "240.0.0.1": "never",
	} {
		for _, c := range []struct {
			o     Options
			plain bool
			may   string
		}{
			{Options{Origin: "https://issuer.test"}, false, "public"},
			{Options{Origin: "https://issuer.test"}, true, ""},
			{Options{Origin: "https://issuer.test", AllowPrivate: true}, false, "public private"},
			{Options{Origin: "https://issuer.test", AllowPrivate: true}, true, ""},
			{Options{Origin: "http://authsvc", AllowPrivate: true, AllowHTTP: true}, true, "private"},
			{Options{Origin: "http://127.0.0.1"}, true, "loopback"},
			{Options{Origin: "https://localhost"}, false, "public loopback"},
		} {
			client, err := New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			err = client.control(c.plain)(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(address), 443).String(), nil)
			if may := strings.Contains(c.may, kind); (err == nil) != may {
				t.Errorf("%s (%s) with %+v, plain %v: %v", address, kind, c.o, c.plain, err)
			}
		}
	}
}

// S64: a name that meant a public address when somebody looked, and this machine when it is dialled, is of no use.
func TestARebindingNameIsRefused(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string][4]byte{"loopback": {127, 0, 0, 1}, "private": {10, 0, 0, 1}, "metadata": {169, 254, 169, 254}} {
		c, err := New(Options{Origin: "https://rebind.test/keys", Resolver: resolver(t, answer), Timeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Get(t.Context(), "https://rebind.test/keys", "*/*", 1); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// S64: plain http that is allowed to private addresses stays there.
func TestPlainHTTPNeverGoesToAPublicAddress(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Origin: "http://issuer.test/keys", AllowPrivate: true, AllowHTTP: true, Resolver: resolver(t, [4]byte{8, 8, 8, 8}), Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Get(t.Context(), "http://issuer.test/keys", "*/*", 1); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// S64: redirects go nowhere, bodies and waits end.
func TestRedirectsSizeAndTimeAreBounded(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Bool
	hang := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere.Store(true) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { <-hang })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(hang) })
	c, err := New(Options{Origin: s.URL, Timeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for path, want := range map[string]string{"/redirect": "status 302", "/endless": "larger than", "/hang": "deadline"} {
		if _, _, err := c.Get(t.Context(), s.URL+path+"?token=canary", "*/*", 1<<10); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if elsewhere.Load() {
		t.Error("a redirect was followed")
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("https://issuer.test")
	f.Add("http://127.0.0.1@issuer.test")
	c, err := New(Options{Origin: "http://127.0.0.1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if c.Check(address) != nil {
			return
		}
		u, err := url.Parse(address)
		if err != nil || (u.Scheme != "https" && !IsLoopback(u.Hostname())) {
			t.Errorf("%q is allowed", address)
		}
	})
}

// resolver answers every name with one address.
func resolver(t *testing.T, a [4]byte) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if m.Questions[0].Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 0}, Body: &dnsmessage.AResource{A: a},
				}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}
