package caller_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 30 * time.Second
	oldToken = "0123456789abcdef0123456789abcdef"
	newToken = "fedcba9876543210fedcba9876543210"
)

// running runs a part until the test ends.
func running(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// put writes a file as an editor does: aside, then in its place.
func put(t *testing.T, file, text string) {
	t.Helper()
	aside := file + ".new"
	if err := os.WriteFile(aside, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(aside, file); err != nil {
		t.Fatal(err)
	}
}

func TestATokenHasTheNameOfItsLine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens")
	put(t, file, "# edges\n\n edge-1\t"+oldToken+"\nedge-1 "+newToken+"\r\nkong.eu "+strings.Repeat("x", 40)+"==\n")
	tokens, err := caller.OpenTokens(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for presented, want := range map[string]string{
		oldToken: "edge-1", newToken: "edge-1", strings.Repeat("x", 40) + "==": "kong.eu",
		"": "", "edge-1": "", oldToken[1:]: "", oldToken + "0": "", strings.ToUpper(oldToken): "", oldToken + "\n": "",
	} {
		if name, ok := tokens.Find(presented); name != want || ok != (want != "") {
			t.Errorf("%q is %q, %v; want %q", presented, name, ok, want)
		}
	}
}

// S71: what nobody could have meant is refused, and the error shows no token.
func TestABadFileOfTokensIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty": "", "comments alone": "# " + oldToken + "\n", "no name": oldToken + "\n", "three words": "edge " + oldToken + " x\n",
		"short token": "edge " + oldToken[1:] + "\n", "token with a quote": "edge " + oldToken + "\"\n", "name with a slash": "a/b " + oldToken + "\n",
		"name too long": strings.Repeat("a", 65) + " " + oldToken + "\n", "one token, two names": "a " + oldToken + "\nb " + oldToken + "\n",
		"a line too long": "a " + strings.Repeat("x", 100_000) + "\n", "too large": strings.Repeat("# comment\n", 200_000),
	} {
		file := filepath.Join(t.TempDir(), "tokens")
		put(t, file, text)
		if _, err := caller.OpenTokens(file, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), oldToken[1:]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := caller.OpenTokens(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file that is not there was accepted")
	}
}

// S71: a token that is taken from the file is of no use any more; a file that cannot be read changes nothing and is told once.
func TestTokensRotateWithoutARestart(t *testing.T) {
	t.Parallel()
	file, log := filepath.Join(t.TempDir(), "tokens"), &testenv.Output{}
	put(t, file, "edge "+oldToken+"\n")
	tokens, err := caller.OpenTokens(file, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	tokens.Every(time.Millisecond)
	running(t, tokens.Run)
	find := func(token string) bool { _, ok := tokens.Find(token); return ok }

	put(t, file, "edge "+oldToken+"\nedge "+newToken+"\n")
	await.That(t, "both tokens are known", func() bool { return find(newToken) && find(oldToken) })
	put(t, file, "edge "+newToken+"\n")
	await.That(t, "the old token is unknown", func() bool { return !find(oldToken) && find(newToken) })

	put(t, file, "edge "+newToken+" nonsense\n")
	await.That(t, "nonsense is told", func() bool { return strings.Contains(log.String(), "line 1") })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the loss is told", func() bool { return strings.Contains(log.String(), "no such file") })
	if !find(newToken) {
		t.Error("the token is forgotten")
	}
	if strings.Contains(log.String(), newToken) || strings.Contains(log.String(), oldToken) {
		t.Errorf("logged %s", log)
	}
	put(t, file, "# nobody\n")
	await.That(t, "nobody is known", func() bool { return !find(newToken) })
	if n := strings.Count(log.String(), "no such file"); n != 1 {
		t.Errorf("the loss is told %d times", n)
	}
}

// FuzzTokens holds that whatever the file holds, it is refused or every token found in it is one of its words.
func FuzzTokens(f *testing.F) {
	f.Add([]byte("edge " + oldToken + "\n# x\n\nedge " + newToken))
	f.Add([]byte("edge\x00 " + oldToken))
	f.Fuzz(func(t *testing.T, text []byte) {
		names, err := caller.Names(text)
		if err != nil {
			return
		}
		for _, n := range names {
			if !bytes.Contains(text, []byte(n)) || n == "" || len(n) > 64 {
				t.Fatalf("name %q", n)
			}
		}
	})
}
