package outage_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

// keySet serves the public halves.
func keySet(t *testing.T, keys ...jose.SigningKey) http.HandlerFunc {
	t.Helper()
	return serves(jwks(t, keys...))
}

func jwks(t *testing.T, keys ...jose.SigningKey) []byte {
	t.Helper()
	set, err := jose.PublicSet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func serves(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) } // the edge is gone; there is nobody to tell
}

// poison is what an issuer serves in place of its key set, and the token that only this could make good.
type poison struct {
	serve http.HandlerFunc
	evil  func() string
	// without: the issuer serves this from the start, so that the edge never had a key.
	without bool
	// rotated: it is no poison, the issuer has another key now, and the old one is withdrawn.
	rotated bool
}

// poisons are the rows. Each evil token is signed as it should be by a key that the issuer serves; good is what it served before.
func poisons(t *testing.T, issuer func(name string) string) map[string]poison {
	t.Helper()
	evil := stranger(t)
	secret := bytes.Repeat([]byte("s"), 32)
	good, also := one(t, key(t)), one(t, evil)
	set := func(keys ...map[string]any) http.HandlerFunc {
		text, _ := json.Marshal(map[string]any{"keys": keys}) // texts always marshal
		return serves(text)
	}
	with := func(k map[string]any, changes map[string]any) map[string]any {
		k = maps.Clone(k)
		maps.Copy(k, changes)
		return k
	}
	by := func(name, alg, kid string, sign func([]byte) []byte) func() string {
		return always(forged(alg, kid, map[string]any{"iss": issuer(name)}, sign))
	}
	rs256 := func(name string) func() string { return by(name, "RS256", evil.ID, rs256By(t, evil.Private)) }
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakKey := map[string]any{"kty": "RSA", "kid": "weak", "n": base64.RawURLEncoding.EncodeToString(weak.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(weak.E)).Bytes())}
	symmetric := map[string]any{"kty": "oct", "kid": "secret", "k": base64.RawURLEncoding.EncodeToString(secret)}
	many, small := []map[string]any{also}, []map[string]any{also}
	for i := range 10_000 {
		many = append(many, with(also, map[string]any{"kid": "k" + strconv.Itoa(i)}))
		small = append(small, map[string]any{"kid": strconv.Itoa(i)})
	}
	all := map[string]poison{
		"away": {serve: reset, evil: rs256("away")},
		"silent": {evil: rs256("silent"), serve: func(_ http.ResponseWriter, r *http.Request) { // until the edge gives up
			<-r.Context().Done()
		}},
		"error": {evil: rs256("error"), serve: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(jwks(t, evil)) // the edge is gone; there is nobody to tell
		}},
		"html":      {serve: serves([]byte("<!doctype html><title>It works</title>")), evil: rs256("html")},
		"emptied":   {serve: serves([]byte(`{"keys":[]}`)), evil: rs256("emptied")},
		"truncated": {serve: serves(jwks(t, evil)[:100]), evil: rs256("truncated")},
		"redirect": {evil: rs256("redirect"), serve: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/evil" {
				_, _ = w.Write(jwks(t, evil)) // as above
				return
			}
			http.Redirect(w, r, "/evil", http.StatusFound)
		}},
		"symmetric":     {serve: set(good, symmetric), evil: by("symmetric", "HS256", "secret", hmacBy(secret))},
		"symmetric-rs":  {serve: set(good, with(symmetric, map[string]any{"alg": "RS256"})), evil: by("symmetric-rs", "RS256", "secret", hmacBy(secret))},
		"alg-hs256":     {serve: set(good, with(also, map[string]any{"alg": "HS256"})), evil: by("alg-hs256", "HS256", evil.ID, hmacBy(publicPEM(t, evil)))},
		"alg-hs256-rsa": {serve: set(good, with(also, map[string]any{"alg": "HS256"})), evil: rs256("alg-hs256-rsa")},
		"alg-none":      {serve: set(good, with(also, map[string]any{"alg": "none"})), evil: by("alg-none", "none", evil.ID, unsigned)},
		"alg-ps256":     {serve: set(good, with(also, map[string]any{"alg": "PS256"})), evil: by("alg-ps256", "PS256", evil.ID, ps256By(t, evil.Private))},
		"use-enc":       {serve: set(good, with(also, map[string]any{"use": "enc"})), evil: rs256("use-enc")},
		"weak":          {serve: set(good, weakKey), evil: by("weak", "RS256", "weak", rs256By(t, weak))},
		"kid-twice":     {serve: set(good, with(also, map[string]any{"kid": key(t).ID})), evil: by("kid-twice", "RS256", key(t).ID, rs256By(t, evil.Private))},
		"many":          {serve: set(many...), evil: rs256("many")},
		"many-small":    {serve: set(small...), evil: rs256("many-small")},
		"never":         {serve: reset, evil: rs256("never"), without: true},
		"rotated":       {serve: keySet(t, evil), evil: rs256("rotated"), rotated: true},
	}
	return all
}

// one is a public key as its set has it.
func one(t *testing.T, k jose.SigningKey) map[string]any {
	t.Helper()
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(jwks(t, k), &set); err != nil {
		t.Fatal(err)
	}
	return set.Keys[0]
}

func reset(w http.ResponseWriter, _ *http.Request) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
}

// endless serves a set of 100 MB that begins with an evil key, and counts what was taken of it.
func endless(set []byte, taken *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		n, err := w.Write(set[:len(set)-1])
		taken.Add(int64(n))
		for block := bytes.Repeat([]byte(" "), 64<<10); err == nil && taken.Load() < 100<<20; {
			n, err = w.Write(block)
			taken.Add(int64(n))
		}
	}
}

