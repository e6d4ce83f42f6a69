package author

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/budget"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
	"github.com/gatehouse-auth/gatehouse/pdp/schema"
)

// What lint looks for.
const (
	lintParse    = "parse"            // files that cannot be read: rules, data, cases
	lintStrict   = "strict"           // what opa check --strict refuses
	lintDefault  = "default-deny"     // the decision has a default, and it denies
	lintMetadata = "metadata"         // every rule says in METADATA what it is for
	lintBuiltin  = "nondeterministic" // built-ins that answer differently twice, or reach outside
	lintScan     = "scan"             // no search through data that grows
	lintBudget   = "budget"           // budget.yaml can be read
	lintSchema   = "schema"           // what rules look at is in their input and data
	lintRules    = "rules"            // a denial tells by which rules it is
)

// Finding is something that should not be in a policy.
type Finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

// Lint looks at the folder dir. The error is that it could not.
func Lint(dir string) ([]Finding, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder of policies", dir)
	}
	return LintFS(os.DirFS(dir), dir)
}

// LintFS looks at a folder; dir is what its files are shown under.
func LintFS(files fs.FS, dir string) ([]Finding, error) {
	l := &linter{dir: dir}
	src, err := engine.ReadSource(files)
	var path *fs.PathError
	if errors.As(err, &path) {
		return nil, err
	}
	if err == nil {
		err = annotate(src)
	}
	_, casesErr := golden.Read(files, dir)
	l.errors(lintParse, errors.Join(placed(dir, err), casesErr))
	if err == nil {
		l.policy(&Policy{Source: src, Dir: dir})
	}
	slices.SortFunc(l.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(l.found), nil
}

type linter struct {
	dir   string
	found []Finding
}

// inPlace is an error that says where.
var inPlace = regexp.MustCompile(`^(.+?):(\d+): (.*)$`)

func (l *linter) errors(rule string, err error) {
	if err == nil {
		return
	}
	for _, e := range flatten(err) {
		f := Finding{File: l.dir, Rule: rule, Message: oneLine(e)}
		if m := inPlace.FindStringSubmatch(f.Message); m != nil {
			f.File, f.Message = m[1], m[3]
			f.Line, _ = strconv.Atoi(m[2]) // digits
		}
		l.found = append(l.found, f)
	}
}

func (l *linter) policy(p *Policy) {
	find := func(at *ast.Location, rule, format string, args ...any) {
		l.found = append(l.found, Finding{File: p.place(at.File), Line: at.Row, Rule: rule, Message: fmt.Sprintf(format, args...)})
	}
	outside := map[string]bool{}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		outside[b.Name] = true
	}
	for _, b := range engine.Capabilities().Builtins {
		delete(outside, b.Name)
	}
	calls := map[position]bool{}
	all := p.allModules()
	for _, name := range sorted(all) {
		ast.WalkRefs(all[name], func(r ast.Ref) bool {
			if outside[r.String()] && r[0].Location != nil {
				find(r[0].Location, lintBuiltin, "%s answers differently each time or reaches outside; what a policy needs to know is in its input", r)
				calls[position{file: r[0].Location.File, row: r[0].Location.Row}] = true
			}
			return false
		})
	}
	c := ast.NewCompiler().WithCapabilities(engine.Capabilities()).WithStrict(true)
	c.Compile(all)
	for _, e := range c.Errors {
		if e.Location == nil || !calls[position{file: e.Location.File, row: e.Location.Row}] {
			l.errors(lintStrict, placed(p.Dir, e))
		}
	}
	l.defaultDeny(p)
	for _, name := range sorted(p.Modules) {
		ids := ruleid.Of(p.Modules[name])
		for i, r := range p.Modules[name].Rules {
			if !slices.ContainsFunc(r.Annotations, func(a *ast.Annotations) bool { return a.Title != "" || a.Description != "" }) {
				find(r.Location, lintMetadata, "%s has no METADATA with a title", ids[i])
			}
		}
	}
	if limits, err := p.budget(); err != nil {
		l.errors(lintBudget, err)
	} else if !c.Failed() {
		for _, name := range sorted(p.Modules) {
			ast.WalkRules(c.Modules[name], func(r *ast.Rule) bool {
				for _, scan := range budget.Scans(c, p.Data, r) {
					if why := scan.TooMuch(limits, true); why != "" {
						find(scan.At, lintScan, "%s", why)
					}
				}
				return false
			})
		}
		l.schema(p, c)
		l.directory(p)
		l.shape(p)
		l.rules(p)
	}
}

