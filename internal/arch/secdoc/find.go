package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// proof is a test that names a requirement.
type proof struct{ File, Test string }

var (
	inComment = regexp.MustCompile(`\bS([0-9]+)\b`)
	inName    = regexp.MustCompile(`S([0-9]+)`)
	regoTest  = regexp.MustCompile(`^(test_\w+)`)
	caseTitle = regexp.MustCompile(`^["']?([^\s#"'][^"':]*)["']?:`)
)

// find answers the proofs of each requirement, sorted.
func find(root fs.FS) (map[int][]proof, error) {
	proofs := map[int][]proof{}
	add := func(pattern *regexp.Regexp, text, file, test string) {
		for _, m := range pattern.FindAllStringSubmatch(text, -1) {
			n, err := strconv.Atoi(m[1])
			if p := (proof{file, test}); err == nil && !slices.Contains(proofs[n], p) {
				proofs[n] = append(proofs[n], p)
			}
		}
	}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (base[0] == '.' || base == "node_modules" || base == "testdata" || base == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		suite := strings.HasSuffix(path.Base(path.Dir(name)), "test")
		switch {
		case strings.HasSuffix(name, "_test.go"), suite && strings.HasSuffix(name, ".go"):
			return goTests(root, name, add)
		case strings.HasSuffix(name, "_test.rego"):
			return lines(root, name, regoTest, add)
		case strings.HasPrefix(name, "policies/cases/"):
			return lines(root, name, caseTitle, add)
		}
		return nil
	})
	for _, p := range proofs {
		slices.SortFunc(p, func(a, b proof) int {
			return strings.Compare(a.File+" "+a.Test, b.File+" "+b.Test)
		})
	}
	return proofs, err
}

type adder func(pattern *regexp.Regexp, text, file, test string)

func goTests(root fs.FS, name string, add adder) error {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		return err
	}
	var functions []*ast.FuncDecl
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			functions = append(functions, fn)
			if strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz") {
				add(inName, fn.Name.Name, name, fn.Name.Name)
			}
		}
	}
	for _, group := range f.Comments {
		if !inComment.MatchString(group.Text()) {
			continue
		}
		i := slices.IndexFunc(functions, func(fn *ast.FuncDecl) bool {
			begin := fn.Pos()
			if fn.Doc != nil {
				begin = fn.Doc.Pos()
			}
			return begin <= group.Pos() && group.End() <= fn.End()
		})
		if i < 0 {
			return fmt.Errorf("%s: a comment names a requirement outside of any function", set.Position(group.Pos()))
		}
		add(inComment, group.Text(), name, functions[i].Name.Name)
	}
	return nil
}

// lines gives what a comment names to the next test or case below it.
func lines(root fs.FS, name string, title *regexp.Regexp, add adder) error {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	waiting := ""
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			waiting += line
		} else if m := title.FindStringSubmatch(line); m != nil {
			add(inComment, waiting, name, m[1])
			waiting = ""
		}
	}
	return nil
}
