package native

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// builtin compiles a call of one of OPA's builtins. Operands of the wrong kind are an error in topdown, and so not answered here.
func builtin(s *scope, name string, operands []*ast.Term, loc *ast.Location, args func(int) ([]value, error)) (value, int, error) {
	if work, arity, err := ready(s, name, operands); work != nil || err != nil {
		return work, arity, err
	}
	if work, ok := one[name]; ok {
		a, err := args(1)
		if err != nil {
			return nil, 0, err
		}
		x := a[0]
		return func(f *frame) any {
			v := x(f)
			if v == undefined {
				return undefined
			}
			return work(f, v)
		}, 1, nil
	}
	if work, ok := two[name]; ok {
		a, err := args(2)
		if err != nil {
			return nil, 0, err
		}
		x, y := a[0], a[1]
		return func(f *frame) any {
			v, w := x(f), y(f)
			if v == undefined || w == undefined {
				return undefined
			}
			return work(f, v, w)
		}, 2, nil
	}
	if work, ok := three[name]; ok {
		a, err := args(3)
		if err != nil {
			return nil, 0, err
		}
		x, y, z := a[0], a[1], a[2]
		return func(f *frame) any {
			u, v, w := x(f), y(f), z(f)
			if u == undefined || v == undefined || w == undefined {
				return undefined
			}
			return work(f, u, v, w)
		}, 3, nil
	}
	return bridged(name, loc, args)
}

func text(v any) string {
	s, ok := v.(string)
	if !ok {
		giveUp("an operand that is not a string")
	}
	return s
}

var one = map[string]func(*frame, any) any{
	"count": func(_ *frame, v any) any {
		switch v := v.(type) {
		case []any:
			return int64(len(v))
		case map[string]any:
			return int64(len(v))
		case *set:
			return int64(len(v.items))
		case string:
			return int64(utf8.RuneCountInString(v))
		}
		giveUp("a count of neither text nor collection")
		return nil
	},
	"sort": func(_ *frame, v any) any {
		switch v := v.(type) {
		case []any:
			return slices.SortedStableFunc(slices.Values(v), compare)
		case *set:
			return v.items
		}
		giveUp("something else than a collection to sort")
		return nil
	},
	"is_string":             func(_ *frame, v any) any { return kindOf(v) == kindString },
	"is_array":              func(_ *frame, v any) any { return kindOf(v) == kindArray },
	"is_boolean":            func(_ *frame, v any) any { return kindOf(v) == kindBool },
	"is_number":             func(_ *frame, v any) any { return kindOf(v) == kindNumber },
	"is_null":               func(_ *frame, v any) any { return kindOf(v) == kindNull },
	"is_object":             func(_ *frame, v any) any { return kindOf(v) == kindObject },
	"is_set":                func(_ *frame, v any) any { return kindOf(v) == kindSet },
	"time.parse_rfc3339_ns": func(_ *frame, v any) any { return parseTime(text(v)) },
	"time.weekday":          func(_ *frame, v any) any { return moment(v).Weekday().String() },
	"time.clock":            clock,
}

var two = map[string]func(*frame, any, any) any{
	"equal":             func(_ *frame, a, b any) any { return equal(a, b) },
	"neq":               func(_ *frame, a, b any) any { return !equal(a, b) },
	"lt":                func(_ *frame, a, b any) any { return compare(a, b) < 0 },
	"lte":               func(_ *frame, a, b any) any { return compare(a, b) <= 0 },
	"gt":                func(_ *frame, a, b any) any { return compare(a, b) > 0 },
	"gte":               func(_ *frame, a, b any) any { return compare(a, b) >= 0 },
	"startswith":        func(_ *frame, a, b any) any { return strings.HasPrefix(text(a), text(b)) },
	"endswith":          func(_ *frame, a, b any) any { return strings.HasSuffix(text(a), text(b)) },
	"contains":          func(_ *frame, a, b any) any { return strings.Contains(text(a), text(b)) },
	"internal.member_2": func(_ *frame, v, in any) any { return member(v, in) },
	"concat":            func(_ *frame, sep, of any) any { return concat(text(sep), of) },
	"graph.reachable":   func(f *frame, graph, from any) any { return reachable(f, graph, from) },
	"net.cidr_contains": cidrContains,
}

