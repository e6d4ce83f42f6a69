package author_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func TestARequestThatCannotBeReadSaysWhere(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{\n  \"subject\": x}": "r.json:2: invalid character 'x'",
		"{\n\"subject\": {\n":  "r.json:2: the document breaks off",
		"\n\n[1]":              "r.json:3: something else stands where an object is wanted",
		"":                     "r.json:1: the document breaks off",
		"{}\n{}":               "r.json: more than one JSON document; --id says which decision of a log",
	} {
		if _, err := author.ParseQuestion("r.json", []byte(text), time.Now()); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
