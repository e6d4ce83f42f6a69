package yamldoc_test

import (
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/yamldoc"
)

func TestErrorsSayWhereAndInPlainWords(t *testing.T) {
	t.Parallel()
	type one struct {
		Words []string
		Most  int
		Below map[string]int
	}
	for text, want := range map[string]string{
		"- a":                      "f.yaml:1: a list stands where a mapping is wanted",
		"a:\n  words: many":        "f.yaml:2: a text (many) stands where a list is wanted",
		"a:\n  most: many":         "f.yaml:2: a text (many) stands where a number is wanted",
		"a:\n\n  below: [1]":       "f.yaml:3: a list stands where a mapping is wanted",
		"a:\n  wrods: []":          "f.yaml:2: field wrods not found",
		"a: {}\nb: [":              "f.yaml:2: did not find expected node content",
		"a: {words: [x], most: 1}": "",
	} {
		_, err := yamldoc.Decode("f.yaml", []byte(text), &map[string]one{})
		have := ""
		if err != nil {
			have = err.Error()
		}
		if have != want {
			t.Errorf("%q: %s, want %s", text, have, want)
		}
	}
}
