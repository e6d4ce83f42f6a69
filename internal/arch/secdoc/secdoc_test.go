package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

func TestTheDocumentIsCurrent(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "..")
	old, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	proofs, err := find(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	text, err := write(string(old), proofs)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(old) {
		t.Errorf("%s is out of date; run make security", document)
	}
}

func TestProofsAreFoundWhereTestsNameThem(t *testing.T) {
	t.Parallel()
	proofs, err := find(fstest.MapFS{
		"a/a_test.go":                {Data: []byte("package a\n\n// S1, S2: why.\nfunc TestA() {\n\tx() // S3\n}\n\nfunc TestS4() {}\n\n// ETSI and XS9 are none.\nfunc TestB() {}\n")},
		"a/a.go":                     {Data: []byte("package a\n\n// S5\nfunc F() {}\n")},
		"a/storetest/race.go":        {Data: []byte("package storetest\n\n// race is S6.\nfunc race() {}\n")},
		"policies/x/authz_test.rego": {Data: []byte("package x\n\n# S7: why.\ntest_one if true\n\ntest_two if true\n")},
		"policies/cases/a.yaml":      {Data: []byte("# S8\na case:\n  asks: GET /\nanother: {}\n")},
		".git/b_test.go":             {Data: []byte("nothing")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]string{
		1: "`a/a_test.go` TestA", 2: "`a/a_test.go` TestA", 3: "`a/a_test.go` TestA", 4: "`a/a_test.go` TestS4",
		6: "`a/storetest/race.go` race", 7: "`policies/x/authz_test.rego` test\\_one", 8: "`policies/cases/a.yaml` a case",
	}
	for n, text := range want {
		if got := list(proofs[n]); got != text {
			t.Errorf("S%d: %s, want %s", n, got, text)
		}
	}
	if len(proofs) != len(want) {
		t.Errorf("found %v", proofs)
	}
}

func TestACommentThatBelongsToNoTestIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := find(fstest.MapFS{"a_test.go": {Data: []byte("package a\n\n// S1: of nothing.\nvar x = 1\n")}}); err == nil {
		t.Error("taken")
	}
}

// sample is a document with every requirement said to be open, but for what change makes of it.
func sample(change func(n int) string) string {
	var b strings.Builder
	b.WriteString("# Title\n\nOf 0 requirements none.\n")
	for n := 1; n <= requirements; n++ {
		b.WriteString("\n" + change(n))
	}
	return b.String()
}

func openAll(n int) string { return "**S" + strconv.Itoa(n) + "** Statement.\n- Open: not yet.\n" }

func TestProofsAreWrittenAnewAndTheRestIsKept(t *testing.T) {
	t.Parallel()
	old := sample(func(n int) string {
		if n == 2 {
			return "**S2** Statement.\n- Proved by `gone_test.go` TestGone\n"
		}
		return openAll(n)
	})
	text, err := write(old, map[int][]proof{1: {{"a_test.go", "TestA"}, {"a_test.go", "TestB"}}, 2: {{"a_test.go", "TestA"}, {"b_test.go", "TestC"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Of 73 requirements 1 are proved by tests, 1 in part, and 71 are open.",
		"**S1** Statement.\n- Proved by `a_test.go` TestA, TestB\n- Open: not yet.\n",
		"**S2** Statement.\n- Proved by `a_test.go` TestA; `b_test.go` TestC\n\n", "# Title\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%.600s", want, text)
		}
	}
	if strings.Contains(text, "TestGone") {
		t.Error("a test that does not exist is still named")
	}
}

func TestAGapIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		document string
		proofs   map[int][]proof
		want     string
	}{
		"missing": {document: sample(func(n int) string {
			if n == 30 {
				return ""
			}
			return openAll(n)
		}), want: "S31 stands where S30 should"},
		"last missing": {document: strings.Split(sample(openAll), "**S73**")[0], want: "the last here is S72"},
		"neither": {document: sample(func(n int) string {
			return strings.ReplaceAll(openAll(n), "**S7** Statement.\n- Open: not yet.", "**S7** Statement.")
		}), want: "S7 is neither"},
		"no requirement": {document: sample(openAll), proofs: map[int][]proof{74: {{"a_test.go", "TestA"}}}, want: "names S74"},
		"no summary":     {document: strings.Replace(sample(openAll), "Of 0 requirements none.", "", 1), want: "summary"},
	} {
		if _, err := write(c.document, c.proofs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