const keysRoute = `
      - name: "%[1]s"
        paths: ["/%[1]s"]
        strip_path: false
        plugins:
          - name: gatehouse
            config: {authorize: false, issuers: [{issuer: "%[2]s", jwks_url: "{vault://env/%[1]s}", audiences: [gatehouse-api]}], redis_url: "{vault://env/redis}"}
`

// set is one issuer of the test's.
type set struct {
	name    string
	serving atomic.Pointer[http.HandlerFunc]
	asked   atomic.Int64
}

func (s *set) serve(h http.HandlerFunc) {
	s.asked.Store(0)
	s.serving.Store(&h)
}

func (s *set) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := *s.serving.Load()
	h(w, r)
	s.asked.Add(1)
}

// S30, S31, S38, S56, S64: whatever an issuer serves in place of its keys, no token passes by it, and those of its last good keys
// go on. A rotated key holds at once, and the withdrawn one no longer.
func TestNothingPassesByAPoisonedKeySet(t *testing.T) {
	t.Parallel()
	name := func(row string) string { return "http://" + row + ".test" }
	rows := poisons(t, name)
	var taken atomic.Int64
	rows["endless"] = poison{serve: endless(jwks(t, stranger(t)), &taken), evil: always(forged("RS256", stranger(t).ID, map[string]any{"iss": name("endless")}, rs256By(t, stranger(t).Private)))}
	next := generated(t)[2]

	config, vault, sets := routes[:strings.Index(routes, "      - name: orders")], map[string]string{}, map[string]*set{}
	var kinds []kind
	var rotated atomic.Int64 // UnixNano: when the new key had been taken
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		p, is, path := rows[row], &set{name: row}, []string{"/" + row}
		sets[row] = is
		is.serve(keySet(t, key(t)))
		if p.without {
			is.serve(p.serve)
		}
		front := httptest.NewUnstartedServer(is)
		front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		front.Start()
		t.Cleanup(front.Close)
		config += fmt.Sprintf(keysRoute, row, name(row))
		vault[row] = front.URL
		changes := map[string]any{"iss": name(row)}
		good := kind{name: "good of " + row, paths: path, token: signed(t, key(t), changes), want: allowed, may: []string{}}
		evil := kind{name: "evil of " + row, paths: path, token: p.evil, want: "token_invalid", from: away, may: []string{"keys_unavailable"}}
		switch {
		case p.without:
			good.want, good.after, good.over = "keys_unavailable", allowed, never
			evil.want, evil.may = "keys_unavailable", []string{"token_invalid"}
			evil.after = "token_invalid"
			evil.over = never
		case p.rotated:
			good.after, good.over = "token_invalid", func(string) time.Time {
				if at := rotated.Load(); at != 0 {
					return time.Unix(0, at)
				}
				return time.Time{}
			}
			good.since, good.may = away, []string{allowed}
			evil.want = allowed
			evil.may = []string{"token_invalid", "keys_unavailable"}
		}
		kinds = append(kinds, good, evil,
			kind{name: "none of " + row, paths: path, token: always(forged("none", key(t).ID, changes, unsigned)), want: "token_invalid", may: []string{}},
			// An unknown kid has the edge fetch the set, at most once in ten seconds.
			kind{name: "stray of " + row, paths: path, token: func() string { return forged("RS256", uuid.NewString(), changes, hmacBy(nil)) }, want: evil.want, after: evil.after, over: never, from: away, may: evil.may})
		if p.rotated {
			kinds[len(kinds)-1].want = "token_invalid"
		} else {
			fresh := kind{name: "new of " + row, paths: path, token: signed(t, next, changes), want: allowed, from: returning, may: []string{"token_invalid", "keys_unavailable"}}
			kinds = append(kinds, fresh)
		}
	}
	s := open(t, around{config: config, vault: vault})
	s.kinds = kinds
	s.start()
	s.wait("the edge serves", s.settled(starting))
	s.enter(well)
	s.wait("all is well", s.settled(well))
	before := s.peak(t)

	s.enter(away)
	for row, p := range rows {
		sets[row].serve(p.serve)
	}
	for row, is := range sets {
		s.wait(row+" was fetched", func() bool { return is.asked.Load() > 0 })
	}
	s.wait("the new key is taken", func() bool { return s.sighted(sight{away, "evil of rotated", "/rotated", allowed}) })
	rotated.Store(time.Now().UnixNano())
	s.anew(away)
	s.wait("all goes on", s.settled(away))
	s.lasts(0)
	if got := s.health(); got != "degraded" {
		t.Errorf("/readyz says %q", got)
	}
	if grown := s.peak(t) - before; grown > 64<<20 {
		t.Errorf("the plugin took %d MB more", grown>>20)
	}
	if n := taken.Load(); n > 16<<20 {
		t.Errorf("%d MB of the endless set were taken", n>>20)
	}

	s.enter(returning)
	begun := time.Now()
	for row, p := range rows {
		if !p.rotated {
			sets[row].serve(keySet(t, key(t), next))
		}
	}
	s.wait("everything is as before", s.settled(returning))
	if took := time.Since(begun); took > 5*10*time.Second {
		t.Errorf("back after %v; 10 s are stated", took)
	}
	s.enter(again)
	s.wait("all is well again", s.settled(again))
	s.wait("/readyz says so", func() bool { return s.health() == "ok" })
	s.finish()
}

func never(string) time.Time { return time.Time{} }

// peak is the most memory that the plugin has had so far, in bytes (proc(5)).
func (s *site) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.FormatInt(s.pid.Load(), 10) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		t.Fatal("no VmHWM")
	}
	kB, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}
