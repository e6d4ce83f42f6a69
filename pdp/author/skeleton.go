package author

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// words that grants use for methods.
var (
	wordsOnCollections = map[string]string{"GET": "list", "POST": "create", "DELETE": "clear", "PUT": "replace", "PATCH": "change"}
	wordsOnObjects     = map[string]string{"GET": "read", "POST": "act", "PUT": "replace", "PATCH": "change", "DELETE": "delete"}
)

// Skeleton writes a policy for routes into the new folder dir: the rules, their tests and the conditions of shipped, a table in which
// only admin may do anything, and a matrix that says so. It answers the files that it wrote.
func Skeleton(routes Routes, shipped fs.FS, dir string) (written []string, err error) {
	if len(routes.Operations) == 0 {
		return nil, fmt.Errorf("there is no operation that a policy could be asked about")
	}
	if there, err := os.ReadDir(dir); err == nil && len(there) > 0 {
		return nil, fmt.Errorf("%s is there already", dir)
	}
	files := map[string][]byte{
		"gatehouse/roles.yaml":      []byte(rolesOf(routes)),
		"cases/routes.matrix.yaml":  []byte(matrixOf(routes)),
		"gatehouse/conditions.yaml": nil,
		"gatehouse/authz.rego":      nil,
		"gatehouse/authz_test.rego": nil,
	}
	for _, name := range sorted(files) {
		text := files[name]
		if text == nil {
			if text, err = fs.ReadFile(shipped, name); err != nil {
				return written, err
			}
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
			return written, err
		}
		if err := os.WriteFile(to, text, 0o640); err != nil { //nolint:gosec // policies are no secret, least of all from their group
			return written, err
		}
		written = append(written, path.Join(dir, name))
	}
	return written, nil
}

func (o Operation) word() string {
	words := wordsOnCollections
	if o.object() {
		words = wordsOnObjects
	}
	if w := words[o.Method]; w != "" {
		return w
	}
	return strings.ToLower(o.Method)
}

func rolesOf(routes Routes) string {
	var b strings.Builder
	b.WriteString(`# Who may do what. Loaded as data.gatehouse; read by authz.rego.

# Each role, and the roles whose grants it has as well. A role that is not here grants nothing.
inherits:
  user: []
  admin: [user]

# HTTP methods as the words that grants use: on a collection (/orders) and on one object of it (/orders/17).
actions:
`)
	for _, shape := range []string{"collection", "object"} {
		var methods []string
		for _, o := range routes.Operations {
			if one := o.Method + ": " + o.word(); (shape == "object") == o.object() && !slices.Contains(methods, one) {
				methods = append(methods, one)
			}
		}
		slices.Sort(methods)
		fmt.Fprintf(&b, "  %s: {%s}\n", shape, strings.Join(methods, ", "))
	}
	b.WriteString(`
# grants[resource type][action][role]: the conditions that must all hold, by their names in authz.rego; [] is without condition.
# Several roles are several ways: one that holds is enough. What is not written here is denied.
grants:
`)
	for _, kind := range kinds(routes) {
		fmt.Fprintf(&b, "  %s:\n", kind)
		var done []string
		for _, o := range routes.Operations {
			if o.Type != kind || slices.Contains(done, o.word()) {
				continue
			}
			done = append(done, o.word())
			fmt.Fprintf(&b, "    %s: # %s %s\n      admin: []\n", o.word(), o.Method, o.Pattern)
			if o.object() {
				b.WriteString("      # user: [owner]\n")
			} else {
				b.WriteString("      # user: []\n")
			}
		}
	}
	return b.String()
}

func kinds(routes Routes) (all []string) {
	for _, o := range routes.Operations {
		if !slices.Contains(all, o.Type) {
			all = append(all, o.Type)
		}
	}
	slices.Sort(all)
	return all
}

func matrixOf(routes Routes) string {
	var b strings.Builder
	b.WriteString("# Every operation, by every role. Change a cell first, and then roles.yaml until `gatehouse-pdp test` passes.\n")
	for _, kind := range kinds(routes) {
		for _, object := range []bool{false, true} {
			var asks []string
			for _, o := range routes.Operations {
				ask := o.Method + " " + example(o.Pattern)
				if o.Type == kind && o.object() == object && !slices.Contains(asks, ask) {
					asks = append(asks, ask)
				}
			}
			if len(asks) == 0 {
				continue
			}
			what, columns, head := kind+" as a collection", "    at any time: {}\n", "  collection: true\n"
			cell := func(decision string) string { return "[" + decision + "]" }
			if object {
				what, head, columns = kind+" by whose it is", "", "    own: {known: {owner: \"{who.id}\"}}\n    another's: {known: {owner: bob}}\n"
				cell = func(decision string) string { return "[" + decision + ", " + decision + "]" }
			}
			fmt.Fprintf(&b, "\n%s:\n  type: %s\n%s  who:\n    user: {id: alice, roles: [user]}\n    admin: {id: root, roles: [admin]}\n"+
				"    anonymous: {id: \"\", type: anonymous, roles: [admin]}\n  when:\n%s  decisions:\n", what, kind, head, columns)
			for _, ask := range asks {
				fmt.Fprintf(&b, "    %s:\n      user:      %s\n      admin:     %s\n      anonymous: %s\n",
					ask, cell("deny role_missing"), cell("allow granted_to_admin"), cell("deny role_missing"))
			}
		}
	}
	return b.String()
}

// example is a path that a pattern stands for.
func example(pattern string) string {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if name, ok := strings.CutPrefix(s, "{"); ok {
			segments[i] = "{" + strings.TrimSuffix(name, "}") + "=17}"
		}
	}
	return strings.Join(segments, "/")
}