var three = map[string]func(*frame, any, any, any) any{
	"internal.member_3": func(_ *frame, k, v, in any) any {
		if _, ok := in.(*set); ok {
			return member(k, in) && equal(k, v)
		}
		found := lookUp(in, k)
		return found != undefined && equal(found, v)
	},
	"object.get": func(f *frame, of, key, absent any) any {
		if _, ok := of.(map[string]any); !ok {
			giveUp("a member of what is no object")
		}
		path, ok := key.([]any)
		if !ok {
			path = []any{key}
		}
		for _, k := range path {
			if of = lookUp(of, k); of == undefined {
				return absent
			}
		}
		return of
	},
}

func member(v, in any) bool {
	switch in := in.(type) {
	case *set:
		_, ok := in.find(v)
		return ok
	case []any:
		return slices.ContainsFunc(in, func(item any) bool { return equal(item, v) })
	case map[string]any:
		for _, item := range in {
			if equal(item, v) {
				return true
			}
		}
	default:
		kindOf(in)
	}
	return false
}

func concat(sep string, of any) string {
	items, ok := of.([]any)
	if s, isSet := of.(*set); isSet {
		items, ok = s.items, true
	}
	if !ok {
		giveUp("something else than a collection to join")
	}
	switch len(items) {
	case 1:
		return text(items[0])
	case 2:
		return text(items[0]) + sep + text(items[1])
	}
	all := make([]string, len(items))
	for i, item := range items {
		all[i] = text(item)
	}
	return strings.Join(all, sep)
}

// reachable is breadth first, as topdown's is; a node that is no key of the graph is not reached.
func reachable(f *frame, graph, from any) any {
	edges, ok := graph.(map[string]any)
	if !ok {
		giveUp("a graph that is no object")
	}
	var queue []any
	switch from := from.(type) {
	case []any:
		queue = slices.Clone(from)
	case *set:
		queue = slices.Clone(from.items)
	default:
		giveUp("nodes that are no collection")
	}
	var reached []any
	for i := 0; i < len(queue); i++ {
		f.step()
		node, ok := queue[i].(string)
		if !ok {
			kindOf(queue[i])
			continue
		}
		to, ok := edges[node]
		if !ok || slices.Contains(reached, queue[i]) {
			continue
		}
		reached = append(reached, queue[i])
		switch to := to.(type) {
		case []any:
			queue = append(queue, to...)
		case *set:
			queue = append(queue, to.items...)
		default:
			kindOf(to)
		}
	}
	return newSet(reached)
}

// Whole nanoseconds since 1970 reach from 1677 to 2262.
var firstMoment, lastMoment = time.Date(1677, 9, 22, 0, 0, 0, 0, time.UTC), time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC)

func parseTime(s string) any {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Before(firstMoment) || t.After(lastMoment) {
		giveUp("a time that is none")
	}
	return t.UnixNano()
}

// moment is a number of nanoseconds, in UTC.
func moment(v any) time.Time {
	ns, ok := integer(v)
	if !ok {
		n, isNumber := v.(json.Number)
		i, err := n.Int64()
		if ns = i; !isNumber || err != nil {
			giveUp("a time with a zone, or none")
		}
	}
	return time.Unix(0, ns).UTC()
}

func clock(_ *frame, v any) any {
	hour, minute, second := moment(v).Clock()
	return []any{int64(hour), int64(minute), int64(second)}
}

