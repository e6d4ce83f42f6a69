package pdpfaults_test

import (
	"archive/tar"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rules decide what the load asks, and search, on demand, through what the request brings.
const rules = `package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": true, "reasons": ["owner"]} if {
	input.resource.type == "order"
	input.resource.properties.owner == input.subject.id
}

decision := {"allow": true, "reasons": ["kind"]} if {
	input.resource.type != "order"
	data.kinds[input.resource.type]
}

decision := {"allow": true, "reasons": [input.context.time]} if input.resource.type == "clock"

decision := {"allow": true, "reasons": ["searched"]} if {
	input.resource.type == "search"
	count([1 | some x in input.context.list; some y in input.context.list; some z in input.context.list; x + y + z < 0]) == 0
}
`

// more is the rules, and a text behind them.
func more(text string) map[string]string {
	return map[string]string{"gatehouse/authz.rego": rules + "\n" + text + "\n"}
}

// fault is one of the source's, or of what it sends.
type fault struct {
	name string
	// of is the source that it is about, by what it serves; or cut is whether it cannot be reached.
	of    string
	serve http.HandlerFunc
	send  []byte
	cut   bool
	// away is whether the source is away, else step is the one that refuses what it sends.
	away bool
	step string
	// says is what /readyz and the log say, besides.
	says []string
	// then is what must hold besides.
	then func(t *testing.T)
}

// S56, S62: whatever becomes of the source of policies, or comes from it, the old policies decide, at once, and it is told; and the
// next good ones decide.
func TestABadSourceChangesNothing(t *testing.T) {
	t.Parallel()
	d, release, stranger := newDepot(t), newSigner(t), newSigner(t)
	good := func(text string) []byte { return release.sign(t, pack(t, "gatehouse", more(text))) }
	kinds := release.sign(t, pack(t, "kinds", map[string]string{"kinds/data.json": `{"report": true, "invoice": true}`}))
	// The same again is nothing new to a source; so each good one is another.
	var published int
	heal := func() {
		published++
		d.publish("authz", good(fmt.Sprintf("# %d", published)))
		d.publish("kinds", kinds)
	}
	var table strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&table, `%q:%d,`, fmt.Sprint("u", i), i)
	}
	large := strings.TrimSuffix(table.String(), ",")
	small := strings.Join(strings.Split(large, ",")[:3000], ",")
	faults := []fault{
		{name: "cut off", cut: true, away: true, says: []string{"connection refused"}},
		{name: "unavailable", serve: unavailable, away: true, says: []string{"answered 503"}},
		{name: "slow", serve: dribble, away: true, says: []string{"no answer in time"}},
		{name: "half an answer", serve: half(good("# half")), away: true, says: []string{"the answer was cut off"}},
		{name: "truncated", send: good("# short")[:700], step: "read", says: []string{"the archive is cut off"}},
		{name: "another thing", send: []byte("<!doctype html>"), step: "read", says: []string{"not a .tar.gz archive"}},
		{name: "a gigabyte", serve: announced, step: "read", says: []string{"larger than 33554432 bytes"}},
		{name: "a gigabyte unannounced", serve: d.endless, step: "read", says: []string{"larger than 33554432 bytes"}, then: func(t *testing.T) {
			if sent := d.sent.Load(); sent > 100<<20 {
				t.Errorf("%d bytes of it were taken", sent)
			}
		}},
		{name: "a file of a gigabyte", send: bomb(t, true), step: "read", says: []string{`"data.json" is larger than 33554432 bytes`}},
		{name: "unfolds to a gigabyte", send: bomb(t, false), step: "read", says: []string{"unfolds to more than 67108864 bytes"}},
		{name: "leads out", send: leading(t, tar.Header{Name: "../../../../tmp/gatehouse-zip-slip.rego"}, "package x"), step: "read", says: []string{`the path "../../../../tmp/gatehouse-zip-slip.rego" is not one`}, then: func(t *testing.T) {
			if _, err := os.Lstat("/tmp/gatehouse-zip-slip.rego"); err == nil {
				t.Error("it was written")
			}
		}},
		{name: "a link", send: leading(t, tar.Header{Name: "data.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""), step: "read", says: []string{`"data.json" is a link`}},
		{name: "not signed", send: pack(t, "gatehouse", more("# new")), step: "signature", says: []string{"not signed"}},
		{name: "signed by another", send: stranger.sign(t, pack(t, "gatehouse", more("# new"))), step: "signature", says: []string{"by key release"}},
		{name: "roots that overlap", of: "kinds", send: release.sign(t, pack(t, "gatehouse/authz", map[string]string{"gatehouse/authz/data.json": "{}"})), step: "roots", says: []string{`root "gatehouse/authz" of source kinds`, "overlap"}},
		{name: "a package outside its roots", send: release.sign(t, pack(t, "gatehouse", map[string]string{"x.rego": "package kinds\n"})), step: "parse", says: []string{"authz:x.rego: package kinds is outside the roots"}},
		{name: "no Rego", send: good("decision := {"), step: "parse", says: []string{"authz:gatehouse/authz.rego:"}},
		{name: "a rule that reaches itself", send: good("a if b\n\nb if a"), step: "compile", says: []string{"authz:gatehouse/authz.rego:", "recursive"}},
		{name: "reaches outside", send: good(`a := http.send({"method": "GET", "url": "http://127.0.0.1"})`), step: "compile", says: []string{"authz:gatehouse/authz.rego:", "http.send"}},
		{name: "a rule that searches data that grows", send: release.sign(t, pack(t, "gatehouse", with(more(`decision := {"allow": true, "reasons": ["found"]} if {
	input.resource.type == "found"
	some user, n in data.gatehouse.users
	n == input.resource.properties.amount
}`), "gatehouse/users/data.json", "{"+large+"}"))), step: "budget", says: []string{"authz:gatehouse/authz.rego:", "data.gatehouse.users is searched through"}},
		{name: "a rule that loops over data", send: release.sign(t, pack(t, "gatehouse", with(more(`decision := {"allow": true, "reasons": ["found"]} if {
	input.resource.type == "found"
	some _, n in data.gatehouse.users
	some _, m in data.gatehouse.users
	n + m < 0
}`), "gatehouse/users/data.json", "{"+small+"}"))), step: "budget", says: []string{"takes longer than the 100ms"}},
		{name: "a rule that loops for everybody", send: release.sign(t, pack(t, "gatehouse", with(more(`decision := {"allow": true, "reasons": ["found"]} if {
	some _, n in data.gatehouse.users
	some _, m in data.gatehouse.users
	n + m < 0
}`), "gatehouse/users/data.json", "{"+small+"}"))), step: "probe"},
		{name: "allows by default", send: good("decision := {\"allow\": true, \"reasons\": [\"all\"]} if input.subject.type == \"probe\""), step: "probe", says: []string{"must deny by default"}},
	}

	dir := t.TempDir()
	config := filepath.Join(dir, "bundles.yaml")
	text := fmt.Sprintf(`
keys: {release: {algorithm: ES256, file: %s}}
keep: {dir: %s}
sources:
  authz: {url: "http://%s/authz", poll: 50ms, timeout: 1s}
  kinds: {url: "http://%[3]s/kinds", poll: 50ms, timeout: 1s}
`, release.public, filepath.Join(dir, "kept"), d.Address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	heal()
	args := []string{"-bundles", config, "-native", "off", "-partial-evaluation", "off"}
	p := start(t, dir, args...)
	p.within("the bundles decide", p.well)
	l := begin(t, p)
	for _, f := range faults {
		began := time.Now()
		f.play(t, p, l, d)
		heal()
		p.within(f.name+": all is well again", p.well)
		t.Logf("%-40s %6d ms", f.name, time.Since(began).Milliseconds())
	}

	// So many rules are no fault; but while they are taken up nobody waits.
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, "decision := {\"allow\": true, \"reasons\": [\"many\"]} if {\n\tinput.resource.type == \"many%d\"\n\tinput.subject.id == \"u%[1]d\"\n}\n\n", i)
	}
	began, loaded := time.Now(), p.metric(`gatehouse_pdp_policy_loads_total{result="loaded"}`)
	d.publish("authz", good(many.String()))
	p.within("10,000 rules decide", func() bool { return p.metric(`gatehouse_pdp_policy_loads_total{result="loaded"}`) > loaded && p.well() })
	l.rounds(2)
	t.Logf("10,000 rules came into force in %v", time.Since(began).Round(time.Millisecond))
	heal()
	p.within("all is well again", p.well)
	l.finish()

	// And without its source it starts with the last good ones.
	p.stop()
	d.Stop()
	p = start(t, dir, args...)
	p.within("the source is away", func() bool { return p.ready("Policies cannot be renewed", "away:", "connection refused") })
	l = begin(t, p)
	l.rounds(2)
	l.finish()
}

func with(files map[string]string, name, text string) map[string]string {
	files[name] = text
	return files
}

func (f fault) play(t *testing.T, p *program, l *load, d *depot) {
	t.Helper()
	if f.of == "" {
		f.of = "authz"
	}
	metric := fmt.Sprintf(`gatehouse_pdp_source_failures_total{source=%q,step=%q}`, f.of, f.step)
	message, before := "policies not loaded; the old ones go on deciding", p.metric(metric)
	switch {
	case f.cut:
		d.Stop()
		defer d.Start(t)
	case f.serve != nil:
		d.serve(f.of, f.serve)
	default:
		d.publish(f.of, f.send)
	}
	words := append([]string{"degraded", "Source " + f.of + ": "}, f.says...)
	if f.away {
		message, metric, before = "source of policies is away", fmt.Sprintf(`gatehouse_pdp_source_away{source=%q}`, f.of), 0
		words = append(words, "Policies cannot be renewed", "away: ")
	} else {
		words = append(words, "goes on deciding", f.step+": ")
	}
	p.within(f.name+" is told by /readyz", func() bool { return p.ready(words...) })
	p.within(f.name+" is told by "+metric, func() bool { return p.metric(metric) > before })
	quoted := make([]string, len(f.says))
	for i, s := range f.says {
		quoted[i] = strings.ReplaceAll(s, `"`, `\"`)
	}
	if p.line(message, append(quoted, `"source":"source `+f.of+`"`)...) == nil {
		t.Errorf("%s: the log does not say %q with %q", f.name, message, f.says)
	}
	l.rounds(2)
	if f.then != nil {
		f.then(t)
	}
}
