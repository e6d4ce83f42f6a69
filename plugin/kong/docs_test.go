package kong_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

func TestTheDocumentationIsTheSchemas(t *testing.T) {
	t.Parallel()
	var want bytes.Buffer
	if err := kong.Docs(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("..", "..", "docs", "plugin.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/plugin.md is not what the schema says; run: go run ./plugin -docs > docs/plugin.md")
	}
}

// Every field says what it is for; a list that may be left out says what that means.
func TestEveryFieldIsDescribed(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	if err := kong.Docs(&text); err != nil {
		t.Fatal(err)
	}
	fields := 0
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		fields++
		if strings.HasSuffix(line, "|  |\n") {
			t.Errorf("not described: %s", line)
		}
	}
	if fields < 30 {
		t.Errorf("%d fields", fields)
	}
}

// Kong 3.9's metaschema takes descriptions of 10 to 500 characters, and does not start with others.
func TestKongTakesEveryDescription(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal([]any{kong.Schema(), kong.OutcomeSchema()})
	if err != nil {
		t.Fatal(err)
	}
	var schema any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	found := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if d, ok := v["description"].(string); ok {
				found++
				if len(d) < 10 || len(d) > 500 {
					t.Errorf("%d characters: %s", len(d), d)
				}
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	if walk(schema); found < 30 {
		t.Errorf("%d descriptions", found)
	}
}
