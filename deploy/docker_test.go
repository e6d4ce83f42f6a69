package deploy_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// stage is one FROM of the Dockerfile and what follows it.
type stage struct{ from, body string }

func stages(t *testing.T) map[string]stage {
	t.Helper()
	all := map[string]stage{}
	for _, part := range strings.Split("\n"+read(t, "Dockerfile"), "\nFROM ")[1:] {
		head, body, _ := strings.Cut(part, "\n")
		words := strings.Fields(head)
		if len(words) != 3 || words[1] != "AS" {
			t.Fatalf("Dockerfile: FROM %s", head)
		}
		all[words[2]] = stage{words[0], body}
	}
	return all
}

// base is the image that a stage begins with at last.
func base(all map[string]stage, name string) string {
	for range len(all) {
		if s, ok := all[name]; ok {
			name = s.from
		}
	}
	return name
}

// said reports whether a stage, or one that it begins with, has an instruction.
func said(all map[string]stage, name, instruction string) bool {
	s, ok := all[name]
	return ok && (strings.Contains("\n"+s.body, "\n"+instruction+" ") || said(all, s.from, instruction))
}

func TestImagesArePinnedSmallAndWithoutRights(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^[a-z/]+:v?[0-9]+\.[0-9]+(\.[0-9]+)?(-[a-z0-9]+)?$`)
	all := stages(t)
	for name := range all {
		if from := base(all, name); from != "scratch" && !pinned.MatchString(from) {
			t.Errorf("Dockerfile: %s is from %s", name, from)
		}
	}
	for name, s := range compose(t).Services {
		if s.Build.Target == "" {
			if !pinned.MatchString(s.Image) {
				t.Errorf("%s: image %s", name, s.Image)
			}
			if s.Healthcheck.Test == nil {
				t.Errorf("%s has no health check", name)
			}
			continue
		}
		if _, ok := all[s.Build.Target]; !ok || s.Build.Context != ".." || s.Build.Dockerfile != "deploy/Dockerfile" {
			t.Errorf("%s is built from %+v", name, s.Build)
		}
		if !said(all, s.Build.Target, "HEALTHCHECK") && !s.Healthcheck.Disable {
			t.Errorf("%s has no health check", name)
		}
		if s.Build.Target == "kong" { // keeps Kong's own user
			continue
		}
		if from := base(all, s.Build.Target); from != "scratch" || !said(all, s.Build.Target, "USER") {
			t.Errorf("%s: from %s, and USER is said: %v", name, from, said(all, s.Build.Target, "USER"))
		}
	}
}

// What the Dockerfile builds and copies is there.
func TestTheDockerfileNamesFoldersAndFilesThatExist(t *testing.T) {
	t.Parallel()
	text := read(t, "Dockerfile")
	for _, m := range regexp.MustCompile(`go build -o \S+ \./(\S+)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", m[1], "main.go")); err != nil {
			t.Errorf("builds %s: %v", m[1], err)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^COPY ([a-z]\S*)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("copies %s: %v", m[1], err)
		}
	}
}

func TestTheProbeFailsUnlessAllAreWell(t *testing.T) {
	t.Parallel()
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(well.Close)
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(ill.Close)
	gone := httptest.NewServer(nil)
	gone.Close()
	binary := filepath.Join(t.TempDir(), "probe")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./probe").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	for _, c := range []struct {
		addresses []string
		ok        bool
	}{
		{[]string{well.URL}, true}, {[]string{well.URL, well.URL}, true}, {nil, false}, {[]string{ill.URL}, false},
		{[]string{well.URL, ill.URL}, false}, {[]string{gone.URL}, false},
	} {
		if err := exec.CommandContext(t.Context(), binary, c.addresses...).Run(); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.addresses, err)
		}
	}
}
