package engine

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// ReadFolder reads the files of a policy folder as an Engine does.
func ReadFolder(folder fs.FS) (Part, error) {
	files, err := read(context.Background(), folder, nil)
	return Part{Source: Folder, Files: files}, err
}

// Packed is a part as a bundle holds it: the data of all its files in one data.json, as OPA reads nothing else.
type Packed struct {
	Files    map[string][]byte
	Revision string   // that of its files
	Roots    []string // the names below data that it defines
}

// Pack parses a part.
func Pack(p Part) (Packed, error) {
	src, err := parse(context.Background(), p)
	if err != nil {
		return Packed{}, &Refused{Step: StepParse, Err: err}
	}
	out := Packed{Files: map[string][]byte{}, Revision: src.revision}
	roots := map[string]bool{}
	for _, modules := range []map[string]*ast.Module{src.modules, src.tests} {
		for name, m := range modules {
			out.Files[name] = p.Files[name]
			if len(m.Package.Path) > 1 {
				root, _ := m.Package.Path[1].Value.(ast.String)
				roots[string(root)] = true
			}
		}
	}
	for name, text := range p.Files {
		if aside(name) {
			out.Files[name] = text
		}
	}
	for root := range src.data {
		roots[root] = true
	}
	out.Roots = slices.Sorted(maps.Keys(roots))
	if len(src.data) > 0 {
		out.Files["data.json"], err = json.Marshal(src.data)
	}
	return out, err
}

// Check takes the steps that an Engine takes with a part, of this one alone, and answers the *Refused of the first that fails.
// Rules that read data.directory are taken as where there is a directory: they may not go through its subjects. Where the part lacks the entry point, it ends with the part's tests and answers that the part does not decide. The services of
// look-ups need not be known.
func Check(ctx context.Context, p Part) (decides bool, err error) {
	ps := parts{p.Source: p}
	src, err := ps.parse(ctx)
	if err != nil {
		return false, &Refused{Step: StepParse, Err: err}
	}
	store := inmem.NewFromObjectWithOpts(src.data, inmem.OptRoundTripOnWrite(false))
	rules := map[string]*ast.Module{}
	for name, m := range src.modules {
		rules[name] = m.Copy()
	}
	compiler, err := compile(ctx, store, rules)
	if err != nil {
		return false, &Refused{Step: StepCompile, Err: err}
	}
	known, err := KnownOf(compiler, src.data, nil)
	if err != nil {
		return false, &Refused{Step: StepCompile, Err: err}
	}
	var subjects *directory.Directory
	if known != nil {
		subjects = directory.Fixed(known.view, directory.Options{})
		if _, err := known.Store(compiler, src.data); err != nil {
			return false, &Refused{Step: StepCompile, Err: err}
		}
	}
	if len(compiler.GetRulesExact(ast.MustParseRef(Entrypoint))) == 0 {
		if err := runTests(ctx, store, src, DefaultTests); err != nil {
			return false, &Refused{Step: StepTests, Err: err}
		}
		return false, nil
	}
	e := &Engine{opts: Options{Services: anyService(src.data), Deadline: DefaultDeadline, Tests: DefaultTests, Now: time.Now, Log: slog.New(slog.DiscardHandler), NoNative: true, NoPartial: true, Directory: subjects}, http: lookup.NewClient(), alone: true}
	defer e.Close()
	_, err = e.build(ctx, ps)
	return err == nil, err
}

// anyService makes up an address for each service that look-ups name.
func anyService(data map[string]any) map[string][]string {
	services := map[string][]string{}
	gatehouse, _ := data["gatehouse"].(map[string]any)
	declared, _ := gatehouse["lookups"].(map[string]any)
	for _, spec := range declared {
		fields, _ := spec.(map[string]any)
		text, _ := fields["url"].(string)
		if u, err := url.Parse(text); err == nil && u.Host != "" {
			services[u.Host] = []string{"http://127.0.0.1:1"}
		}
	}
	return services
}
