package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// OPA builds the program opa of the version that the decision point embeds, and answers its path. Linking it takes some three
// seconds of a processor, compiling it once a minute or two, which `make lint` does too.
func OPA(t testing.TB) string {
	t.Helper()
	const module = "github.com/open-policy-agent/opa"
	version, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		t.Fatalf("which OPA is embedded: %v", err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "install", module+"@"+strings.TrimSpace(string(version))) //nolint:gosec // the version of our own go.mod
	cmd.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return filepath.Join(dir, "opa")
}
