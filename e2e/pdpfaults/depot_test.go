package pdpfaults_test

import (
	"archive/tar"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// depot is the web server of the bundles, behind a network that can be cut.
type depot struct {
	*testenv.Proxy
	mu   sync.Mutex
	have map[string]http.HandlerFunc
	sent atomic.Int64 // bytes of what has no end
	asks atomic.Int64 // requests
}

func newDepot(t *testing.T) *depot {
	t.Helper()
	d := &depot{have: map[string]http.HandlerFunc{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.asks.Add(1)
		d.mu.Lock()
		serve := d.have[r.URL.Path]
		d.mu.Unlock()
		if serve == nil {
			serve = http.NotFound
		}
		serve(w, r)
	}))
	t.Cleanup(s.Close)
	d.Proxy = testenv.NewProxy(t, strings.TrimPrefix(s.URL, "http://"))
	return d
}

func (d *depot) serve(source string, by http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.have["/"+source] = by
}

// publish serves an archive as a good server does.
func (d *depot) publish(source string, archive []byte) {
	sum := sha256.Sum256(archive)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	d.serve(source, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", tag)
		_, _ = w.Write(archive) // who asked is gone
	})
}

// What servers may do.

func unavailable(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusServiceUnavailable)
}

// dribble sends a byte now and then.
func dribble(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "10000")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			_, _ = w.Write([]byte{0})
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// half sends half of what it says.
func half(archive []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(archive)))
		_, _ = w.Write(archive[:len(archive)/2])
	}
}

const gigabyte = 1 << 30

func announced(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", strconv.Itoa(gigabyte))
	_, _ = w.Write([]byte{0x1f, 0x8b})
}

// endless sends a gigabyte without having said so.
func (d *depot) endless(w http.ResponseWriter, _ *http.Request) {
	block := make([]byte, 1<<20)
	d.sent.Store(0)
	for range gigabyte / len(block) {
		n, err := w.Write(block)
		if d.sent.Add(int64(n)); err != nil {
			return
		}
	}
}

// signer has a key of its own.
type signer struct {
	bundle.SigningKey
	public string // file
}

func newSigner(t *testing.T) signer {
	t.Helper()
	private, public := pki.KeyPair(t)
	file := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(file, []byte(public), 0o600); err != nil {
		t.Fatal(err)
	}
	return signer{bundle.SigningKey{ID: "release", Algorithm: "ES256", PEM: private}, file}
}

// pack makes a bundle of files that owns the roots.
func pack(t *testing.T, roots string, files map[string]string) []byte {
	t.Helper()
	return packAs(t, "r", roots, files)
}

func packAs(t *testing.T, revision, roots string, files map[string]string) []byte {
	t.Helper()
	all := map[string][]byte{".manifest": fmt.Appendf(nil, `{"revision":%q,"roots":[%q]}`, revision, roots)}
	for name, text := range files {
		all[name] = []byte(text)
	}
	b, err := bundle.Write(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s signer) sign(t *testing.T, archive []byte) []byte {
	t.Helper()
	b, err := bundle.Sign(archive, bundle.Limits{}, s.SigningKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bomb is a small archive that unfolds to a gigabyte: one file, or nothing but zeros.
func bomb(t *testing.T, file bool) []byte {
	t.Helper()
	var out bytes.Buffer
	out.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}) // RFC 1952, section 2.3
	z, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if file {
		if err := tar.NewWriter(z).WriteHeader(&tar.Header{Name: "data.json", Size: gigabyte, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	before := out.Len()
	if _, err := z.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	block := bytes.Clone(out.Bytes()[before:])
	for range gigabyte>>20 - 1 {
		out.Write(block) // it refers to nothing but zeros
	}
	return out.Bytes()
}

// leading is an archive with a file at such a path.
func leading(t *testing.T, h tar.Header, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	h.Size, h.Mode = int64(len(text)), 0o600
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
