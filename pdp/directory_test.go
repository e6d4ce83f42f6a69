package main

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feedtest"
)

// byRole is a policy that allows whoever holds a role.
const byRole = "package gatehouse.authz\n\ndefault decision := {\"allow\": false, \"reasons\": [\"role_missing\"]}\n\n" +
	"decision := {\"allow\": true} if \"clerk\" in input.subject.roles\n"

// S58: what changes in the directory is felt within a second; it survives a restart without its source, up to its age.
func TestRolesComeFromTheDirectory(t *testing.T) {
	t.Parallel()
	f := feedtest.NewFake(t)
	f.Require("s3cret-token")
	dir, _ := folder(t, byRole)
	token, keep := filepath.Join(t.TempDir(), "token"), t.TempDir()
	save(t, token, "s3cret-token\n")
	f.Fail(http.StatusServiceUnavailable)
	log, logDir := logFile(t, "spool: {dir: $DIR/spool, size: 16MiB, when_full: block, sync: always}\nsample: {default: 1}\nsinks:\n  - file: $DIR/decisions.jsonl\n")
	args := []string{"-policies", dir, "-directory-url", f.URL(), "-directory-token-file", token, "-directory-keep", keep}
	p := start(t, args...)
	if p.allows(t, "order") || !p.ready(t, `"unavailable"`) || p.ready(t, "503") {
		t.Error("decides, or tells everyone why, without a directory")
	}
	await.That(t, "the private address says why", func() bool {
		return strings.Contains(p.private(t, "/readyz"), "Nothing is known of subjects yet. It cannot be asked: answered 503.")
	})
	f.Fail(0)
	await.That(t, "the directory is there", func() bool { return p.ready(t, `"status":"ok"`) })
	if p.allows(t, "order") {
		t.Error("allows who holds no role")
	}
	worst := time.Duration(0)
	for range 5 {
		for _, change := range []struct {
			make  func()
			holds bool
		}{{func() { f.Bind(t, "ann", feed.Binding{Role: "clerk"}) }, true}, {func() { f.Unbind(t, "ann", "clerk", "") }, false}} {
			change.make()
			began := time.Now()
			await.That(t, "the change is felt", func() bool { return p.allows(t, "order") == change.holds })
			worst = max(worst, time.Since(began))
		}
	}
	if t.Logf("a change took %v at most", worst); worst > time.Second {
		t.Errorf("a change took %v", worst)
	}
	f.Bind(t, "ann", feed.Binding{Role: "clerk"})
	await.That(t, "the change is felt", func() bool { return p.allows(t, "order") })
	res, err := p.ask(t, "order", "17")
	if err != nil || res.Context.DirectoryRevision == "" {
		t.Errorf("%+v, %v", res.Context, err)
	}
	metrics := p.private(t, "/metrics")
	for _, line := range []string{"gatehouse_pdp_directory_loaded 1", `gatehouse_pdp_directory_entries{kind="subjects"} 1`, `gatehouse_pdp_directory_loads_total{kind="snapshot"} 1`, "gatehouse_pdp_directory_revision 11"} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("metrics lack %q", line)
		}
	}
	p.stop(t)
	f.Fail(http.StatusServiceUnavailable)

	p = start(t, append(args, "-decision-log", log)...)
	await.That(t, "what was kept is used", func() bool { return p.allows(t, "order") })
	await.That(t, "it is told that the source is away", func() bool { return p.ready(t, `"degraded"`, "The directory cannot be renewed; an older one decides.") })
	text := p.stop(t)
	if !strings.Contains(text, "kept directory used") || strings.Contains(text, "s3cret") {
		t.Error(text)
	}
	var record map[string]any
	for _, r := range recordsIn(t, filepath.Join(logDir, "decisions.jsonl")) {
		if at(t, r, "result", "allow") == true {
			record = r
		}
	}
	if record == nil || at(t, record, "bundles", "directory", "revision") == "" {
		t.Fatalf("no record of the allowance: %v", recordsIn(t, filepath.Join(logDir, "decisions.jsonl")))
	}
	if roles, ok := at(t, record, "input", "subject", "properties", "roles").([]any); !ok || len(roles) != 1 || roles[0] != "clerk" {
		t.Errorf("the record's input is not what decided: %v", record["input"])
	}
}

func (p *program) private(t *testing.T, path string) string {
	t.Helper()
	res, err := p.client.Get(p.status + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestADirectoryIsAFileToo(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t, byRole)
	file := filepath.Join(t.TempDir(), "data.json")
	save(t, file, `{"directory":{"subjects":{"ann":{"roles":["clerk"]}}}}`)
	p := start(t, "-policies", dir, "-directory-url", "file://"+file)
	await.That(t, "the file is read", func() bool { return p.allows(t, "order") })
	save(t, file, `{"directory":{"subjects":{"ann":{"roles":["other"]}}}}`)
	await.That(t, "the change is felt", func() bool { return !p.allows(t, "order") })
}

func TestAWrongDirectoryDoesNotStart(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"directory-url is missing":               {"-directory-keep", "/tmp"},
		"https:// to another machine":            {"-directory-url", "http://192.0.2.1"},
		"when-stale: must be continue or deny":   {"-directory-url", "https://x", "-directory-when-stale", "no"},
		"unknown: must be token or nothing":      {"-directory-url", "https://x", "-directory-unknown", "all"},
		"max-age: time: ":                        {"-directory-url", "https://x", "-directory-max-age", "1"},
		"directory-types: must name one":         {"-directory-url", "https://x", "-directory-types", ","},
		"deny needs max staleness":               {"-directory-url", "https://x", "-directory-when-stale", "deny"},
		"directory-max-bytes: must be a number ": {"-directory-url", "https://x", "-directory-max-bytes", "0"},
	} {
		err := run(t.Context(), append([]string{"serve"}, args...), func(string) string { return "" }, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}
