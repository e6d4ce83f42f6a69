package jose_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

// S32: an object has one reading or none.
func TestAnObjectHasOneReading(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		`{}`: true, ` {"a":[{"b":1},{"b":2}],"c":{"a":1}} `: true, `{"a":"{\"a\":1,\"a\":2}"}`: true, `{"a":{},"b":{"b":{}}}`: true, `{"a":["a","a"],"b":"a"}`: true,
		``: false, `null`: false, `[]`: false, `"a"`: false, `{`: false, `{}{}`: false, `{} x`: false,
		`{"a":1,"a":1}`: false, `{"a":1,"A":1}`: false, `{"a":1,"\u0061":1}`: false, `{"x":{"a":1,"b":2,"a":3}}`: false, `{"x":[[{"a":1,"a":2}]]}`: false,
		`{"kid":1,"` + "\u212a" + `id":2}`: false, `{"sub":1,"` + "\u017f" + `ub":2}`: false, "{\"a\":\"\xff\"}": false, `{"\ud800":1,"\udfff":2}`: false,
		`{"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`: true, `{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`: false,
	} {
		if _, err := jose.ReadObject([]byte(text)); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzObject compares with a reading by tokens that is slow and plain.
func FuzzObject(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":{"a":[{"c":"\"x"}]}}`, `{"a":1,"A":2}`, `{"\u0061":1,"a":2}`, `{"a\\":1,"a\\":2}`, `{"":1,"":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := jose.ReadObject(data)
		if plain := plainly(data); (err == nil) != plain {
			t.Errorf("%q: %v, plainly %v", data, err, plain)
		}
	})
}

func plainly(data []byte) bool {
	if !json.Valid(data) || !utf8.Valid(data) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') || !plainObject(d, 1) {
		return false
	}
	_, err := d.Token()
	var m map[string]any // numbers out of range
	return errors.Is(err, io.EOF) && json.Unmarshal(data, &m) == nil
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
		return depth < 16 && plainObject(d, depth+1)
	case json.Delim('['):
		if depth >= 16 {
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

// FuzzPath: whatever a configuration says, a look-up answers or finds nothing.
func FuzzPath(f *testing.F) {
	f.Add("realm_access.roles", `{"realm_access":{"roles":["a"]}}`)
	f.Add("/a~1b/~0", `{"a/b":{"~":1}}`)
	f.Fuzz(func(_ *testing.T, path, text string) {
		var m map[string]any
		if json.Unmarshal([]byte(text), &m) == nil {
			_ = jose.Path(path).In(m)
			_ = jose.Path(path).Validate()
		}
	})
}
