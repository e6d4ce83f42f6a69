// Package deploy_test holds what stands in deploy/ against the rest of the repository. It starts no container: what a real
// Kong makes of it, only a real Kong can say.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kong/go-database-reconciler/pkg/file"
	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
)

// composition is what the tests look at in compose.yml.
type composition struct {
	Services map[string]service
	Networks map[string]struct{ Internal bool }
	Volumes  map[string]any
	Secrets  map[string]struct{ File string }
}

type service struct {
	Image       string
	Build       struct{ Context, Dockerfile, Target string }
	Command     any
	Environment map[string]string
	Ports       []string
	Networks    networks
	Volumes     []string
	Secrets     []string
	Privileged  bool
	Healthcheck struct {
		Test    any
		Disable bool
	}
	DependsOn map[string]struct{ Condition string } `yaml:"depends_on"`
}

// networks is a list, or a map with aliases.
type networks map[string]struct{ Aliases []string }

func (n *networks) UnmarshalYAML(node *yaml.Node) error {
	*n = networks{}
	if node.Kind == yaml.SequenceNode {
		var names []string
		err := node.Decode(&names)
		for _, name := range names {
			(*n)[name] = struct{ Aliases []string }{}
		}
		return err
	}
	return node.Decode((*map[string]struct{ Aliases []string })(n))
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func compose(t *testing.T) composition {
	t.Helper()
	var c composition
	if err := yaml.Unmarshal([]byte(read(t, "compose.yml")), &c); err != nil {
		t.Fatalf("compose.yml: %v", err)
	}
	if len(c.Services) == 0 {
		t.Fatal("compose.yml: no services")
	}
	return c
}

// settings reads kong.conf.
func settings(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(read(t, "kong.conf")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if _, twice := all[name]; !ok || twice {
			t.Fatalf("kong.conf: %q has no value or comes twice", line)
		}
		all[name] = strings.TrimSpace(value)
	}
	return all
}

func TestKongFindsAVariableForEachVaultReference(t *testing.T) {
	t.Parallel()
	environment := compose(t).Services["kong"].Environment
	references := regexp.MustCompile(`\{vault://env/([a-z0-9-]+)\}`).FindAllStringSubmatch(read(t, "../kong.yml"), -1)
	if len(references) == 0 {
		t.Fatal("kong.yml refers to no vault")
	}
	for _, r := range references {
		if name := strings.ToUpper(strings.ReplaceAll(r[1], "-", "_")); environment[name] == "" {
			t.Errorf("kong.yml wants %s; compose.yml gives Kong no %s", r[0], name)
		}
	}
	if got := settings(t)["vaults"]; got != "env" && got != "bundled" {
		t.Errorf("kong.conf: vaults = %s does not load the vault env", got)
	}
}

func TestEachTargetOfTheKongFileIsAService(t *testing.T) {
	t.Parallel()
	content, err := file.GetContentFromFiles([]string{"../kong.yml"}, false)
	if err != nil {
		t.Fatal(err)
	}
	c := compose(t)
	kong := c.Services["kong"]
	for _, u := range content.Upstreams {
		for _, target := range u.Targets {
			host, _, _ := strings.Cut(*target.Target.Target, ":")
			s, ok := c.Services[host]
			if !ok || !c.reach(kong, s) {
				t.Errorf("upstream %s: compose.yml has no service %s that Kong shares a network with", *u.Name, host)
			}
			if kong.DependsOn[host].Condition != "service_healthy" {
				t.Errorf("Kong does not wait for %s to be healthy", host)
			}
		}
	}
}

func (c composition) reach(a, b service) bool {
	for name := range a.Networks {
		if _, ok := b.Networks[name]; ok {
			return true
		}
	}
	return false
}

// Each URL that a program is given names a service, or an alias of one, that it shares a network with.
func TestEachAddressInTheEnvironmentIsAService(t *testing.T) {
	t.Parallel()
	c := compose(t)
	address := regexp.MustCompile(`[a-z]+://(?:[^@/]*@)?([a-z][a-z0-9-]*):[0-9]+`)
	variables := regexp.MustCompile(`\$\{[^}]*\}`)
	seen := 0
	for name, s := range c.Services {
		for variable, value := range s.Environment {
			if name == "migrate" && variable != "AUTHSVC_DATABASE_URL" { // it has authsvc's settings and needs the database alone
				continue
			}
			for _, m := range address.FindAllStringSubmatch(variables.ReplaceAllString(value, "x"), -1) {
				seen++
				if !slices.ContainsFunc(slices.Collect(maps.Keys(c.Services)), func(other string) bool {
					return (other == m[1] || c.Services[other].alias(m[1])) && c.reach(s, c.Services[other])
				}) {
					t.Errorf("%s: %s names %s, which it cannot reach", name, variable, m[1])
				}
			}
		}
	}
	if seen < 12 {
		t.Errorf("only %d addresses were found", seen)
	}
}

func (s service) alias(name string) bool {
	for _, n := range s.Networks {
		if slices.Contains(n.Aliases, name) {
			return true
		}
	}
	return false
}

// S69: nobody but this machine reaches anything; the proxy's address alone is a choice, and Kong's Admin API is not published at all.
func TestOnlyTheProxyCanBePublishedBeyondThisMachine(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, s := range c.Services {
		for _, p := range s.Ports {
			proxy := name == "kong" && (p == "${GATEHOUSE_BIND:-127.0.0.1}:8000:8000" || p == "${GATEHOUSE_BIND:-127.0.0.1}:8443:8443")
			if !proxy && !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s", name, p)
			}
		}
		if s.Privileged || len(s.Networks) == 0 {
			t.Errorf("%s is privileged or in the default network", name)
		}
		for network := range s.Networks {
			if n, ok := c.Networks[network]; !ok || (!n.Internal && len(s.Ports) == 0) {
				t.Errorf("%s is in %s, which is not private", name, network)
			}
		}
	}
	conf := settings(t)
	for _, listen := range []string{"admin_listen", "status_listen"} {
		for one := range strings.SplitSeq(conf[listen], ",") {
			if !strings.HasPrefix(strings.TrimSpace(one), "127.0.0.1:") {
				t.Errorf("kong.conf: %s = %s", listen, conf[listen])
			}
		}
	}
	if conf["admin_gui_listen"] != "off" {
		t.Errorf("kong.conf: admin_gui_listen = %s", conf["admin_gui_listen"])
	}
}

