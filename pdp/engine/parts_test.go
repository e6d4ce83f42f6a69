package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

const deciding = `package gatehouse.authz

default decision := {"allow": false}

decision := {"allow": true} if input.resource.type in data.kinds.allowed
`

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rules and kinds are two sources' parts that decide together.
func rules(more string) engine.Part {
	return engine.Part{Source: "rules", Revision: "r1", Roots: []string{"gatehouse"}, Files: map[string][]byte{"authz.rego": []byte(deciding + more)}}
}

func kinds(allowed string) engine.Part {
	return engine.Part{Source: "kinds", Roots: []string{"kinds"}, Files: map[string][]byte{"data.json": []byte(`{"kinds":{"allowed":["` + allowed + `"]}}`)}}
}

func two(t *testing.T, opts engine.Options) *engine.Engine {
	t.Helper()
	if opts.Feeds == nil {
		opts.Feeds = []engine.Feed{{Name: "rules"}, {Name: "kinds"}}
	}
	return open(t, opts)
}

func allows(t *testing.T, e *engine.Engine, kind string) bool {
	t.Helper()
	res, err := e.Evaluate(t.Context(), ask(kind, "1"))
	if err != nil {
		t.Fatal(err)
	}
	return res.Decision
}

func put(t *testing.T, e *engine.Engine, parts ...engine.Part) {
	t.Helper()
	for _, p := range parts {
		if err := e.Put(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

func isFault(err error, reason string) bool {
	f, ok := fault.As(err)
	return ok && f.Reason == reason
}

func wantReady(t *testing.T, e *engine.Engine, reason string, words ...string) {
	t.Helper()
	err := e.Ready()
	if reason == "" {
		if err != nil {
			t.Errorf("not ready: %v", err)
		}
		return
	}
	f, ok := fault.As(err)
	if !ok || f.Reason != reason {
		t.Errorf("Ready = %v, want %s", err, reason)
		return
	}
	for _, w := range words {
		if !strings.Contains(f.Detail, w) {
			t.Errorf("Ready says %q, without %q", f.Detail, w)
		}
	}
}

// S56: nothing is decided by half of the policies.
func TestNothingIsDecidedBeforeEverySourceHasSentPolicies(t *testing.T) {
	t.Parallel()
	e := two(t, engine.Options{})
	for range 2 {
		wantReady(t, e, "not_loaded", "kinds")
		res, err := e.Evaluate(t.Context(), ask("order", "1"))
		if !isFault(err, "not_loaded") || res.Decision || res.Context.DecisionID == "" {
			t.Fatalf("%+v, %v", res, err)
		}
		if doc, err := e.Document(t.Context(), dataapi.Question{Path: []string{"kinds"}}); !isFault(err, "not_loaded") || doc.Defined {
			t.Fatalf("%+v, %v", doc, err)
		}
		if s := e.Stats(); s.Newest || s.Revision != "" || len(s.Sources) != 2 || s.Sources[0].Newest {
			t.Errorf("told %+v", s)
		}
		put(t, e, rules(""))
	}
	put(t, e, kinds("order"))
	wantReady(t, e, "")
	if !allows(t, e, "order") || allows(t, e, "invoice") {
		t.Error("the two do not decide together")
	}
	if err := e.Put(t.Context(), engine.Part{Source: "else"}); err == nil {
		t.Error("a source that nobody named is taken")
	}
}

// S56: overlapping roots keep the old policies, and the error says which.
func TestOverlappingRootsKeepTheOldPolicies(t *testing.T) {
	t.Parallel()
	for name, roots := range map[string][]string{"same": {"gatehouse"}, "below": {"kinds", "gatehouse/authz"}, "everything": nil, "all": {""}} {
		e := two(t, engine.Options{})
		put(t, e, rules(""), kinds("order"))
		revision := e.Revision()
		bad := kinds("invoice")
		bad.Roots = roots
		err := e.Put(t.Context(), bad)
		var refused *engine.Refused
		if !errors.As(err, &refused) || refused.Step != engine.StepRoots || !strings.Contains(err.Error(), `root "gatehouse" of source rules`) || !strings.Contains(err.Error(), "of source kinds") {
			t.Errorf("%s: %v", name, err)
		}
		wantReady(t, e, "degraded", "kinds", "overlaps", revision)
		if !allows(t, e, "order") || e.Revision() != revision {
			t.Errorf("%s: the old policies do not decide", name)
		}
		put(t, e, kinds("invoice"))
		wantReady(t, e, "")
		if !allows(t, e, "invoice") {
			t.Errorf("%s: the next does not decide", name)
		}
	}
}

func TestAPartKeepsWithinItsRoots(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string][]byte{
		"data":   {"data.json": []byte(`{"kinds":{"allowed":["x"]},"gatehouse":{"x":1}}`)},
		"deeper": {"gatehouse/data.json": []byte(`{"x":1}`)},
		"rules":  {"x.rego": []byte("package gatehouse.authz\n\ndecision := {\"allow\": true}\n")},
		"tests":  {"x_test.rego": []byte("package other\n\ntest_x if true\n")},
		"prefix": {"x.rego": []byte("package kindsx\n\nx := 1\n")},
	} {
		e := two(t, engine.Options{})
		put(t, e, rules(""), kinds("order"))
		err := e.Put(t.Context(), engine.Part{Source: "kinds", Roots: []string{"kinds"}, Files: files})
		if err == nil || !strings.Contains(err.Error(), `outside the roots ["kinds"]`) || !allows(t, e, "order") {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := two(t, engine.Options{})
	deep := engine.Part{Source: "kinds", Roots: []string{"kinds/allowed", "a/b"}, Files: map[string][]byte{"data.json": []byte(`{"kinds":{"allowed":["x"]},"a":{"b":{"c":1}}}`)}}
	put(t, e, rules(""), deep)
	if !allows(t, e, "x") {
		t.Error("roots below the top do not decide")
	}
}

// Two sources that must change together do, in whatever order they arrive.
func TestAPartThatNeedsAnotherSourcesNextOneWaitsForIt(t *testing.T) {
	t.Parallel()
	e := two(t, engine.Options{})
	put(t, e, rules(""), kinds("order"))
	decided := make(chan string, 4)
	moved := kinds("invoice")
	moved.Roots, moved.Decides = []string{"gatehouse/kinds", "kinds"}, func() { decided <- "kinds" }
	if err := e.Put(t.Context(), moved); err == nil {
		t.Fatal("overlapping roots are taken")
	}
	// A third change that needs neither goes live meanwhile.
	put(t, e, rules("\nx := 1\n"))
	wantReady(t, e, "degraded", "kinds")
	if !allows(t, e, "order") {
		t.Error("the old kinds do not decide")
	}
	narrow := rules("\ny := 1\n")
	narrow.Roots = []string{"gatehouse/authz"}
	put(t, e, narrow)
	wantReady(t, e, "")
	if !allows(t, e, "invoice") || allows(t, e, "order") || len(decided) != 1 {
		t.Errorf("the new kinds do not decide, or were told %d times", len(decided))
	}
}

func TestWhatWasRefusedStaysToldUntilItsSourceSendsBetter(t *testing.T) {
	t.Parallel()
	var loads []engine.Load
	e := two(t, engine.Options{OnLoad: func(l engine.Load) { loads = append(loads, l) }})
	put(t, e, rules(""), kinds("order"))
	e.Refuse(t.Context(), "kinds", &engine.Refused{Step: engine.StepSignature, Err: errors.New("not signed")})
	wantReady(t, e, "degraded", "Source kinds: signature: not signed")
	put(t, e, rules("\nx := 1\n"))
	e.Confirm("kinds", time.Now())
	wantReady(t, e, "degraded", "Source kinds: signature: not signed")
	put(t, e, kinds("order"))
	wantReady(t, e, "")
	if s := e.Stats(); !s.Newest || s.Failures != 1 || s.Sources[0].Name != "kinds" || s.Sources[0].Failures[engine.StepSignature] != 1 || !s.Sources[0].Newest || s.Sources[0].Confirmed.IsZero() {
		t.Errorf("told %+v", s)
	}
	e.Away(t.Context(), "rules", errors.New("connection refused"))
	wantReady(t, e, "degraded", "Source rules: away: connection refused")
	e.Confirm("rules", time.Now())
	wantReady(t, e, "")
	var steps []string
	for _, l := range loads {
		steps = append(steps, l.Source+" "+l.Step)
	}
	if !slices.Equal(steps, []string{"kinds ", "kinds signature", "rules "}) {
		t.Errorf("told of %q", steps)
	}
}

// S56: past the age that its operator allows, a policy that nobody confirms is not ready and, by choice, denies.
func TestPoliciesThatNobodyConfirmsGrowStale(t *testing.T) {
	t.Parallel()
	for _, deny := range []bool{false, true} {
		c := &clock{now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
		e := two(t, engine.Options{Now: c.Now, Feeds: []engine.Feed{
			{Name: "rules", MaxStaleness: time.Minute, DenyWhenStale: deny}, {Name: "kinds"},
		}})
		put(t, e, rules(""), kinds("order"))
		c.advance(time.Minute)
		wantReady(t, e, "")
		c.advance(time.Second)
		wantReady(t, e, "stale", "rules")
		res, err := e.Evaluate(t.Context(), ask("order", "1"))
		if err != nil || res.Decision == deny || deny && !slices.Equal(res.Context.Reasons, []string{engine.Stale}) {
			t.Errorf("deny %v: %+v, %v", deny, res, err)
		}
		if doc, err := e.Document(t.Context(), dataapi.Question{Path: []string{"kinds"}}); doc.Defined == deny || deny && !isFault(err, engine.Stale) {
			t.Errorf("deny %v: document %+v, %v", deny, doc, err)
		}
		put(t, e, kinds("invoice")) // which says nothing of the rules
		wantReady(t, e, "stale")
		e.Confirm("rules", c.Now())
		wantReady(t, e, "")
		if !allows(t, e, "invoice") {
			t.Error("it goes on denying")
		}
		// A new part that does not load is no sign of life for the old.
		c.advance(time.Minute + time.Second)
		if err := e.Put(t.Context(), rules("\nbroken")); err == nil {
			t.Fatal("a broken part is taken")
		}
		e.Confirm("rules", c.Now())
		wantReady(t, e, "stale", "rules", "Source rules: parse:")
		put(t, e, rules(""))
		wantReady(t, e, "")
		// Nor is one that was refused before it was offered.
		c.advance(time.Minute + time.Second)
		e.Refuse(t.Context(), "rules", &engine.Refused{Step: engine.StepSignature, Err: errors.New("not signed")})
		e.Confirm("rules", c.Now())
		wantReady(t, e, "stale", "not signed")
		put(t, e, rules(""))
		c.advance(-time.Hour)
		wantReady(t, e, "stale")
		put(t, e, rules(""))
		wantReady(t, e, "")
	}
}

func TestAnOldPartIsAsOldAsItWasConfirmed(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	e := two(t, engine.Options{Now: c.Now, Feeds: []engine.Feed{{Name: "rules", MaxStaleness: time.Minute}, {Name: "kinds"}}})
	saved := rules("")
	saved.Confirmed = c.Now().Add(-time.Hour)
	put(t, e, saved, kinds("order"))
	wantReady(t, e, "stale", "rules")
}

// Each step is named, and keeps the old policies.
func TestTheStepThatFailedIsNamed(t *testing.T) {
	t.Parallel()
	for step, p := range map[string]engine.Part{
		engine.StepRoots:   {Source: "rules", Files: rules("").Files},
		engine.StepParse:   rules("\nx := {"),
		engine.StepCompile: rules("\nx := http.send({})"),
		engine.StepTests:   rules("\ntest_x if false"),
		engine.StepProbe:   {Source: "rules", Roots: []string{"gatehouse"}, Files: map[string][]byte{"a.rego": []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": true}\n")}},
		engine.StepLookups: {Source: "rules", Roots: []string{"gatehouse"}, Files: map[string][]byte{"a.rego": []byte(deciding), "gatehouse/data.yaml": []byte("lookups: 3")}},
	} {
		if step == engine.StepTests {
			p.Files = map[string][]byte{"authz.rego": []byte(deciding), "authz_test.rego": []byte("package gatehouse.authz_test\n\ntest_x if false\n")}
		}
		var told engine.Load
		e := two(t, engine.Options{OnLoad: func(l engine.Load) { told = l }})
		put(t, e, rules(""), kinds("order"))
		err := e.Put(t.Context(), p)
		var refused *engine.Refused
		if !errors.As(err, &refused) || refused.Step != step || told.Step != step || told.Err == nil || told.Source != "rules" {
			t.Errorf("%s: %v, told %+v", step, err, told)
		}
		wantReady(t, e, "degraded", "Source rules: "+step+": ")
		if !allows(t, e, "order") {
			t.Errorf("%s: the old policies do not decide", step)
		}
	}
}

func TestAFolderDecidesBesideASourceWithinItsRoots(t *testing.T) {
	t.Parallel()
	folder := fstest.MapFS{"gatehouse/authz.rego": {Data: []byte(deciding)}}
	e := open(t, engine.Options{Policies: folder, Roots: []string{"gatehouse"}, Feeds: []engine.Feed{{Name: "kinds"}}})
	wantReady(t, e, "not_loaded", "source kinds")
	put(t, e, kinds("order"))
	if !allows(t, e, "order") {
		t.Error("they do not decide together")
	}
	without := open(t, engine.Options{Policies: folder, Feeds: []engine.Feed{{Name: "kinds"}}})
	if err := without.Put(t.Context(), kinds("order")); err == nil || !strings.Contains(err.Error(), `root "" of the policy folder`) {
		t.Errorf("a folder that may define everything: %v", err)
	}
}

func TestSourcesNeedNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, sources := range [][]engine.Feed{{{}}, {{Name: "a"}, {Name: "a"}}} {
		if e, err := engine.Open(t.Context(), engine.Options{Feeds: sources}); err == nil {
			e.Close()
			t.Errorf("opened with %v", sources)
		}
	}
}

func TestAConfirmationOfWhatDoesNotDecideYetCountsFromThenOn(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	e := two(t, engine.Options{Now: c.Now, Feeds: []engine.Feed{{Name: "rules", MaxStaleness: time.Minute}, {Name: "kinds"}}})
	saved := rules("")
	saved.Confirmed = c.Now().Add(-time.Hour)
	put(t, e, saved)
	e.Confirm("rules", c.Now())
	put(t, e, kinds("order"))
	wantReady(t, e, "")
}

// S62: what is written to stall or break the decision point is refused in time, and what decided goes on.
func TestPoliciesThatAreMadeToBreakItAreRefused(t *testing.T) {
	t.Parallel()
	deep := func(open string, n int, end string) string { return strings.Repeat(open, n) + end }
	for name, c := range map[string]struct {
		step  string
		files map[string]string
	}{
		"recursion":         {engine.StepCompile, map[string]string{"a.rego": deciding + "\nf(x) := f(x)\n\ny := f(1)\n"}},
		"mutual recursion":  {engine.StepCompile, map[string]string{"a.rego": deciding + "\na := b\n\nb := a\n"}},
		"endless test":      {engine.StepTests, map[string]string{"a.rego": deciding, "a_test.rego": "package gatehouse.authz_test\n\ntest_x if {\n\tsome i in numbers.range(1, 1000000)\n\tsome j in numbers.range(1, 1000000)\n\ti + j < 0\n}\n"}},
		"endless rule":      {engine.StepProbe, map[string]string{"a.rego": deciding + "\ndecision := {\"allow\": true} if {\n\tsome i in numbers.range(1, 1000000)\n\tsome j in numbers.range(1, 1000000)\n\ti + j < 0\n}\n"}},
		"nested array":      {engine.StepParse, map[string]string{"a.rego": deciding + "\nx := " + deep("[", 200_000, "")}},
		"nested parens":     {engine.StepParse, map[string]string{"a.rego": deciding + "\nx := " + deep("(", 200_000, "1")}},
		"nested negation":   {engine.StepParse, map[string]string{"a.rego": deciding + "\nx if " + deep("not ", 200_000, "true")}},
		"deep JSON":         {engine.StepParse, map[string]string{"a.rego": deciding, "gatehouse/data.json": `{"x":` + deep("[", 200_000, "")}},
		"deep YAML":         {engine.StepParse, map[string]string{"a.rego": deciding, "gatehouse/data.yaml": "x: " + deep("[", 200_000, "")}},
		"YAML of aliases":   {engine.StepParse, map[string]string{"a.rego": deciding, "gatehouse/data.yaml": aliases()}},
		"not UTF-8":         {engine.StepParse, map[string]string{"a.rego": deciding + "\nx := \"\xff\xfe\"\n"}},
		"NUL":               {engine.StepParse, map[string]string{"a.rego": deciding + "\nx := 1\x00\n"}},
		"data is an array":  {engine.StepParse, map[string]string{"a.rego": deciding, "gatehouse/data.json": "[]"}},
		"rule against data": {engine.StepCompile, map[string]string{"a.rego": deciding + "\nx := 1\n", "gatehouse/authz/data.json": `{"x":2}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := two(t, engine.Options{Tests: 200 * time.Millisecond})
			put(t, e, rules(""), kinds("order"))
			p := engine.Part{Source: "rules", Roots: []string{"gatehouse"}, Files: map[string][]byte{}}
			for name, text := range c.files {
				p.Files[name] = []byte(text)
			}
			var refused *engine.Refused
			if err := e.Put(t.Context(), p); !errors.As(err, &refused) || refused.Step != c.step {
				t.Errorf("%.300v", err)
			}
			if !allows(t, e, "order") {
				t.Error("the old policies do not decide")
			}
		})
	}
}

// aliases is a few lines of YAML that stand for a billion values.
func aliases() string {
	text := "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		text += fmt.Sprintf("a%d: &a%d [", i, i) + strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9) + "]\n"
	}
	return text
}

func TestTenThousandRulesLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	t.Parallel()
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "\ndecision := {\"allow\": true} if {\n\tinput.resource.type == \"t%d\"\n\tinput.subject.id == \"alice\"\n}\n", i)
	}
	e := two(t, engine.Options{})
	put(t, e, rules(b.String()), kinds("order"))
	if !allows(t, e, "t9999") || allows(t, e, "t10000") {
		t.Error("they do not decide")
	}
}

// Whoever asks is never held up, and never sees half of a change.
func TestSourcesAndQuestionsDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	e := two(t, engine.Options{Feeds: []engine.Feed{{Name: "rules", MaxStaleness: time.Hour, DenyWhenStale: true}, {Name: "kinds", MaxStaleness: time.Hour}}})
	put(t, e, rules(""), kinds("order"))
	var wg sync.WaitGroup
	for _, source := range []string{"rules", "kinds"} {
		wg.Go(func() {
			for i := range 30 {
				p := kinds("order")
				if source == "rules" {
					p = rules(fmt.Sprintf("\nx := %d\n", i))
				}
				switch i % 5 {
				case 3:
					p.Roots = nil // which overlaps
				case 4:
					e.Refuse(t.Context(), source, errors.New("not signed"))
					e.Away(t.Context(), source, errors.New("away"))
				}
				_ = e.Put(t.Context(), p) // some are meant to fail
				e.Confirm(source, time.Now())
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for asking := true; asking; {
		select {
		case <-done:
			asking = false
		default:
		}
		if !allows(t, e, "order") || allows(t, e, "invoice") {
			t.Fatal("a wrong decision")
		}
		_, _ = e.Ready(), e.Stats()
	}
	put(t, e, rules(""), kinds("order"))
	wantReady(t, e, "")
}
