package arch_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gatehouse-auth/gatehouse/"

// pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string // direct
	Deps       []string // all
}

// list asks go for the packages of this module.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...")
	cmd.Dir = filepath.Join("..", "..")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	all := map[string]pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all[p.ImportPath] = p
	}
	return all
}

// rule says what the packages at or below `of` must not import. Paths that begin with / are this module's.
type rule struct {
	why    string
	of     []string
	except []string // packages, or folders, that the rule leaves alone
	not    []string // at or below these
	deep   bool     // not through another package either
}

func rules() []rule {
	const opa, pgx, sqlite, pdk, jwx = "github.com/open-policy-agent/opa", "github.com/jackc/pgx", "modernc.org/sqlite", "github.com/Kong/go-pdk", "github.com/lestrrat-go/jwx"
	programs := []string{"/plugin", "/pdp", "/authsvc", "/dev", "/e2e"}
	domain := []string{"/authsvc/account", "/authsvc/session", "/authsvc/token", "/authsvc/login", "/authsvc/profile", "/authsvc/role", "/authsvc/directory"}
	return []rule{
		{"internal packages are leaves that programs share", []string{"/internal"}, nil, programs, true},
		{"only internal/jose imports jwx", []string{"/"}, []string{"/internal/jose"}, []string{jwx}, false},
		{"the edge is small: no policy engine, no database, no auth service", []string{"/plugin"}, nil, []string{opa, pgx, sqlite, "/authsvc", "/pdp/engine", "/pdp/server", "/dev"}, true},
		{
			"one request's way knows neither Kong nor SQL", []string{"/plugin/guard", "/plugin/limit", "/plugin/challenge", "/plugin/decide", "/plugin/revocation", "/plugin/introspect", "/plugin/remember", "/plugin/replay"}, nil,
			[]string{pdk, opa, "database/sql", "/plugin/kong", "/plugin/app"}, true,
		},
		{"one request's way knows no OpenTelemetry", []string{"/plugin/guard", "/plugin/kong", "/plugin/forwardauth"}, nil, []string{"go.opentelemetry.io"}, true},
		{"neither does what decides", []string{"/pdp/engine", "/pdp/server"}, nil, []string{"go.opentelemetry.io"}, false},
		{"only plugin/kong and its opposite, the development gateway, know Kong's protocol", []string{"/"}, []string{"/plugin/kong", "/dev/gateway"}, []string{pdk}, false},
		{"the HTTP side of the decision point does not know OPA", []string{"/pdp/server"}, nil, []string{opa, "/pdp/engine"}, false},
		{"the decision log does not know OPA, but where masks are policies", []string{"/pdp/decisionlog"}, []string{"/pdp/decisionlog/regomask"}, []string{opa, "/pdp/engine"}, false},
		{"the directory does not know OPA", []string{"/pdp/directory"}, nil, []string{opa, "/pdp/engine"}, true},
		{"gateway and plugin share nothing but the socket", []string{"/dev/gateway"}, nil, []string{"/plugin"}, true},
		{"domain packages declare the store that they need", domain, nil, []string{"/authsvc/store", "database/sql", pgx, sqlite}, false},
		{"profiles know neither address nor password", []string{"/authsvc/profile"}, nil, []string{"/authsvc/account", "/authsvc/session", "/authsvc/token", "/authsvc/login"}, true},
		{"roles know neither accounts nor tokens", []string{"/authsvc/role", "/authsvc/directory"}, nil, []string{"/authsvc/account", "/authsvc/session", "/authsvc/token", "/authsvc/login", "/authsvc/profile"}, true},
		{"accounts stand alone", []string{"/authsvc/account"}, nil, []string{"/authsvc/session", "/authsvc/token", "/authsvc/login", "/authsvc/profile"}, true},
		{"sessions stand alone", []string{"/authsvc/session"}, nil, []string{"/authsvc/account", "/authsvc/token", "/authsvc/login", "/authsvc/profile"}, true},
		{"tokens stand alone", []string{"/authsvc/token"}, nil, []string{"/authsvc/account", "/authsvc/session", "/authsvc/login", "/authsvc/profile"}, true},
	}
}

func TestWhoMayImportWhom(t *testing.T) {
	t.Parallel()
	all := list(t)
	for _, r := range rules() {
		t.Run(r.why, func(t *testing.T) {
			t.Parallel()
			for _, found := range r.broken(all) {
				t.Error(found)
			}
		})
	}
}

func (r rule) broken(all map[string]pkg) (found []string) {
	for path, p := range all {
		if p.Standard || !strings.HasPrefix(path, module) || !anyUnder(r.of, path) || anyUnder(r.except, path) {
			continue
		}
		imports := p.Imports
		if r.deep {
			imports = p.Deps
		}
		for _, i := range imports {
			if anyUnder(r.not, i) {
				found = append(found, strings.TrimPrefix(path, module)+" imports "+strings.TrimPrefix(i, module))
			}
		}
	}
	slices.Sort(found)
	return found
}

func anyUnder(folders []string, path string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		if own, ok := strings.CutPrefix(f, "/"); ok {
			f = module + own
		}
		if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(f, "/")); ok {
			return rest == "" || rest[0] == '/'
		}
		return false
	})
}

func TestABrokenRuleIsSeen(t *testing.T) {
	t.Parallel()
	all := map[string]pkg{module + "internal/x": {ImportPath: module + "internal/x", Imports: []string{"fmt"}, Deps: []string{"fmt", module + "plugin/guard"}}}
	r := rule{of: []string{"/internal"}, not: []string{"/plugin"}, deep: true}
	if got := r.broken(all); len(got) != 1 || got[0] != "internal/x imports plugin/guard" {
		t.Errorf("found %q", got)
	}
	if r.deep = false; len(r.broken(all)) != 0 {
		t.Error("an indirect import breaks a rule on direct ones")
	}
}

func TestContractsNeedTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	all := list(t)
	for _, name := range []string{"pdp/authzen", "pdp/directory/feed", "internal/onejson"} {
		contract, ok := all[module+name]
		if !ok {
			t.Fatalf("%s is not there", name)
		}
		for _, i := range contract.Deps {
			if !all[i].Standard && i != module+"internal/onejson" { // which needs the standard library only as well
				t.Errorf("%s reaches %s", name, i)
			}
		}
	}
}

func TestProductionNeverLinksTestsAndDevelopment(t *testing.T) {
	t.Parallel()
	all := list(t)
	for _, program := range []string{"plugin", "pdp", "authsvc"} {
		for _, i := range all[module+program].Deps {
			if anyUnder([]string{"/dev", "/e2e", "/internal/testenv", "github.com/alicebob/miniredis", "github.com/nats-io/nats-server"}, i) {
				t.Errorf("%s links %s", program, i)
			}
		}
	}
}

// maxEdge is the size, in bytes, that the stripped edge binary stays under.
const maxEdge = 20_000_000

func TestTheEdgeBinaryIsSmall(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "gatehouse-plugin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "./plugin")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./plugin: %v: %s", err, text)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() >= maxEdge {
		t.Errorf("gatehouse-plugin is %d bytes; it stays under %d", info.Size(), maxEdge)
	}
}
