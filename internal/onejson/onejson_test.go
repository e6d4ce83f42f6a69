package onejson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
)

// S32: whatever is checked has one reading or none.
func TestOnlyOneReadingPasses(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for text, good := range map[string]bool{
		`{}`: true, ` {"a":[{"b":1},{"b":2}],"c":{"a":1}} `: true, `{"a":"{\"a\":1,\"a\":2}"}`: true, `{"a":["a","a"],"b":"a"}`: true,
		`null`: true, `[]`: true, `"a"`: true, `1`: true, nested(16): true,
		``: false, ` `: false, `{`: false, `{}{}`: false, `{} x`: false, `'a'`: false, nested(17): false, nested(1 << 20): false, "\ufeff{}": false,
		`{"a":1,"a":1}`: false, `{"a":1,"A":1}`: false, `{"a":1,"\u0061":1}`: false, `{"x":{"a":1,"b":2,"a":3}}`: false, `[[{"a":1,"a":2}]]`: false,
		`{"kid":1,"` + "\u212a" + `id":2}`: false, `{"sub":1,"` + "\u017f" + `ub":2}`: false, "\"\xff\"": false, `{"\ud800":1,"\udfff":2}`: false,
		`"\ud800"`: false, `"\udc00"`: false, `"\ud83d\ude00"`: true, `"\ud83dx"`: false, `"\ud83d\u0041"`: false, `"\\ud800"`: true, `{"\ud83d\ude00":1}`: true, `"\uD800\uDC00"`: true,
	} {
		err := onejson.Check([]byte(text))
		if (err == nil) != good {
			t.Errorf("%.50q: %v", text, err)
		}
	}
}

// FuzzCheck compares with a reading by tokens that is slow and plain.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":{"a":[{"c":"\"x"}]}}`, `{"a":1,"A":2}`, `{"\u0061":1,"a":2}`, `{"a\\":1,"a\\":2}`, `{"":1,"":2}`, `[{"a":1},{"a":1}]`, `"a"`, `1e999`, `{"a":1}{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := onejson.Check(data)
		if plain := plainly(data); (err == nil) != plain {
			t.Errorf("%q: %v, plainly %v", data, err, plain)
		}
	})
}

func plainly(data []byte) bool {
	if !json.Valid(data) || !utf8.Valid(data) || onejson.HalfPair(data) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // a number out of range is of one form too
	if !plainValue(d, 0) {
		return false
	}
	_, err := d.Token()
	return errors.Is(err, io.EOF)
}

func plainObject(d *json.Decoder, depth int) bool {
	var seen []string
	for d.More() {
		name, _ := d.Token()
		for _, s := range seen {
			if strings.EqualFold(s, name.(string)) {
				return false
			}
		}
		seen = append(seen, name.(string))
		if !plainValue(d, depth) {
			return false
		}
	}
	_, _ = d.Token()
	return true
}

func plainValue(d *json.Decoder, depth int) bool {
	t, _ := d.Token()
	switch t {
	case json.Delim('{'):
		return depth < onejson.Depth && plainObject(d, depth+1)
	case json.Delim('['):
		if depth >= onejson.Depth {
			return false
		}
		for d.More() {
			if !plainValue(d, depth+1) {
				return false
			}
		}
		_, _ = d.Token()
	}
	return true
}
