package web_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/web"
)

func TestATokenIsReadFromAFileAndNeverTold(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "token")
	for text, want := range map[string]string{
		"abc.DEF-123\n": "abc.DEF-123", "  x  ": "x", "": "", "\n": "", "secret two": "", "secret\x00": "", "gehe\u00efm": "", strings.Repeat("s", 16<<10+1): "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := web.ReadToken(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: %q, %v", text, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sss")) {
			t.Errorf("%.20q: the error tells of it: %v", text, err)
		}
	}
	if _, err := web.ReadToken(name + ".gone"); err == nil {
		t.Error("a file that is not there holds a token")
	}
}
