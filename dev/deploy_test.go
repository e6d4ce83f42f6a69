package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
)

// composeService is what the tests read of a service in compose.yml.
type composeService struct {
	Image       string
	Build       struct{ Context, Dockerfile, Target string }
	Ports       []string
	Volumes     []string
	Networks    []string
	Environment map[string]string
}

func composeServices(t *testing.T) map[string]composeService {
	t.Helper()
	text, err := os.ReadFile("../deploy/compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]composeService
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Services) < 8 {
		t.Fatalf("only %v", slices.Sorted(maps.Keys(file.Services)))
	}
	return file.Services
}

// fill puts a value for ${NAME:?…} as compose does.
func fill(text string, values map[string]string) string {
	return regexp.MustCompile(`\$\{(\w+):\?[^}]*\}`).ReplaceAllStringFunc(text, func(ref string) string {
		return values[ref[2:strings.Index(ref, ":")]]
	})
}

func TestComposeBuildsWhatTheDockerfileHasAndPinsTheRest(t *testing.T) {
	t.Parallel()
	dockerfile, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	pinned := regexp.MustCompile(`^[a-z/]+:v?\d+\.\d+`)
	for name, s := range composeServices(t) {
		switch {
		case s.Image != "":
			if !pinned.MatchString(s.Image) {
				t.Errorf("%s: image %s has no version", name, s.Image)
			}
		case !strings.Contains(string(dockerfile), " AS "+s.Build.Target+"\n"):
			t.Errorf("%s: the Dockerfile has no target %q", name, s.Build.Target)
		}
		for _, v := range s.Volumes {
			if host, _, _ := strings.Cut(v, ":"); strings.HasPrefix(host, ".") {
				if _, err := os.Stat(filepath.Join("../deploy", host)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	for _, program := range regexp.MustCompile(`bin/(gatehouse-\w+) `).FindAllStringSubmatch(string(dockerfile), -1) {
		if _, err := os.Stat("../" + strings.TrimPrefix(program[1], "gatehouse-")); err != nil {
			t.Errorf("the Dockerfile copies %s: %v", program[1], err)
		}
	}
}

// S69: only the proxy is reached from elsewhere.
func TestComposePublishesNothingButTheProxy(t *testing.T) {
	t.Parallel()
	for name, s := range composeServices(t) {
		for _, p := range s.Ports {
			if p != "8000:8000" && !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s", name, p)
			}
		}
		if len(s.Ports) == 0 && slices.Contains(s.Networks, "outside") {
			t.Errorf("%s has a way out", name)
		}
	}
}

// S7: no secret has a default, and what the example leaves open keeps authsvc from starting.
func TestComposeHasNoDefaultSecrets(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../deploy/.env.example")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.SplitSeq(string(example), "\n") {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			values[name] = value
			if value != "" && name != "GATEHOUSE_ISSUER" {
				t.Errorf("%s has a default", name)
			}
		}
	}
	text, err := os.ReadFile("../deploy/compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range regexp.MustCompile(`\$\{(\w+)(:\?)?`).FindAllStringSubmatch(string(text), -1) {
		if _, known := values[ref[1]]; !known || ref[2] == "" {
			t.Errorf("%s: in the example %v, required %v", ref[1], known, ref[2] != "")
		}
	}
	environment := composeServices(t)["authsvc-1"].Environment
	load := func(values map[string]string) error {
		c, err := app.Load(func(name string) string { return fill(environment[name], values) })
		if err == nil {
			err = c.Validate()
		}
		return err
	}
	if err := load(values); err == nil || !strings.Contains(err.Error(), "AUTHSVC_ROOT_KEY") {
		t.Errorf("with the example as it is: %v", err)
	}
	values["GATEHOUSE_ROOT_KEY"] = "5f0c2a9be1d34477a8903b6cfe12d85e9a41c7703be5f2168d04b95ae3c7f61a"
	if err := load(values); err != nil {
		t.Errorf("filled in: %v", err)
	}
}

func TestComposeGivesKongWhatKongYAMLNames(t *testing.T) {
	t.Parallel()
	services := composeServices(t)
	text, err := os.ReadFile(kongFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range regexp.MustCompile(`\{vault://env/([a-z-]+)\}`).FindAllStringSubmatch(string(text), -1) {
		variable := strings.ToUpper(strings.ReplaceAll(ref[1], "-", "_"))
		if services["kong"].Environment[variable] == "" {
			t.Errorf("kong lacks %s", variable)
		}
	}
	targets := regexp.MustCompile(`target: "([\w-]+):\d+"`).FindAllStringSubmatch(string(text), -1)
	if len(targets) == 0 {
		t.Fatal("no targets")
	}
	for _, target := range targets {
		if _, ok := services[target[1]]; !ok {
			t.Errorf("compose has no service %s", target[1])
		}
	}
}

// Kong asks the plugin by these very commands; here they run with the program that was just built.
func TestKongConfStartsThePlugin(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../deploy/kong.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf := map[string]string{}
	for line := range strings.SplitSeq(string(text), "\n") {
		if name, value, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") {
			conf[name] = value
		}
	}
	socket := conf["pluginserver_gatehouse_socket"]
	for _, name := range []string{"pluginserver_gatehouse_start_cmd", "pluginserver_gatehouse_query_cmd"} {
		if !strings.Contains(conf[name]+" ", " -socket "+socket+" ") {
			t.Errorf("%s has another socket than %s", name, socket)
		}
	}
	if conf["plugins"] != "bundled,gatehouse" || conf["pluginserver_names"] != "gatehouse" || !strings.HasPrefix(conf["admin_listen"], "127.0.0.1:") {
		t.Errorf("%v", conf)
	}
	binary := filepath.Join(t.TempDir(), "gatehouse-plugin")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../plugin").CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	query := strings.Replace(conf["pluginserver_gatehouse_query_cmd"], "/usr/local/bin/gatehouse-plugin", binary, 1)
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", query).Output()
	if err != nil || !bytes.Contains(out, []byte(fmt.Sprintf("%q", socket))) {
		t.Errorf("error %v: %.200s", err, out)
	}
	start := strings.Fields(conf["pluginserver_gatehouse_start_cmd"])
	refused, err := exec.CommandContext(t.Context(), binary, append(start[1:], "-h")...).CombinedOutput()
	if bytes.Contains(refused, []byte("not defined")) {
		t.Errorf("error %v: %s", err, refused)
	}
}
