// Package arch_test keeps the rules on who may import whom, and the size of the edge.
package arch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/gatehouse-auth/gatehouse/"

// list answers "package dependency" pairs by go list.
func list(t *testing.T, format, pattern string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", format, pattern)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Fields(string(out))
}

const (
	direct = `{{$p := .ImportPath}}{{range .Imports}}{{$p}}>{{.}} {{end}}`
	all    = `{{$p := .ImportPath}}{{range .Deps}}{{$p}}>{{.}} {{end}}`
)

func forbid(t *testing.T, format, pattern string, forbidden func(from, to string) bool) {
	t.Helper()
	pairs := list(t, format, pattern)
	if len(pairs) == 0 {
		t.Fatalf("%s imports nothing: the rule looks at the wrong place", pattern)
	}
	for _, pair := range pairs {
		from, to, _ := strings.Cut(pair, ">")
		if forbidden(strings.TrimPrefix(from, module), to) {
			t.Errorf("%s must not import %s", from, to)
		}
	}
}

func isAny(path string, prefixes ...string) bool {
	for _, p := range prefixes {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

func TestLeavesImportNoProgram(t *testing.T) {
	t.Parallel()
	forbid(t, direct, "./internal/...", func(_, to string) bool {
		return isAny(to, module+"plugin", module+"pdp", module+"authsvc", module+"dev", module+"policies", module+"migrations")
	})
}

func TestOnlyJoseImportsJWX(t *testing.T) {
	t.Parallel()
	forbid(t, direct, "./...", func(from, to string) bool {
		return strings.HasPrefix(to, "github.com/lestrrat-go/jwx") && from != "internal/jose"
	})
}

func TestTheEdgeReachesNeitherOPANorSQLNorAuthsvc(t *testing.T) {
	t.Parallel()
	forbid(t, all, "./plugin/...", func(_, to string) bool {
		return isAny(to, "github.com/open-policy-agent", "github.com/jackc/pgx", "modernc.org", module+"authsvc", module+"dev",
			"github.com/Kong/go-pdk/server") && to != "github.com/Kong/go-pdk/server/kong_plugin_protocol" || to == "database/sql"
	})
}

func TestOnlyPluginKongKnowsKong(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"guard", "limit", "challenge", "decide", "revocation"} {
		forbid(t, all, "./plugin/"+part, func(_, to string) bool { return isAny(to, "github.com/Kong") })
	}
}

func TestTheContractNeedsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	forbid(t, direct, "./pdp/authzen", func(_, to string) bool { return strings.Contains(to, ".") })
}

func TestTheStandInForKongSharesNothingWithThePlugin(t *testing.T) {
	t.Parallel()
	forbid(t, all, "./dev/gateway", func(_, to string) bool { return isAny(to, module+"plugin") })
}

func TestTheEdgeBinaryStaysSmall(t *testing.T) {
	t.Parallel()
	const most = 20 << 20 // bytes
	out := filepath.Join(t.TempDir(), "gatehouse-plugin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./plugin")
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		t.Fatalf("go build: %v", err)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > most {
		t.Errorf("%d bytes, at most %d", info.Size(), most)
	}
}
