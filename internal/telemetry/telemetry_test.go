package telemetry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// S67: a secret reaches no log, whichever way it is printed.
func TestASecretNeverPrintsItself(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a"
	s := telemetry.Secret(canary)
	var out bytes.Buffer
	log := telemetry.Logger(&out, slog.LevelInfo)
	log.Info("configured", "secret", s, "inside", struct{ S telemetry.Secret }{s})
	fmt.Fprintf(&out, "%v %s %#v %+v", s, s, s, struct{ S telemetry.Secret }{s})
	b, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if strings.Contains(out.String(), canary) {
		t.Errorf("the secret was printed: %s", out.String())
	}
	if s.Reveal() != canary {
		t.Error("Reveal does not answer the value")
	}
}

// S68: control characters in a value cannot begin a new line.
func TestAValueCannotForgeALogLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	telemetry.Logger(&out, slog.LevelInfo).Info("denied", "path", "/a\r\n{\"msg\":\"allowed\"}")
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("one record made %d lines: %q", n, out.String())
	}
}
