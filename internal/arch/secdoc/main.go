// Command secdoc writes the proofs into docs/security.md: under each requirement, the tests that name its number.
//
// A test names a number (S30) in its name, in the comment above it or in a comment inside it. So do the functions of a
// contract suite (a package whose name ends in "test"), the Rego tests and the cases of the policies. Everything else in the document is written
// by hand: what the requirement says, and what is still open.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// document is where the requirements stand, from the root of the repository.
const document = "docs/security.md"

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "secdoc:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	path := filepath.Join(root, document)
	old, err := os.ReadFile(path) //nolint:gosec // one file of this repository
	if err != nil {
		return err
	}
	proofs, err := find(os.DirFS(root))
	if err != nil {
		return err
	}
	text, err := write(string(old), proofs)
	if err != nil || text == string(old) {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // a document
}
