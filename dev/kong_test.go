package main

import (
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kong/go-database-reconciler/pkg/file"

	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

const kongFile = "../kong.yml"

// vault has a value for each name that kong.yml may refer to.
func vault() map[string]string {
	return map[string]string{
		"gatehouse-issuer": "http://127.0.0.1:8000", "gatehouse-jwks-url": "http://127.0.0.1:8081/.well-known/jwks.json",
		"gatehouse-pdp-url": "http://127.0.0.1:8181", "gatehouse-redis-url": "redis://127.0.0.1:6379/0",
		"gatehouse-challenge-secret": "0123456789abcdef0123456789abcdef",
	}
}

func TestKongFileIsValidForKong(t *testing.T) {
	t.Parallel()
	content, err := file.GetContentFromFiles([]string{kongFile}, false)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range content.Services {
		for _, r := range s.Routes {
			names[*r.Name] = true
			if *r.StripPath {
				t.Errorf("route %s strips its path: policies would see another one than the upstream", *r.Name)
			}
			// S53: no route without a rule of its own.
			var guards int
			for _, p := range r.Plugins {
				if *p.Name == kong.Name {
					guards++
				} else if *p.Name != kong.OutcomeName {
					t.Errorf("route %s runs %s", *r.Name, *p.Name)
				}
			}
			if guards != 1 {
				t.Errorf("route %s is not guarded", *r.Name)
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("no routes")
	}
	for _, u := range content.Upstreams {
		if len(u.Targets) != 2 || u.Healthchecks == nil || u.Healthchecks.Active == nil || u.Healthchecks.Passive == nil {
			t.Errorf("upstream %s lacks a second target or its health checks", *u.Name)
		}
	}
	if len(content.Upstreams) == 0 {
		t.Fatal("no upstreams")
	}
}

// check starts a gateway on the text of a kong.yml as the plugin's own -dump has it, and answers why it refuses.
func check(t *testing.T, text string) error {
	t.Helper()
	_, err := gateway.New(t.Context(), gateway.Options{
		Config: []byte(text), Vault: vault(), Log: slog.New(slog.DiscardHandler),
		Plugin:  gateway.PluginServer{Describe: func(w io.Writer) error { return kong.Dump(w, filepath.Join(t.TempDir(), "s")) }},
		Outcome: gateway.PluginServer{Describe: func(w io.Writer) error { return kong.DumpOutcome(w, filepath.Join(t.TempDir(), "s")) }},
	})
	return err
}

func TestKongFileFitsThePluginsSchema(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(kongFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(t, string(text)); err != nil {
		t.Fatal(err)
	}
	breakages := map[string][3]string{
		"unknown field":     {"rate: 60-M}", "rate: 60-M, burst: 3}", "burst: unknown field"},
		"bad status":        {"statuses: [401]", "statuses: [200]", "config.statuses[1]: "},
		"bad rate":          {"rate: 600-M", "rate: 600/min", "config.limits[1].rate"},
		"unknown limit key": {"{name: orders-per-address, key: ip", "{name: orders-per-address, key: planet", "config.limits[1].key: expected ip, route, subject"},
		"bad algorithm":     {"algorithms: [RS256]", "algorithms: [HS256]", "config.issuers[1].algorithms[1]: expected one of"},
		"bad duration":      {"pdp: {url:", "pdp: {timeout_ms: 50ms, url:", "config.pdp.timeout_ms: expected an integer"},
	}
	for _, name := range slices.Sorted(maps.Keys(breakages)) {
		t.Run(name, func(t *testing.T) {
			b := breakages[name]
			if !strings.Contains(string(text), b[0]) {
				t.Fatalf("kong.yml no longer has %q", b[0])
			}
			err := check(t, strings.Replace(string(text), b[0], b[1], 1))
			if err == nil || !strings.Contains(err.Error(), b[2]) {
				t.Errorf("got %v, want …%s", err, b[2])
			}
		})
	}
}
