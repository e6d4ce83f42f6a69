package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheCommandsExitCodeIsPassedOnAndNothingIsLeft(t *testing.T) {
	tmp := t.TempDir()
	if err := os.Chmod(tmp, 0o755); err != nil { // the servers run as another user where we are root
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(tmp), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	code, err := run([]string{"--", "sh", "-c", `test -n "$GATEHOUSE_TEST_POSTGRES" && test -n "$GATEHOUSE_TEST_REDIS" && exit 7`})
	if err != nil || code != 7 {
		t.Errorf("exit code %d, error %v; want 7", code, err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

func TestACommandIsNeeded(t *testing.T) {
	t.Parallel()
	if _, err := run([]string{"--"}); err == nil {
		t.Error("no complaint")
	}
}

func TestACommandThatCannotStartIsAnError(t *testing.T) {
	if _, err := run([]string{"gatehouse-no-such-program"}); err == nil {
		t.Error("no complaint")
	}
}
