package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// Entrypoint is the rule that decides.
const Entrypoint = "data.gatehouse.authz.decision"

// snapshot is everything that a decision depends on. It never changes.
type snapshot struct {
	revision string
	forms    *forms
	lookups  *lookup.Set
	looksAt  looksAt
	answers  *answers // nil: nothing is remembered
	because  *because

	documents documents // for OPA's Data API
	names     names     // for searches
}

// source is one reading of the policy files.
type source struct {
	revision string
	modules  map[string]*ast.Module
	named    map[string]*ast.Module // those in which rules may have ids of their own, parsed with them
	tests    map[string]*ast.Module
	data     map[string]any
}

// The steps of loading, in their order. Nothing is parsed before its signature holds; a test never runs what did not compile.
const (
	StepRead      = "read" // what its limits allow; done by whoever calls Put, as is the next
	StepSignature = "signature"
	StepRoots     = "roots"
	StepParse     = "parse"
	StepLookups   = "lookups"
	StepCompile   = "compile"
	StepTests     = "tests"
	StepPrepare   = "prepare"
	StepProbe     = "probe"
)

// Refused says at which step policies were refused.
type Refused struct {
	Step string
	Err  error
}

func (r *Refused) Error() string { return r.Step + ": " + r.Err.Error() }

func (r *Refused) Unwrap() error { return r.Err }

// Load is one attempt to put policies in force.
type Load struct {
	Source   string // whose new part it was; "" is the folder
	Revision string
	Step     string // the one that failed, if any
	Err      error
	Took     time.Duration
}

func stepOf(err error) string {
	var r *Refused
	if errors.As(err, &r) {
		return r.Step
	}
	if err != nil {
		return StepRead // the folder
	}
	return ""
}

// build makes a snapshot of parts or says why it cannot be one, as a *Refused.
func (e *Engine) build(ctx context.Context, ps parts) (s *snapshot, err error) {
	step := StepRoots
	defer func() {
		if p := recover(); p != nil { // what breaks OPA's compiler must not end what decides
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			s, err = nil, &Refused{Step: step, Err: err}
		}
	}()
	return e.steps(ctx, ps, &step)
}

