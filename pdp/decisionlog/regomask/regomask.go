// Package regomask lets a Rego policy choose what is kept out of a record, in the words of OPA's decision masking: the rule
// data.system.log.mask is a set of JSON Pointers to erase, or of objects {"op": "remove" | "upsert", "path": …, "value": …}, and
// its input is the record.
//
// A policy that fails, is undefined in a way that OPA would not accept, or takes too long hides everything that it could have
// hidden: the caller then erases input and result whole.
package regomask

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// deadline bounds one evaluation.
const deadline = 100 * time.Millisecond

// Policy is a compiled mask policy. It is safe for concurrent use.
type Policy struct{ query rego.PreparedEvalQuery }

// Open reads a file of package system.log and compiles it strictly, with those builtins alone that policies of decisions have.
func Open(ctx context.Context, path string) (*Policy, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator named it
	if err != nil {
		return nil, err
	}
	m, err := ast.ParseModuleWithOpts(path, string(text), ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: engine.Capabilities()})
	switch {
	case err != nil:
		return nil, err
	case m == nil || m.Package.Path.String() != "data.system.log":
		return nil, fmt.Errorf("%s: is not of package system.log", path)
	}
	compiler := ast.NewCompiler().WithCapabilities(engine.Capabilities()).WithStrict(true)
	if compiler.Compile(map[string]*ast.Module{path: m}); compiler.Failed() {
		return nil, compiler.Errors
	}
	if len(compiler.GetRulesExact(ast.MustParseRef("data.system.log.mask"))) == 0 {
		return nil, fmt.Errorf("%s: has no rule mask", path)
	}
	query, err := rego.New(rego.Query("data.system.log.mask"), rego.Compiler(compiler), rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Policy{query}, nil
}

// Masks answers what the policy hides of a record. Its errors hold nothing of the record: those of an evaluation name its code alone.
func (p *Policy) Masks(ctx context.Context, record []byte) ([]decisionlog.Mask, error) {
	input, err := ast.ValueFromReader(bytes.NewReader(record))
	if err != nil {
		return nil, errors.New("mask policy: the record cannot be read")
	}
	// Whoever asked for the decision may be gone; the record is made all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
	defer cancel()
	results, err := p.query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalMetrics(metrics.NoOp()))
	if err != nil {
		return nil, errors.New("mask policy: it cannot be evaluated")
	}
	if len(results) == 0 { // undefined: no rule hides anything, as in OPA
		return nil, nil
	}
	list, ok := results[0].Expressions[0].Value.([]any)
	if !ok {
		return nil, errors.New("mask policy: mask is not a set")
	}
	masks := make([]decisionlog.Mask, 0, len(list))
	for _, item := range list {
		m, err := maskOf(item)
		if err != nil {
			return nil, err
		}
		masks = append(masks, m)
	}
	return masks, nil
}

func maskOf(item any) (decisionlog.Mask, error) {
	switch item := item.(type) {
	case string:
		return decisionlog.Mask{Pointer: item}, nil
	case map[string]any:
		path, ok := item["path"].(string)
		value, given := item["value"]
		switch op := item["op"]; {
		case !ok:
		case op == "remove" && !given:
			return decisionlog.Mask{Pointer: path}, nil
		case op == "upsert" && given && value != nil:
			return decisionlog.Mask{Pointer: path, With: value}, nil
		case op == "upsert" && given:
			return decisionlog.Mask{Pointer: path}, nil // null shows as little as nothing
		}
	}
	return decisionlog.Mask{}, errors.New("mask policy: a member of mask is neither a pointer nor an object of op, path and value")
}
