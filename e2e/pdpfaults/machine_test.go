//go:build linux

package pdpfaults_test

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// S56: a clock that is set, far ahead or back, changes nothing but the time that policies see: what is fresh stays fresh, nothing
// fails, and no denial comes of it.
func TestAClockThatIsSetChangesNothing(t *testing.T) {
	t.Parallel()
	d, release, dir := newDepot(t), newSigner(t), t.TempDir()
	publish := func(text string) {
		d.publish("authz", release.sign(t, pack(t, "gatehouse", more(text))))
	}
	publish("")
	d.publish("kinds", release.sign(t, pack(t, "kinds", map[string]string{"kinds/data.json": `{"report": true}`})))
	config := filepath.Join(dir, "bundles.yaml")
	text := fmt.Sprintf(`
keys: {release: {algorithm: ES256, file: %s}}
keep: {dir: %s}
sources:
  authz: {url: "http://%s/authz", poll: 50ms, timeout: 5s, max_staleness: 5m, when_stale: deny}
  kinds: {url: "http://%[3]s/kinds", poll: 50ms, timeout: 5s}
`, release.public, filepath.Join(dir, "kept"), d.Address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, "-bundles", config)
	p.within("the bundles decide", p.well)
	l := begin(t, p)
	year := func() string {
		res, err := testhttp.Client.Post(p.url+"/access/v1/evaluation", "application/json", strings.NewReader(`{"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"resource":{"type":"clock","id":"1"}}`))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(body), `"reasons":["`)
		return after[:min(10, len(after))]
	}
	const day = 24 * time.Hour
	for i, by := range []time.Duration{day, -day, 3650 * day, -3650 * day, time.Minute, 0} {
		p.turn(by)
		want := time.Now().Add(by).UTC().Format(time.DateOnly)
		p.within(fmt.Sprint("policies see the time that is ", by, " off"), func() bool { return year() == want })
		loaded := p.metric(`gatehouse_pdp_policy_loads_total{result="loaded"}`)
		publish(fmt.Sprint("# ", i))
		p.within("what is new decides", func() bool { return p.metric(`gatehouse_pdp_policy_loads_total{result="loaded"}`) > loaded })
		l.rounds(3)
		if !p.well() {
			_, body := p.get("/readyz")
			t.Errorf("%v off: %s", by, body)
		}
		if age := p.metric(`gatehouse_pdp_source_confirmed_age_seconds{source="authz"}`); math.Abs(age) > 60 {
			t.Errorf("%v off: confirmed %v seconds ago", by, age)
		}
	}
	l.finish()
}

// limit lets no file of the program grow beyond so many bytes: a write then fails in the middle, as on a disk that is full.
func (p *program) limit(bytes uint64) {
	p.t.Helper()
	l := syscall.Rlimit{Cur: bytes, Max: math.MaxUint64}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(p.cmd.Process.Pid), syscall.RLIMIT_FSIZE, uintptr(unsafe.Pointer(&l)), 0, 0, 0); errno != 0 { //nolint:gosec // a pid, and what the call reads
		p.t.Fatal(errno)
	}
}

// S56, S67: a full disk keeps neither decisions nor new policies from being made; that a bundle is not kept, and that records are lost
// where the operator allows that, is told until it is over.
func TestAFullDiskChangesNothing(t *testing.T) {
	t.Parallel()
	d, release, dir := newDepot(t), newSigner(t), t.TempDir()
	publish := func(text string) {
		d.publish("authz", release.sign(t, pack(t, "gatehouse", more(text))))
	}
	publish("# the first")
	d.publish("kinds", release.sign(t, pack(t, "kinds", map[string]string{"kinds/data.json": `{"report": true}`})))
	config, recording := filepath.Join(dir, "bundles.yaml"), filepath.Join(dir, "log.yaml")
	text := fmt.Sprintf(`
keys: {release: {algorithm: ES256, file: %s}}
keep: {dir: %s}
sources:
  authz: {url: "http://%s/authz", poll: 50ms, timeout: 5s}
  kinds: {url: "http://%[3]s/kinds", poll: 50ms, timeout: 5s}
`, release.public, filepath.Join(dir, "kept"), d.Address)
	log := fmt.Sprintf("spool: {dir: %s, when_full: drop}\nsinks: [{file: %s}]\n", filepath.Join(dir, "spool"), filepath.Join(dir, "decisions"))
	for file, text := range map[string]string{config: text, recording: log} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, dir, "-bundles", config, "-decision-log", recording)
	p.within("the bundles decide", p.well)
	l := begin(t, p)

	p.limit(512) // less than a bundle
	loaded := p.metric(`gatehouse_pdp_policy_loads_total{result="loaded"}`)
	publish("# the second")
	p.within("what is new decides", func() bool { return p.metric(`gatehouse_pdp_policy_loads_total{result="loaded"}`) > loaded })
	p.within("that it is not kept is told", func() bool {
		return p.ready("degraded", "Source authz: not kept for the next start: ", "file too large") && p.metric(`gatehouse_pdp_source_unkept{source="authz"}`) == 1
	})
	if p.line("bundle not kept for the next start", "file too large", `"source":"authz"`) == nil {
		t.Error("the log does not say that it is not kept")
	}
	const lost = `gatehouse_pdp_decision_log_unrecorded_total{decision="answered"}`
	p.within("that records are lost is told", func() bool { return p.metric(lost) > 0 && p.ready("decision_log:") })
	l.rounds(5)

	p.limit(math.MaxUint64)
	p.within("all is well again", func() bool { return p.well() && p.metric(`gatehouse_pdp_source_unkept{source="authz"}`) == 0 })
	before := p.metric(lost)
	l.rounds(3)
	if after := p.metric(lost); after != before {
		t.Errorf("%v records are lost with room for them", after-before)
	}
	l.finish()
}