func (e *Engine) steps(ctx context.Context, ps parts, step *string) (*snapshot, error) {
	if err := ps.conflict(); err != nil {
		return nil, err
	}
	*step = StepParse
	src, err := ps.parse(ctx)
	if err != nil {
		return nil, err
	}
	*step = StepLookups
	var declared any
	if gatehouse, ok := src.data["gatehouse"].(map[string]any); ok {
		declared = gatehouse["lookups"]
	}
	lookups, err := lookup.New(declared, e.opts.Services, e.http, e.opts.Now)
	if err != nil {
		return nil, err
	}
	lookups.CountIn(&e.lookups)
	lookups.Authorize(e.opts.Tokens)
	*step = StepCompile
	store, tree, err := storeOf(src.data, e.large(), e.opts.Directory, inmem.OptReturnASTValuesOnRead(ps.dataBytes() <= smallData))
	if err != nil {
		return nil, err
	}
	pace.Breathe(ctx)
	compiler, err := compile(ctx, store, src.modules)
	if err != nil {
		return nil, err
	}
	pace.Breathe(ctx)
	if err := scans(compiler, store); err != nil {
		return nil, err
	}
	if len(compiler.GetRulesExact(ast.MustParseRef(Entrypoint))) == 0 {
		return nil, fmt.Errorf("there is no rule %s", Entrypoint)
	}
	deps, err := dependenciesOf(compiler)
	if err != nil {
		return nil, err
	}
	if deps.properties && lookups.Any() {
		deps = deps.lookingUp()
	}
	pace.Breathe(ctx)
	*step = StepSchema
	if err := e.conform(ps, src, compiler); err != nil {
		return nil, err
	}
	pace.Breathe(ctx)
	*step = StepTests
	plain, err := testStoreOf(src.data)
	if err != nil {
		return nil, err
	}
	if err := runTests(ctx, plain, src, e.opts.Tests); err != nil {
		return nil, err
	}
	pace.Breathe(ctx)
	*step = StepPrepare
	query, err := rego.New(rego.Query(Entrypoint), rego.Compiler(compiler), rego.Store(store),
		rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	pace.Breathe(ctx)
	*step = StepGolden
	aside := ctx // cases and budgets are about what the policies themselves say of subjects, not about who there is today
	if e.opts.Directory != nil && deps.directory {
		made, err := fixture(src.data)
		if err != nil {
			return nil, err
		}
		aside = seeing(ctx, made, e.opts.Now())
	}
	if err := e.agree(aside, ps, query); err != nil {
		return nil, err
	}
	*step = StepBudget
	if err := e.afford(aside, ps, src, compiler, query); err != nil {
		return nil, err
	}
	pace.Breathe(ctx)
	*step = StepProbe
	s := &snapshot{
		revision: src.revision, forms: &forms{rule: Entrypoint, plain: query}, lookups: lookups, looksAt: deps, answers: newAnswers(e.opts.Memory, &e.tallies),
		documents: documents{compiler: compiler, store: store, data: tree, names: src.names(), queries: map[string]*forms{}},
	}
	if err := s.deniesByDefault(ctx, e.opts.Deadline); err != nil {
		return nil, err
	}
	s.forms = e.quicken(ctx, &s.documents, src.modules, ast.MustParseRef(Entrypoint), query)
	if *step = StepBudget; s.forms.late != nil {
		return nil, s.forms.late
	}
	s.because = s.documents.becauseOf(ctx)
	for _, a := range s.forms.readBefore() {
		s.because.tell(a)
	}
	e.tell(ctx, s.forms)
	e.takeOver(ctx, &s.documents, e.current.Load())
	return s, nil
}

// deniesByDefault asks for something that no policy can know (S62).
func (s *snapshot) deniesByDefault(ctx context.Context, deadline time.Duration) error {
	nobody := authzen.Request{
		Subject: authzen.Subject{Type: "probe", ID: "probe"}, Action: authzen.Action{Name: "probe"},
		Resource: authzen.Resource{Type: "probe", ID: "probe"}, Context: map[string]any{"ip": "192.0.2.1"},
	}
	input, err := inputOf(nobody, nil, clockOf(time.Unix(0, 0)))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, max(deadline, time.Second)) // the first evaluation of a cold snapshot
	defer cancel()
	results, err := s.forms.plain.Eval(ctx, rego.EvalParsedInput(input))
	if err != nil {
		return err
	}
	allow, err := decisionOf(saidBy(results), &authzen.ResponseContext{})
	if err != nil {
		return err
	}
	if allow {
		return errors.New("the policies allow an unknown subject an unknown action on an unknown resource; they must deny by default")
	}
	return nil
}

// Capabilities are OPA's own less every builtin that reaches outside the process or is not a function of its operands (S62).
func Capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		switch b.Name {
		case "http.send", "net.lookup_ip_addr", "opa.runtime",
			// These ask the process's clock, which OPA does not say of them.
			"crypto.x509.parse_and_verify_certificates", "crypto.x509.parse_and_verify_certificates_with_options":
			return true
		}
		return b.Nondeterministic
	})
	c.AllowNet = []string{} // schemas are not fetched either
	return c
}

func compile(ctx context.Context, store storage.Store, modules map[string]*ast.Module) (*ast.Compiler, error) {
	var compiler *ast.Compiler
	err := storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		compiler = breathing(ctx, ast.NewCompiler().WithCapabilities(Capabilities())).WithStrict(true).
			WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn))
		compiler.Compile(modules)
		if compiler.Failed() {
			return compiler.Errors
		}
		return nil
	})
	return compiler, err
}

