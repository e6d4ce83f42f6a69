package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// What is asked for is answered on stdout and is no failure; what is wrong is told with 2, as by the tools for authors, and 1 is left
// for what was found wanting.
func TestHelpAndExitCodes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}, {"version"}, {"--version"}, {"bundle", "--help"}} {
		var out strings.Builder
		if err := other(t.Context(), args, &out, io.Discard); err != nil || out.Len() == 0 {
			t.Errorf("%q: %v, %q", args, err, out.String())
		}
	}
	private, public := keys(t)
	whole := filepath.Join(t.TempDir(), "b.tar.gz")
	if text, err := tool(t, "build", "../policies", "-o", whole); err != nil { // flags may stand behind the folder
		t.Fatalf("%s: %v", text, err)
	}
	failing := t.TempDir()
	save(t, filepath.Join(failing, "authz.rego"), "package gatehouse.authz\n\ndefault decision := {\"allow\": true}\n")
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{2, "there is no command", nil},
		{2, `"tset" is no command`, []string{"tset"}},
		{2, "bundle needs a command", []string{"bundle"}},
		{2, `"pack" is no command of bundle`, []string{"bundle", "pack"}},
		{2, "nowhere", []string{"bundle", "build", "nowhere"}},
		{2, "bundle build takes one folder", []string{"bundle", "build"}},
		{2, "verified by -key FILE and -key-id ID", []string{"bundle", "verify", whole}},
		{2, "verified by -key FILE and -key-id ID", []string{"bundle", "verify", whole, "-key", public}},
		{2, "signed with -key FILE and -key-id ID", []string{"bundle", "sign", whole, "-key", private}},
		{2, "signed with -key FILE and -key-id ID", []string{"bundle", "build", "../policies", "-o", whole, "-key-id", "a"}},
		{1, "refused", []string{"bundle", "verify", whole, "-key", public, "-key-id", "a"}},
		{1, "probe", []string{"bundle", "build", failing, "-o", whole}},
		{1, "nowhere: no such file or directory", []string{"serve", "-policies", "nowhere"}},
	} {
		err := run(t.Context(), c.args, func(string) string { return "" }, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.says) || exitCode(c.args, err) != c.code {
			t.Errorf("%q: %v, exit code %d", c.args, err, exitCode(c.args, err))
		}
	}
}
