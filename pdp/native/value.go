package native

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Values are as encoding/json decodes them with UseNumber: nil, bool, string, json.Number, []any, map[string]any; and beside these
// int64, for numbers that were worked out, and *set. So data and requests are used as they are, and nothing is converted that no
// rule looks at. Whatever else turns up is handed to topdown.

// Relation is a large object of the data, which is looked up in and never gone through. What it answers is as encoding/json would
// have it, and neither it nor that changes.
type Relation interface {
	Member(name string) (any, bool)
}

// undefined is the value of what has none.
var undefined any = &struct{ _ byte }{}

// set is a Rego set: sorted, each value once.
type set struct{ items []any }

// bail is panicked with by whatever topdown has to answer: errors of builtins, conflicts, values that are not known here.
type bail struct{ why string }

func giveUp(why string) { panic(bail{why}) }

// newSet takes the items over. Of those that are equal the first one stays, as in topdown.
func newSet(items []any) *set {
	if items == nil {
		items = []any{}
	}
	if len(items) > 1 {
		slices.SortStableFunc(items, compare)
		items = slices.CompactFunc(items, equal)
	}
	return &set{items}
}

func (s *set) find(v any) (any, bool) {
	if len(s.items) <= 8 {
		for _, item := range s.items {
			if equal(item, v) {
				return item, true
			}
		}
		return nil, false
	}
	i := sort.Search(len(s.items), func(i int) bool { return compare(s.items[i], v) >= 0 })
	if i < len(s.items) && equal(s.items[i], v) {
		return s.items[i], true
	}
	return nil, false
}

// kinds in the order that Rego gives them.
const (
	kindNull = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
	kindSet
)

func kindOf(v any) int {
	switch v.(type) {
	case nil:
		return kindNull
	case bool:
		return kindBool
	case json.Number, int64:
		return kindNumber
	case string:
		return kindString
	case []any:
		return kindArray
	case map[string]any:
		return kindObject
	case *set:
		return kindSet
	}
	giveUp("a value of an unknown kind")
	return 0
}

func equal(a, b any) bool {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return ok && a == b
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	case nil:
		return b == nil
	case json.Number, int64:
		switch b.(type) {
		case json.Number, int64:
			return compareNumbers(a, b) == 0
		}
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, equal)
	case *set:
		b, ok := b.(*set)
		return ok && slices.EqualFunc(a.items, b.items, equal)
	}
	kindOf(a)
	kindOf(b)
	return false
}

// compare is Rego's order of all values.
func compare(a, b any) int {
	ka, kb := kindOf(a), kindOf(b)
	if ka != kb {
		return cmp.Compare(ka, kb)
	}
	switch a := a.(type) {
	case bool:
		switch b, _ := b.(bool); {
		case a == b:
			return 0
		case a:
			return 1
		default:
			return -1
		}
	case string:
		b, _ := b.(string)
		return strings.Compare(a, b)
	case json.Number, int64:
		return compareNumbers(a, b)
	case []any:
		b, _ := b.([]any)
		return slices.CompareFunc(a, b, compare)
	case map[string]any, *set:
		return ast.Compare(toAST(a), toAST(b))
	}
	return 0
}

func compareNumbers(a, b any) int {
	x, okX := integer(a)
	y, okY := integer(b)
	if okX && okY {
		return cmp.Compare(x, y)
	}
	return ast.Compare(ast.Number(number(a)), ast.Number(number(b)))
}

// integer answers a number that is written as a plain integer.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case json.Number:
		if len(v) == 0 || len(v) > 18 {
			return 0, false
		}
		var n int64
		digits := v
		if v[0] == '-' {
			digits = v[1:]
		}
		if len(digits) == 0 || digits[0] == '0' && len(v) > 1 {
			return 0, false
		}
		for i := range len(digits) {
			c := digits[i]
			if c < '0' || c > '9' {
				return 0, false
			}
			n = n*10 + int64(c-'0')
		}
		if len(digits) != len(v) {
			n = -n
		}
		return n, true
	}
	return 0, false
}