// cidrContains answers for plain networks and addresses; what netip reads in another way than package net is not answered.
func cidrContains(_ *frame, network, address any) any {
	n, err := netip.ParsePrefix(text(network))
	if err != nil || n.Addr().Is4In6() {
		giveUp("a network that is not a plain one")
	}
	a, err := netip.ParseAddr(text(address))
	if err != nil || a.Zone() != "" {
		giveUp("an address that is not a plain one")
	}
	return n.Contains(a.Unmap())
}

// ready compiles calls that can be made ready beforehand; nil for those that cannot.
func ready(s *scope, name string, operands []*ast.Term) (work value, arity int, err error) {
	switch name {
	case "glob.match":
		work, err = globMatch(s, operands)
		return work, 3, err
	case "regex.match":
		work, err = regexMatch(s, operands)
		return work, 2, err
	}
	return nil, 0, nil
}

// regexMatch compiles patterns that are written out.
func regexMatch(s *scope, operands []*ast.Term) (value, error) {
	pattern, ok := operands[0].Value.(ast.String)
	if !ok || len(operands) < 2 {
		return nil, nil
	}
	re, err := regexp.Compile(string(pattern))
	if err != nil {
		return nil, nil //nolint:nilerr // topdown says so when it is asked
	}
	of, err := s.value(operands[1])
	if err != nil {
		return nil, err
	}
	return func(f *frame) any {
		v := of(f)
		if v == undefined {
			return undefined
		}
		return re.MatchString(text(v))
	}, nil
}

// globMatch matches patterns of which each * stands for a whole segment, by one delimiter that is written out; others are OPA's.
func globMatch(s *scope, operands []*ast.Term) (value, error) {
	if len(operands) < 3 {
		return nil, nil
	}
	sep := delimiterOf(operands[1])
	if sep == 0 {
		return nil, nil
	}
	pattern, err := s.value(operands[0])
	if err != nil {
		return nil, err
	}
	of, err := s.value(operands[2])
	if err != nil {
		return nil, err
	}
	other, _, err := bridged("glob.match", nil, func(int) ([]value, error) {
		return []value{pattern, constant([]any{string(sep)}), of}, nil
	})
	if err != nil {
		return nil, err
	}
	return func(f *frame) any {
		p, v := pattern(f), of(f)
		if p == undefined || v == undefined {
			return undefined
		}
		if pt := text(p); isSimple(pt, sep) {
			return matchSegments(pt, text(v), sep)
		}
		return other(f)
	}, nil
}

// delimiterOf reads a list of one delimiter that stands for nothing else in a glob; 0 if it is not one.
func delimiterOf(t *ast.Term) byte {
	list, ok := t.Value.(*ast.Array)
	if !ok || list.Len() != 1 {
		return 0
	}
	text, ok := list.Elem(0).Value.(ast.String)
	if !ok || len(text) != 1 || text[0] == '*' || special[text[0]] {
		return 0
	}
	return text[0]
}

// special are the bytes, beside the star, that stand for something else in globs.
var special = [256]bool{'?': true, '[': true, ']': true, '{': true, '}': true, '\\': true, '!': true, ',': true}

// isSimple reports whether a glob has nothing but stars that stand for whole segments.
func isSimple(pattern string, sep byte) bool {
	for i := range len(pattern) {
		switch c := pattern[i]; {
		case special[c]:
			return false
		case c == '*' && (i > 0 && pattern[i-1] != sep || i+1 < len(pattern) && pattern[i+1] != sep):
			return false
		}
	}
	return true
}

// matchSegments matches such a glob. A star takes what is between two delimiters, be it nothing.
func matchSegments(pattern, s string, sep byte) bool {
	for {
		star := strings.IndexByte(pattern, '*')
		if star < 0 {
			return pattern == s
		}
		if len(s) < star || s[:star] != pattern[:star] {
			return false
		}
		pattern, s = pattern[star+1:], s[star:]
		if end := strings.IndexByte(s, sep); end >= 0 {
			s = s[end:]
		} else {
			s = ""
		}
	}
}