// S7: no secret has a value that others know. Compose refuses to start while one is missing.
func TestNoSecretHasADefault(t *testing.T) {
	t.Parallel()
	secret := regexp.MustCompile(`(?i)password|secret|key|token|auth$`)
	asked := map[string]bool{}
	for name, s := range compose(t).Services {
		for variable, value := range s.Environment {
			for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)([^}]*)\}`).FindAllStringSubmatch(value, -1) {
				if secret.MatchString(m[1]) {
					asked[m[1]] = true
					if !strings.HasPrefix(m[2], ":?") {
						t.Errorf("%s: %s falls back to a default", name, variable)
					}
				}
			}
			if secret.MatchString(variable) && !strings.HasPrefix(value, "${") && !strings.HasPrefix(value, "http") && !(strings.HasSuffix(variable, "_FILE") && strings.HasPrefix(value, "/run/secrets/")) {
				t.Errorf("%s: %s stands in compose.yml", name, variable)
			}
			if strings.Contains(value, "@") && !strings.Contains(value, ":?") && strings.Contains(value, "://") {
				t.Errorf("%s: %s has its credentials in compose.yml", name, variable)
			}
		}
	}
	example := read(t, ".env.example")
	for name := range asked {
		if !strings.Contains(example, "\n"+name+"=\n") {
			t.Errorf(".env.example does not ask for %s, or has a value for it", name)
		}
	}
	if len(asked) < 4 {
		t.Errorf("only %d secrets were found", len(asked))
	}
	for value, ok := range map[string]bool{"": false, strings.Repeat("0", 64): false, "5f0c2a9be1d34477a8903b6cfe12d85e9a41c7703be5f2168d04b95ae3c7f61a": true} {
		environment := compose(t).Services["authsvc-1"].Environment
		config, err := app.Load(func(name string) string {
			return strings.ReplaceAll(environment[name], "${GATEHOUSE_ROOT_KEY:?run sh deploy/secrets.sh}", value)
		})
		if err == nil {
			err = config.Validate()
		}
		if refused := err != nil && strings.Contains(err.Error(), "AUTHSVC_ROOT_KEY"); refused == ok {
			t.Errorf("authsvc with the root key %q: %v", value, err)
		}
	}
}

// S7: each machine has secrets of its own, and making them twice does not lose the first.
func TestSecretsAreRandomAndKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"secrets.sh", ".env.example"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "secrets.sh")).CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v: %s", err, out)
	}
	made := read(t, filepath.Join(dir, ".env"))
	values := regexp.MustCompile(`(?m)^[A-Z_]+=([0-9a-f]{64})$`).FindAllStringSubmatch(made, -1)
	different := map[string]bool{}
	for _, v := range values {
		different[v[1]] = true
	}
	if len(values) < 4 || len(different) != len(values) || regexp.MustCompile(`(?m)^[A-Z_]+=$`).MatchString(made) {
		t.Errorf("%d secrets, %d different:\n%s", len(values), len(different), made)
	}
	info, err := os.Stat(filepath.Join(dir, ".env"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "secrets.sh")).Run(); err == nil || read(t, filepath.Join(dir, ".env")) != made {
		t.Errorf("a second run: %v", err)
	}
}

// The plugins are asked exactly as Kong asks them, by the commands of kong.conf, and must name the socket that Kong connects to. One
// process serves both.
func TestTheQueryCommandsAnswerForTheSocketOfTheStartCommand(t *testing.T) {
	t.Parallel()
	conf := settings(t)
	names := strings.Split(conf["pluginserver_names"], ",")
	if !slices.Equal(names, []string{"gatehouse", "gatehouse-outcome"}) || conf["plugins"] != "bundled,"+conf["pluginserver_names"] {
		t.Fatalf("plugins = %s, pluginserver_names = %s", conf["plugins"], conf["pluginserver_names"])
	}
	socket, start := conf["pluginserver_gatehouse_socket"], strings.Fields(conf["pluginserver_gatehouse_start_cmd"])
	if len(start) == 0 || conf["pluginserver_gatehouse_outcome_start_cmd"] != "" {
		t.Fatalf("started by %q and %q", start, conf["pluginserver_gatehouse_outcome_start_cmd"])
	}
	binary := filepath.Join(t.TempDir(), "gatehouse-plugin")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../plugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	for _, name := range names {
		prefix := "pluginserver_" + strings.ReplaceAll(name, "-", "_") + "_" // as Kong does
		query := strings.Fields(conf[prefix+"query_cmd"])
		if len(query) == 0 || start[0] != query[0] || conf[prefix+"socket"] != socket {
			t.Fatalf("%s: %q at %s", name, query, conf[prefix+"socket"])
		}
		for _, command := range [][]string{start, query} {
			if i := slices.Index(command, "-socket"); i < 0 || i+1 >= len(command) || command[i+1] != socket {
				t.Errorf("%q does not name the socket %s", command, socket)
			}
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", strings.Replace(conf[prefix+"query_cmd"], query[0], binary, 1))
		cmd.Env = []string{} // as little as Kong gives
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v: %s", cmd, err, stderr.String())
		}
		var dump struct {
			Protocol, SocketPath string
			Plugins              []struct{ Name string }
		}
		if err := json.Unmarshal(stdout.Bytes(), &dump); err != nil {
			t.Fatal(err)
		}
		if dump.Protocol != "ProtoBuf:1" || dump.SocketPath != socket || len(dump.Plugins) != 1 || dump.Plugins[0].Name != name {
			t.Errorf("%s: answered %+v", name, dump)
		}
	}
	// The flags of the start command are the plugin's: with -dump it ends before it serves.
	check := exec.CommandContext(t.Context(), binary, append(slices.Clone(start[1:]), "-dump")...)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%q: %v: %s", start, err, out)
	}
}

// S15, S54: no client names its own address, and no header passes beside one of ours by an underscore.
func TestKongBelievesNoClient(t *testing.T) {
	t.Parallel()
	conf := settings(t)
	for name, want := range map[string]string{
		"nginx_proxy_underscores_in_headers": "off", "trusted_ips": "", "database": "off", "request_debug": "off", "untrusted_lua": "off",
	} {
		if conf[name] != want {
			t.Errorf("kong.conf: %s = %q, want %q", name, conf[name], want)
		}
	}
	if _, ok := conf["nginx_http_underscores_in_headers"]; ok {
		t.Error("kong.conf: nginx would see underscores_in_headers twice in its http block, and not start")
	}
	if conf["declarative_config"] == "" || !slices.ContainsFunc(compose(t).Services["kong"].Volumes, func(v string) bool {
		return strings.HasPrefix(v, "../kong.yml:"+conf["declarative_config"])
	}) {
		t.Errorf("compose.yml does not mount kong.yml at %s", conf["declarative_config"])
	}
}
