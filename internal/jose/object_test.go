package jose_test

import (
	"encoding/json"
	"strings"
	"testing"

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
