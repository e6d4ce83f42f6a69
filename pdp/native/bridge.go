package native

import (
	"errors"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// families are the beginnings of the names of OPA's builtins that are functions of their operands and need nothing of an
// evaluation around them.
var families = []string{"abs", "array.", "base64", "bits.", "ceil", "concat", "contains", "count", "crypto.hmac.", "crypto.md5", "crypto.sha", "div", "endswith", "floor", "format_int", "glob.match", "hex.",
	"indexof", "intersection", "io.jwt.decode", "json.is_valid", "json.marshal", "json.unmarshal", "lower", "max", "min", "minus", "mul", "net.cidr_contains", "net.cidr_intersects", "net.cidr_is_valid", "object.",
	"and", "or", "plus", "product", "regex.is_valid", "regex.match", "regex.replace", "regex.split", "rem", "replace", "round", "semver.", "sort", "split", "sprintf", "startswith", "strings.", "substring", "sum",
	"time.add_date", "time.clock", "time.date", "time.diff", "time.parse_", "time.weekday", "to_number", "trim", "type_name", "union", "units.", "upper", "urlquery."}

// bridged calls OPA's own implementation of a builtin.
func bridged(name string, loc *ast.Location, args func(int) ([]value, error)) (value, int, error) {
	allowed := false
	for _, family := range families {
		allowed = allowed || name == family || strings.HasPrefix(name, family) && (strings.HasSuffix(family, ".") || strings.HasSuffix(family, "_") ||
			strings.HasPrefix(name, family+"_") || strings.HasPrefix(name, "base64") || strings.HasPrefix(name, "crypto.sha"))
	}
	decl, known := ast.BuiltinMap[name]
	impl := topdown.GetBuiltin(name)
	if !allowed || !known || impl == nil || decl.Nondeterministic || decl.Relation || decl.Decl.Result() == nil || decl.Decl.FuncArgs().Variadic != nil {
		return nil, 0, unsupported("the builtin "+name, loc)
	}
	arity := decl.Decl.Arity()
	given, err := args(arity)
	if err != nil {
		return nil, 0, err
	}
	return func(f *frame) any {
		terms, ok := make([]*ast.Term, arity), true
		for i, arg := range given {
			v := arg(f)
			if ok = ok && v != undefined; ok {
				terms[i] = ast.NewTerm(toAST(v))
			}
		}
		if !ok {
			return undefined
		}
		result := undefined
		f.look()
		err := impl(topdown.BuiltinContext{Context: f.ctx, Metrics: metrics.NoOp(), Location: loc}, terms, func(t *ast.Term) error {
			v, ok := fromAST(t.Value)
			if !ok || result != undefined {
				return errors.New("a result that has no counterpart")
			}
			result = v
			return nil
		})
		if err != nil {
			giveUp(name + " failed")
		}
		return result
	}, arity, nil
}
