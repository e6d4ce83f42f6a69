package pdpfaults_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// operator runs a command of the built program.
func (p *program) operator(args ...string) (bool, string) {
	p.t.Helper()
	path, err := build()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := exec.Command(path, append(args, "--control", filepath.Join(p.dir, "c"))...).CombinedOutput()
	return err == nil, string(out)
}

// decides is which of the policies does, as they say themselves.
func (p *program) decides(revision string) bool {
	p.t.Helper()
	res, err := testhttp.Client.Post(p.url+"/access/v1/evaluation", "application/json", strings.NewReader(`{"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"resource":{"type":"which","id":"1"}}`))
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body := make([]byte, 1000)
	n, _ := res.Body.Read(body) // what is missing is not there
	return strings.Contains(string(body[:n]), `"reasons":["`+revision+`"]`)
}

// S62, S69: a bundle that was taken back does not come back, though its source goes on sending it, and not by a restart either, until
// something newer comes or the operator says so; a candidate is put in force in the same way; neither is done with what is not signed
// as the source's bundles must be; and who did it is logged. Meanwhile everybody is answered.
func TestABundleIsTakenBackAndACandidatePromoted(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // a socket's path may have 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d, release, stranger := newDepot(t), newSigner(t), newSigner(t)
	made := func(s signer, revision string) []byte {
		return s.sign(t, packAs(t, revision, "gatehouse", more(fmt.Sprintf("decision := {\"allow\": true, \"reasons\": [%q]} if input.resource.type == \"which\"", revision))))
	}
	d.publish("kinds", release.sign(t, pack(t, "kinds", map[string]string{"kinds/data.json": `{"report": true}`})))
	config := filepath.Join(dir, "bundles.yaml")
	text := fmt.Sprintf(`
keys: {release: {algorithm: ES256, file: %s}}
keep: {dir: %s}
sources:
  authz: {url: "http://%s/authz", poll: 50ms, timeout: 5s}
  kinds: {url: "http://%[3]s/kinds", poll: 50ms, timeout: 5s}
candidates:
  authz: {url: "http://%[3]s/candidate"}
`, release.public, filepath.Join(dir, "kept"), d.Address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-bundles", config, "-revisions", filepath.Join(dir, "revisions"), "-control", filepath.Join(dir, "c"), "-shadow-share", "1"}
	p := start(t, dir, args...)
	var l *load
	polled := func(what string, holds func() bool) { // and not just now
		t.Helper()
		p.within(what, holds)
		for end := d.asks.Load() + 4; d.asks.Load() < end; {
			l.rounds(1)
			if !holds() {
				t.Fatalf("no longer: %s", what)
			}
		}
	}
	restart := func() {
		t.Helper()
		l.finish()
		p.stop()
		p = start(t, dir, args...)
	}
	must := func(args ...string) {
		t.Helper()
		if ok, out := p.operator(args...); !ok {
			_, ready := p.get("/readyz")
			t.Fatalf("%q: %s %s", args, out, ready)
		}
	}
	mustNot := func(why string, args ...string) {
		t.Helper()
		if ok, out := p.operator(args...); ok || !strings.Contains(out, why) {
			t.Errorf("%q: %t %s", args, ok, out)
		}
	}
	const pinned = `gatehouse_pdp_source_pinned{source="authz"}`

	d.publish("authz", made(release, "r1"))
	p.within("the first decides", func() bool {
		return p.decides("r1") && p.ready("policies:ok", "pinned:ok") || p.well() && p.decides("r1")
	})
	l = begin(t, p)
	mustNot("nothing is known to have decided before", "rollback")
	mustNot("no source is pinned", "release")
	bad := made(release, "r2")
	d.publish("authz", bad)
	p.within("the second decides", func() bool { return p.decides("r2") })

	// Taken back, and it stays so: while its source sends it, over a restart, and over one without the source.
	must("rollback")
	polled("the first decides again", func() bool {
		return p.decides("r1") && p.ready("degraded", "Source authz is pinned to bundle r1", fmt.Sprintf("by rollback by uid %d", os.Getuid())) && p.metric(pinned) == 1
	})
	if p.line("policies rolled back", fmt.Sprintf("uid %d", os.Getuid())) == nil {
		t.Error("the log does not say who")
	}
	if _, out := p.operator("shadow", "status"); !strings.Contains(out, "Source authz is pinned to bundle r1") {
		t.Error(out)
	}
	restart()
	p.within("it decides after a restart", func() bool { return p.decides("r1") })
	l = begin(t, p)
	polled("it decides after a restart", func() bool { return p.decides("r1") && p.metric(pinned) == 1 })
	l.finish()
	p.stop()
	d.Stop()
	p = start(t, dir, args...)
	p.within("it decides without its source", func() bool { return p.decides("r1") && p.ready("away:") })
	d.Start(t)
	l = begin(t, p)

	// Something newer decides; what was taken back does not, even then.
	d.publish("authz", made(release, "r3"))
	polled("the third decides", func() bool { return p.decides("r3") && p.metric(pinned) == 0 && p.well() })
	d.publish("authz", bad)
	polled("the third decides all the same", func() bool { return p.decides("r3") && p.ready("Source authz sends bundle r2", "taken back") })
	must("release")
	polled("the second decides, as was wanted", func() bool { return p.decides("r2") && p.well() })
	if p.line("policies released", fmt.Sprintf("uid %d", os.Getuid())) == nil {
		t.Error("the log does not say who")
	}

	// A candidate is compared, and promoted if it is signed as it must be.
	mustNot("no candidate that loads", "promote")
	d.publish("candidate", made(stranger, "r4"))
	p.within("it is refused", func() bool {
		_, out := p.operator("shadow", "status")
		return strings.Contains(out, "signature: by key release")
	})
	mustNot("no candidate that loads", "promote")
	d.publish("candidate", made(release, "r4"))
	var candidate string
	p.within("it is compared", func() bool {
		_, out := p.operator("shadow", "status")
		_, after, found := strings.Cut(out, "candidate ")
		candidate, _, _ = strings.Cut(after, " ")
		return found && p.metric(`gatehouse_pdp_shadow_compared_requests{result="alike"}`) >= 0 && len(candidate) == 16
	})
	mustNot("and not 0000000000000000", "promote", "0000000000000000")
	must("promote", candidate)
	polled("the candidate decides", func() bool { return p.decides("r4") && p.ready("Source authz is pinned to bundle r4") })
	restart()
	p.within("it decides after a restart", func() bool { return p.decides("r4") })
	l = begin(t, p)
	polled("it decides after a restart", func() bool { return p.decides("r4") })
	d.publish("authz", made(release, "r4"))
	p.within("delivered, it is not pinned any more", func() bool { return p.decides("r4") && p.metric(pinned) == 0 && p.well() })

	// What was kept is not believed.
	kept, err := filepath.Glob(filepath.Join(dir, "revisions", "*.tar.gz"))
	if err != nil || len(kept) < 4 {
		t.Fatalf("%q, %v", kept, err)
	}
	for _, name := range kept {
		if err := os.WriteFile(name, made(stranger, "r1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustNot("is damaged", "rollback")
	polled("what decided goes on", func() bool { return p.decides("r4") && p.well() })
	if p.line("policies not rolled back", "damaged") == nil {
		t.Error("the log does not say that it was refused")
	}
	l.finish()
}