func number(v any) json.Number {
	switch v := v.(type) {
	case json.Number:
		return v
	case int64:
		return json.Number(strconv.FormatInt(v, 10))
	}
	giveUp("not a number")
	return ""
}

// lookUp answers what stands in v under a key; undefined if there is nothing, or v holds nothing.
func lookUp(v, key any) any {
	switch v := v.(type) {
	case map[string]any:
		if k, ok := key.(string); ok {
			if found, ok := v[k]; ok {
				return found
			}
		}
		return undefined
	case []any:
		switch key := key.(type) {
		case int64, json.Number:
			i, ok := integer(key)
			if !ok {
				giveUp("a place in an array that is no plain integer")
			}
			if i >= 0 && i < int64(len(v)) {
				return v[i]
			}
		}
		return undefined
	case *set:
		if found, ok := v.find(key); ok {
			return found
		}
		return undefined
	case Relation:
		if k, ok := key.(string); ok {
			if found, ok := v.Member(k); ok {
				return found
			}
		}
		return undefined
	}
	if v != undefined {
		kindOf(v)
	}
	return undefined
}

// sortedKeys are in the order in which topdown goes through an object.
func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// plain turns what a program worked out into JSON: sets become arrays, as in topdown's results.
func plain(v any) any {
	if isPlain(v) {
		return v
	}
	switch v := v.(type) {
	case int64:
		return number(v)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = plain(item)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[k] = plain(item)
		}
		return out
	case *set:
		return plain(v.items)
	}
	return v
}

func isPlain(v any) bool {
	switch v := v.(type) {
	case int64, *set:
		return false
	case []any:
		for _, item := range v {
			if !isPlain(item) {
				return false
			}
		}
	case map[string]any:
		for _, item := range v {
			if !isPlain(item) {
				return false
			}
		}
	default:
		kindOf(v)
	}
	return true
}

func toAST(v any) ast.Value {
	switch v := v.(type) {
	case nil:
		return ast.NullValue
	case bool:
		return ast.Boolean(v)
	case string:
		return ast.String(v)
	case json.Number, int64:
		return ast.Number(number(v))
	case []any:
		terms := make([]*ast.Term, len(v))
		for i, item := range v {
			terms[i] = ast.NewTerm(toAST(item))
		}
		return ast.NewArray(terms...)
	case map[string]any:
		items := make([][2]*ast.Term, 0, len(v))
		for k, item := range v {
			items = append(items, ast.Item(ast.StringTerm(k), ast.NewTerm(toAST(item))))
		}
		return ast.NewObject(items...)
	case *set:
		terms := make([]*ast.Term, len(v.items))
		for i, item := range v.items {
			terms[i] = ast.NewTerm(toAST(item))
		}
		return ast.NewSet(terms...)
	}
	kindOf(v)
	return nil
}

// fromAST answers false for what has no counterpart here: objects with keys that are not strings, and what is not constant.
func fromAST(v ast.Value) (any, bool) {
	switch v := v.(type) {
	case ast.Null:
		return nil, true
	case ast.Boolean:
		return bool(v), true
	case ast.String:
		return string(v), true
	case ast.Number:
		if n, ok := integer(json.Number(v)); ok {
			return n, true
		}
		return json.Number(v), true
	case *ast.Array:
		items := make([]any, v.Len())
		for i := range items {
			var ok bool
			if items[i], ok = fromAST(v.Elem(i).Value); !ok {
				return nil, false
			}
		}
		return items, true
	case ast.Object:
		m := make(map[string]any, v.Len())
		err := v.Iter(func(k, item *ast.Term) error {
			name, ok := k.Value.(ast.String)
			if !ok {
				return errNotHere
			}
			if m[string(name)], ok = fromAST(item.Value); !ok {
				return errNotHere
			}
			return nil
		})
		return m, err == nil
	case ast.Set:
		items := make([]any, 0, v.Len())
		for _, t := range v.Slice() {
			item, ok := fromAST(t.Value)
			if !ok {
				return nil, false
			}
			items = append(items, item)
		}
		return newSet(items), true
	}
	return nil, false
}
