package engine

import (
	"context"
	"io/fs"
	"maps"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// Source is one reading of a policy folder, for the tools of those who write policies. The modules are as parsed.
type Source struct {
	Revision string
	Files    map[string][]byte      // of rules, tests and data
	Aside    map[string][]byte      // what is said about them: the schema, and cases
	Modules  map[string]*ast.Module // rules
	Tests    map[string]*ast.Module // *_test.rego
	Data     map[string]any
}

// ReadSource reads a folder exactly as an Engine does.
func ReadSource(dir fs.FS) (Source, error) {
	files, err := read(context.Background(), dir, nil)
	if err != nil {
		return Source{}, err
	}
	src, err := parse(context.Background(), Part{Files: files})
	besides := map[string][]byte{}
	for name, text := range files {
		if aside(name) {
			besides[name] = text
		}
	}
	maps.DeleteFunc(files, func(name string, _ []byte) bool { return aside(name) })
	return Source{Revision: src.revision, Files: files, Aside: besides, Modules: src.modules, Tests: src.tests, Data: src.data}, err
}

// Input is what policies see of a request: known is what is known of the resource, nil for what the request itself says of it.
func Input(r authzen.Request, known map[string]any, now time.Time) (ast.Value, error) {
	if known == nil {
		known = others(r.Resource.Properties, resourceMembers)
	}
	return inputOf(r, known, clockOf(now))
}

// Decision reads the result of the entry point as strictly as Evaluate does.
func Decision(results rego.ResultSet) (allow bool, about authzen.ResponseContext, err error) {
	allow, err = decisionOf(saidBy(results), &about)
	return allow, about, err
}

// Because says by which rules a policy's denials came to be, as answers and records do.
type Because struct{ of *because }

// BecauseOf finds out of compiled rules, of the modules that they were compiled of, and of the data that they look into.
func BecauseOf(c *ast.Compiler, data map[string]any, modules map[string]*ast.Module) Because {
	d := &documents{compiler: c, data: data, names: source{modules: modules}.names()}
	return Because{d.becauseOf(context.Background())}
}

// Rules are the ids of the rules by which a denial came to be.
func (b Because) Rules(about authzen.ResponseContext) []string {
	b.of.tell(&answer{about: &about})
	return about.Rules
}

// Said answers what ruleid knows of the decision.
func (b Because) Said() *ruleid.Origins { return b.of.origins }

// Digest names the files of the part, as Engine.Revision does where they alone decide.
func (p Part) Digest() string { return p.digestOf(context.Background()) }
