// Package author is what people who write policies work with: it runs their tests, cases and matrices, counts what those cover and
// which changes of a rule they would notice, says why something was decided and how near it was to the opposite, shows who gains
// and who loses access between two policies, and finds what should not be in one.
//
// It reads a policy folder as the engine does and decides by the same entry point with the same built-ins, but asks no service:
// what is known of a resource stands in the case.
package author

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
)

// Policy is one reading of a policy folder with its cases.
type Policy struct {
	engine.Source
	Dir   string // as the user named it; the first part of every place that is shown
	Cases []Case // of the cases and the matrices, in the order of files and lines

	known *directory.View // in place of the policy's own data.directory; may be nil
}

// Decision is what a policy said.
type Decision = golden.Decision

// Case is a decision as a person writes it down.
type (
	Case = golden.Case
	Who  = golden.Who
)

// ReadCases reads the cases and matrices of a policy folder.
func ReadCases(files fs.FS) ([]Case, error) { return golden.Read(files, "") }

// ParseCases reads one file of cases, or one matrix where file's name ends in .matrix.yaml. Errors are "file:line: what", one a line.
func ParseCases(file string, text []byte) ([]Case, error) { return golden.Parse(file, text) }

// Open reads the folder dir on disk.
func Open(dir string) (*Policy, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder of policies", dir)
	}
	return Read(os.DirFS(dir), dir)
}

// Read reads a folder; dir is what its files are shown under.
func Read(files fs.FS, dir string) (*Policy, error) {
	src, err := engine.ReadSource(files)
	if err != nil {
		return nil, placed(dir, err)
	}
	if len(src.Modules) == 0 {
		return nil, fmt.Errorf("%s holds no rules (*.rego)", dir)
	}
	if err := annotate(src); err != nil {
		return nil, placed(dir, err)
	}
	cases, err := golden.Read(files, dir)
	if err != nil {
		return nil, err
	}
	return &Policy{Source: src, Dir: dir, Cases: cases}, nil
}