// directory looks for rules that go through what a decision point with a directory answers by keys alone, and refuses.
func (l *linter) directory(p *Policy) {
	c := ast.NewCompiler().WithCapabilities(engine.Capabilities())
	if c.Compile(p.Modules); c.Failed() {
		return
	}
	known, err := engine.KnownOf(c, p.Data, nil)
	if err == nil && known != nil {
		_, err = known.Store(c, p.Data)
	}
	l.errors(lintScan, placed(p.Dir, err))
}

// rules looks for what answers and records of denials cannot tell apart.
func (l *linter) rules(p *Policy) {
	c := ast.NewCompiler().WithCapabilities(engine.Capabilities())
	if c.Compile(p.Modules); c.Failed() {
		return
	}
	said := engine.BecauseOf(c, p.Data, p.Modules).Said()
	find := func(at *ast.Location, format string, args ...any) {
		l.found = append(l.found, Finding{File: p.place(at.File), Line: at.Row, Rule: lintRules, Message: fmt.Sprintf(format, args...)})
	}
	for _, d := range said.Doubles() {
		find(d.At, "the reason %s is said by %s: a record names them all, whichever of them denied", d.Says, strings.Join(d.Rules, ", "))
	}
	shared := said.Shared()
	for _, id := range sorted(shared) {
		at := shared[id]
		find(at[1], "%s is what the rule at %s:%d is called too, and records cannot tell them apart; give it an id in its METADATA (custom: {id: …})", id, p.place(at[0].File), at[0].Row)
	}
}

// shape looks for a directory in the data that no decision point's would look like: rules would find nobody in it.
func (l *linter) shape(p *Policy) {
	known, _ := p.Data["directory"].(map[string]any)
	for _, member := range sorted(known) {
		if member == "subjects" || member == "roles" {
			continue
		}
		at := p.Dir
		for _, name := range sorted(p.Files) {
			if strings.HasPrefix(name, "directory/") && !strings.HasSuffix(name, ".rego") {
				at = p.place(name)
			}
		}
		l.found = append(l.found, Finding{File: at, Rule: lintSchema, Message: fmt.Sprintf("data.directory has subjects and roles, and no %q; files in the folder directory hold these two by themselves", member)})
	}
}

// schema looks for references to what is not there, and to what is nearly something else.
func (l *linter) schema(p *Policy, c *ast.Compiler) {
	known := schema.Base()
	if text, ok := p.Aside[schema.File]; ok {
		var err error
		if known, err = schema.Over(p.place(schema.File), text); err != nil {
			l.errors(lintSchema, err)
			return
		}
	}
	for _, one := range known.Check(c, ast.MustParseRef(engine.Entrypoint), p.Data, sorted(p.Modules)) {
		l.found = append(l.found, Finding{File: p.place(one.File), Line: one.Line, Rule: lintSchema, Message: one.Message})
	}
}

// budget is what the folder's budget.yaml allows; lint is stricter than loading where it says nothing.
func (p *Policy) budget() (budget.Limits, error) {
	const most = 100 // members of data that lint lets be searched through at each decision
	text, ok := p.Aside[budget.File]
	if !ok {
		return budget.Limits{Scan: most}, nil
	}
	limits, err := budget.Parse(p.place(budget.File), text)
	if limits.Scan == 0 {
		limits.Scan = most
	}
	return limits, err
}

// defaultDeny looks for the default of the entry point (S62).
func (l *linter) defaultDeny(p *Policy) {
	const wanted = `default decision := {"allow": false, …}`
	entry := ast.MustParseRef(engine.Entrypoint)
	at := Finding{File: p.Dir, Rule: lintDefault}
	for _, name := range sorted(p.Modules) {
		m := p.Modules[name]
		for _, r := range m.Rules {
			if !m.Package.Path.Extend(r.Head.Ref().GroundPrefix()).Equal(entry) {
				continue
			}
			if at.Line == 0 {
				at.File, at.Line = p.place(name), r.Location.Row
			}
			if !r.Default {
				continue
			}
			decision, ok := r.Head.Value.Value.(ast.Object)
			if ok {
				allow := decision.Get(ast.StringTerm("allow"))
				ok = allow != nil && ast.Boolean(false).Equal(allow.Value)
			}
			if !ok {
				at.Line, at.Message = r.Location.Row, "the default of "+engine.Entrypoint+" does not deny; write "+wanted
				l.found = append(l.found, at)
			}
			return
		}
	}
	at.Message = engine.Entrypoint + " has no default: what no rule covers is undecided; write " + wanted
	l.found = append(l.found, at)
}

// Describe lists what lint looks for.
func Describe() string {
	return strings.Join([]string{lintParse, lintStrict, lintDefault, lintMetadata, lintBuiltin, lintScan, lintSchema, lintBudget, lintRules}, ", ")
}
