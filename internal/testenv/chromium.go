package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// ChromiumVariable may name the browser, where it is not found on the PATH under one of its usual names.
const ChromiumVariable = "GATEHOUSE_TEST_CHROMIUM"

// Chromium answers the path of a Chromium, which internal/testenv/run installs where it is missing and Debian's packages can be had.
func Chromium(t testing.TB) string {
	t.Helper()
	if path := FindChromium(); path != "" {
		return path
	}
	t.Fatalf("no Chromium was found: install Debian's package chromium, or say by %s where one is", ChromiumVariable)
	return ""
}

// FindChromium answers the path of a Chromium, or "".
func FindChromium() string {
	if path := os.Getenv(ChromiumVariable); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
