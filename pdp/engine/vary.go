package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// maxAge is how long an enforcement point may go on with an answer whose inputs have not changed.
const maxAge = 2 * time.Second

// looksAt is what of a request a policy's decision can depend on. It is read from the rules themselves and may name more than
// one decision looked at, never less; so what it says is the same for every request.
type looksAt struct {
	paths      [][]string // parts of the input
	parts      []part     // the same, understood
	vary       []string   // the same as JSON Pointers into the evaluation request, the clock left out
	time       bool       // the clock
	properties bool       // what is known of the resource
	facts      bool       // what a directory can know of the subject
	directory  bool       // data.directory
	varyFacts  []string   // vary where a directory says what it knows

	unlooked, unlookedFacts []string // the same of objects of a type that is looked up, where one is not

	steady, steadyUnlooked *authzen.Cache // what answers say, where that is the same for all
}

// dependenciesOf reads the rules behind the entry point.
func dependenciesOf(c *ast.Compiler) (looksAt, error) {
	refs, err := baseOf(c, ast.MustParseBody("decision = "+Entrypoint))
	if err != nil {
		return looksAt{}, fmt.Errorf("dependencies: %w", err)
	}
	l := looksAt{directory: slices.ContainsFunc(refs, readsDirectory)}
	for _, ref := range refs {
		if !ref.HasPrefix(ast.InputRootRef) {
			continue
		}
		path := pathOf(ref)
		switch {
		case len(path) == 0: // input as a whole
			all := []string{"/action", "/context", "/resource", "/subject"}
			wholes := [][]string{{"action"}, {"context"}, {"resource"}, {"subject"}}
			return looksAt{ // which knows the time, and so is never steady
				paths: wholes, parts: partsOf(wholes),
				vary: all, time: true, properties: true, facts: true, varyFacts: varyFacts(all), directory: l.directory,
			}, nil
		case path[0] == "context":
			l.time = l.time || len(path) == 1 || path[1] == "time"
		case path[0] == "resource":
			l.properties = l.properties || len(path) == 1 || path[1] == "properties"
		}
		l.facts = l.facts || readsFacts(path)
		l.paths = append(l.paths, path)
		if p := pointerOf(path); p != "" && !slices.Contains(l.vary, p) {
			l.vary = append(l.vary, p)
		}
	}
	slices.Sort(l.vary)
	l.varyFacts = varyFacts(l.vary)
	slices.SortFunc(l.paths, slices.Compare)
	l.paths = slices.CompactFunc(l.paths, slices.Equal)
	l.parts = partsOf(l.paths)
	l.steady = &authzen.Cache{TTL: int(maxAge.Milliseconds()), Vary: l.vary}
	return l, nil
}

// lookingUp is l where some objects are looked up. What a rule sees of their properties is not in the request, so that an answer about
// an object of another type, of which the request says it, must not be taken for theirs; nor one about their collection.
func (l looksAt) lookingUp() looksAt {
	l.vary = with(l.vary, "/resource/type")
	l.unlooked = with(l.vary, "/resource/id")
	l.varyFacts, l.unlookedFacts = varyFacts(l.vary), varyFacts(l.unlooked)
	ttl := int(maxAge.Milliseconds())
	l.steady, l.steadyUnlooked = &authzen.Cache{TTL: ttl, Vary: l.vary}, &authzen.Cache{TTL: ttl, Vary: l.unlooked}
	return l
}

// with answers a list with more, sorted and each once.
func with(list []string, more ...string) []string {
	all := slices.Concat(list, more)
	slices.Sort(all)
	return slices.Compact(all)
}

func partsOf(paths [][]string) []part {
	all := make([]part, len(paths))
	for i, path := range paths {
		all[i] = partOf(path)
	}
	return all
}

// pathOf is the ground part of a reference into input: what comes after a variable can be any of its siblings.
func pathOf(ref ast.Ref) []string {
	var path []string
	for _, term := range ref[1:] {
		s, ok := term.Value.(ast.String)
		if !ok {
			break
		}
		path = append(path, string(s))
	}
	return path
}

// pointerOf is where in the request that part of the input comes from that inputOf puts at path; "" for the clock.
func pointerOf(path []string) string {
	if path[0] == "context" && len(path) > 1 && path[1] == "time" {
		return ""
	}
	own := map[string][]string{"subject": subjectMembers, "resource": resourceMembers}[path[0]]
	if len(path) > 1 && slices.Contains(own, path[1]) {
		path = append([]string{path[0], "properties"}, path[1:]...)
	}
	var b strings.Builder
	for _, segment := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(segment))
	}
	return b.String()
}

// cache says for which other requests an answer of this moment holds; nil if for none. The clock that policies see counts
// whole seconds, so what depends on it holds until the second is over. What a look-up found is the look-up's to remember, and no matter
// here. It is written into own, unless it is the same for all.
func (l *looksAt) cache(own *authzen.Cache, seen *consulted, unlooked bool, now time.Time) *authzen.Cache {
	if len(l.vary) == 0 {
		return nil
	}
	if !l.time && !seen.fed {
		if unlooked {
			return l.steadyUnlooked
		}
		return l.steady
	}
	age := maxAge
	if l.time {
		age = time.Second - time.Duration(now.Nanosecond())
	}
	if age < time.Millisecond {
		return nil
	}
	*own = authzen.Cache{TTL: int(age.Milliseconds()), Vary: l.vary}
	if unlooked {
		own.Vary = l.unlooked
	}
	if !seen.bound(own, l, unlooked) {
		return nil
	}
	return own
}

// looking reports whether a service is asked about this resource before it is decided on, and whether it is of a type that is looked
// up and yet is not.
func (s *snapshot) looking(r *authzen.Resource) (looksUp, unlooked bool) {
	if !s.looksAt.properties || !s.lookups.Declared(r.Type) {
		return false, false
	}
	collection := isCollection(r.ID)
	return !collection, collection
}

// looksUp reports whether a service is asked about this resource before it is decided on.
func (s *snapshot) looksUp(r authzen.Resource) bool {
	looksUp, _ := s.looking(&r)
	return looksUp
}

// isCollection reports whether a resource is named by its path pattern: there is no one object to ask for.
func isCollection(id string) bool { return len(id) > 0 && id[0] == '/' }