// runTests runs the *_test.rego beside the rules: policies that break their own tests do not go live.
func runTests(ctx context.Context, store storage.Store, src source, limit time.Duration) error {
	if len(src.tests) == 0 {
		return nil
	}
	all := maps.Clone(src.modules)
	maps.Copy(all, src.tests)
	// The compiler rewrites modules in place.
	for name, m := range all {
		all[name] = m.Copy()
	}
	ctx, cancel := context.WithTimeout(ctx, pace.Limit(ctx, limit))
	defer cancel()
	return storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		runner := tester.NewRunner().SetCompiler(breathing(ctx, ast.NewCompiler().WithCapabilities(Capabilities()))).
			SetStore(store).SetModules(all).SetTimeout(limit)
		if pace.Paced(ctx) {
			runner.SetParallel(1)
		}
		results, err := runner.RunTests(ctx, txn)
		if err != nil {
			return err
		}
		var failed, late []string
		for r := range results {
			switch name := r.Location.File + ": " + r.Name; {
			case topdown.IsCancel(r.Error), errors.Is(r.Error, context.DeadlineExceeded):
				late = append(late, name)
			case r.Fail || r.Error != nil:
				failed = append(failed, name)
			}
			pace.Breathe(ctx) // the runner waits meanwhile
		}
		if len(failed) > 0 {
			slices.Sort(failed)
			return fmt.Errorf("these fail: %s", strings.Join(failed, ", "))
		}
		if err := ctx.Err(); errors.Is(err, context.Canceled) || err == nil && len(late) == 0 {
			return err
		}
		which := ""
		if len(late) > 0 {
			which = ", " + slices.Min(late) + " among them"
		}
		return fmt.Errorf("the tests do not end within %v%s: %w", limit, which, context.DeadlineExceeded)
	})
}

// parse reads modules and data as `opa test <folder>` does: a data file's place in the folder is its path in data.
func parse(ctx context.Context, p Part) (source, error) {
	src := source{revision: p.digestOf(ctx), modules: map[string]*ast.Module{}, named: map[string]*ast.Module{}, tests: map[string]*ast.Module{}, data: map[string]any{}}
	var errs []error
	for _, file := range slices.Sorted(maps.Keys(p.Files)) {
		name := p.at(file)
		if aside(file) {
			continue
		}
		if strings.HasSuffix(name, ".rego") {
			pace.Breathe(ctx)
			m, err := ast.ParseModuleWithOpts(name, string(p.Files[file]), ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: Capabilities()})
			switch {
			case err != nil:
				errs = append(errs, err)
			case m == nil:
				errs = append(errs, fmt.Errorf("%s: empty module", name))
			case strings.HasSuffix(name, "_test.rego"):
				src.tests[name] = m
			default:
				src.modules[name] = m
				if annotated := withIDs(name, p.Files[file]); annotated != nil {
					src.named[name] = annotated
				}
			}
			continue
		}
		v, err := p.decoded.decode(ctx, file, p.Files[file])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if !isObject(v) {
			errs = append(errs, fmt.Errorf("%s: data must be an object", name))
			continue
		}
		if dir := path.Dir(file); dir != "." {
			parts := strings.Split(dir, "/")
			for _, p := range slices.Backward(parts) {
				v = map[string]any{p: v}
			}
		}
		object := objectOf(v)
		if at := merge(src.data, object, ""); at != "" {
			errs = append(errs, fmt.Errorf("%s: %s is also defined by another file", name, at))
		}
	}
	p.decoded.keep(p.Files)
	return src, errors.Join(errs...)
}

// merge adds from to into, and answers the path of the first conflict.
func merge(into, from map[string]any, at string) (conflict string) {
	for k, v := range from {
		old, taken := into[k]
		if !taken {
			into[k] = v
			continue
		}
		if !isObject(old) || !isObject(v) {
			return at + "/" + k
		}
		a, b := maps.Clone(objectOf(old)), objectOf(v) // old may be what a file holds, which stays as it is
		into[k] = a
		if c := merge(a, b, at+"/"+k); c != "" {
			return c
		}
	}
	return ""
}