// annotate reads the rules anew with their METADATA, which the engine has no use for.
func annotate(src engine.Source) error {
	var errs []error
	for _, name := range sorted(src.Modules) {
		m, err := ast.ParseModuleWithOpts(name, string(src.Files[name]), ast.ParserOptions{
			RegoVersion: ast.RegoV1, Capabilities: engine.Capabilities(), ProcessAnnotation: true,
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		src.Modules[name] = m
	}
	return errors.Join(errs...)
}

// place is where a user finds a file of the policy.
func (p *Policy) place(name string) string { return path.Join(p.Dir, name) }

// program is a compiled policy.
type program struct {
	compiler *ast.Compiler
	store    storage.Store
	tests    storage.Store // that Rego tests see: as opa test has it, unless a directory was named
	query    rego.PreparedEvalQuery
	known    *engine.Known // data.directory; nil where no rule reads it
	now      time.Time     // when it is asked; zero is at the time of each input
	because  func() engine.Because
}

// compile compiles the rules, which it leaves as they are. Strict is for what people wrote; a mutant may leave a variable unused. Rules
// that read data.directory read v, or without it what data says there, as those of a decision point do that has a directory.
func compile(ctx context.Context, modules map[string]*ast.Module, data map[string]any, v *directory.View, strict bool) (*program, error) {
	p := &program{store: inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false))}
	p.tests = p.store
	p.because = sync.OnceValue(func() engine.Because { return engine.BecauseOf(p.compiler, data, modules) })
	p.compiler = ast.NewCompiler().WithCapabilities(engine.Capabilities()).WithStrict(strict)
	if p.compiler.Compile(modules); p.compiler.Failed() {
		return nil, p.compiler.Errors
	}
	if len(p.compiler.GetRulesExact(ast.MustParseRef(engine.Entrypoint))) == 0 {
		return nil, fmt.Errorf("there is no rule %s", engine.Entrypoint)
	}
	var err error
	if p.known, err = engine.KnownOf(p.compiler, data, v); err != nil {
		return nil, err
	}
	if p.known != nil {
		if p.store, err = p.known.Store(p.compiler, data); err != nil {
			return nil, err
		}
	}
	if v != nil {
		p.tests = p.store
	}
	p.query, err = rego.New(rego.Query(engine.Entrypoint), rego.Compiler(p.compiler), rego.Store(p.store),
		rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	return p, err
}

// program compiles the policy as the engine does.
func (p *Policy) program(ctx context.Context) (*program, error) {
	c, err := compile(ctx, p.Modules, p.Data, p.known, true)
	if err != nil {
		return nil, placed(p.Dir, err)
	}
	return c, nil
}

// decide evaluates the entry point.
func (p *program) decide(ctx context.Context, input ast.Value, opts ...rego.EvalOption) Decision {
	d, _ := p.said(ctx, input, opts...)
	return d
}

// explained decides, and says by which rules a denial is.
func (p *program) explained(ctx context.Context, input ast.Value, opts ...rego.EvalOption) Decision {
	d, about := p.said(ctx, input, opts...)
	if d.Err == nil && !d.Allow {
		d.Rules = p.because().Rules(about)
	}
	return d
}

func (p *program) said(ctx context.Context, input ast.Value, opts ...rego.EvalOption) (Decision, authzen.ResponseContext) {
	results, err := p.query.Eval(p.at(ctx, input), append(opts, rego.EvalParsedInput(input))...)
	if err != nil {
		return Decision{Err: err}, authzen.ResponseContext{}
	}
	allow, about, err := engine.Decision(results)
	return Decision{Allow: allow, Reasons: about.Reasons, Err: err}, about
}

// at has an evaluation see who holds what at the time of its input.
func (p *program) at(ctx context.Context, input ast.Value) context.Context {
	if p.known == nil {
		return ctx
	}
	if !p.now.IsZero() {
		return p.known.At(ctx, p.now)
	}
	now := time.Now()
	if v, err := input.Find(ast.Ref{ast.StringTerm("context"), ast.StringTerm("time")}); err == nil {
		if text, ok := v.(ast.String); ok {
			if at, err := time.Parse(time.RFC3339Nano, string(text)); err == nil {
				now = at
			}
		}
	}
	return p.known.At(ctx, now)
}

// yamlPlace is how YAML errors say where.
var yamlPlace = regexp.MustCompile(`^(\S+): .*?line (\d+): `)

// placed puts the folder before the file names of parse and compile errors, one "file:line: what" a line.
func placed(dir string, err error) error {
	var all []error
	for _, e := range flatten(err) {
		var one *ast.Error
		switch {
		case errors.As(e, &one) && one.Location != nil && one.Location.File != "":
			all = append(all, fmt.Errorf("%s:%d: %s", path.Join(dir, one.Location.File), one.Location.Row, one.Message))
		default:
			text := yamlPlace.ReplaceAllString(oneLine(e), "$1:$2: ")
			if name, _, ok := strings.Cut(text, ":"); ok && path.Ext(name) != "" && !strings.ContainsRune(name, ' ') {
				text = path.Join(dir, name) + strings.TrimPrefix(text, name)
			}
			all = append(all, errors.New(text))
		}
	}
	return errors.Join(all...)
}

func flatten(err error) []error {
	if err == nil {
		return nil
	}
	var all []error
	switch e := err.(type) { //nolint:errorlint // lists are taken apart one layer at a time
	case ast.Errors:
		for _, one := range e {
			all = append(all, one)
		}
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			all = append(all, flatten(one)...)
		}
	default:
		all = []error{err}
	}
	return all
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// allModules are rules and tests together.
func (p *Policy) allModules() map[string]*ast.Module {
	all := maps.Clone(p.Modules)
	maps.Copy(all, p.Tests)
	return all
}

func sorted[K interface{ ~string }, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
