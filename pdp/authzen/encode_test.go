package authzen_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// fill sets every field below v, or leaves it out, at random: so that a field which is added is compared too.
func fill(random *rand.Rand, v reflect.Value, leave float64) {
	words := []string{"a", "not_owner", `"quoted"`, "<b>&", "ü", "\u2028", "\x00", "a\xffb", "/subject/id"}
	if random.Float64() < leave {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(random, v.Field(i), leave)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(random, v.Elem(), leave)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), random.IntN(3), 3))
		for i := range v.Len() {
			fill(random, v.Index(i), 0)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range random.IntN(3) {
			v.SetMapIndex(reflect.ValueOf(words[random.IntN(len(words))]), reflect.ValueOf([]any{words[random.IntN(len(words))], true, nil}))
		}
	case reflect.String:
		v.SetString(words[random.IntN(len(words))])
	case reflect.Int:
		v.SetInt(int64(random.IntN(3)))
	case reflect.Bool:
		v.SetBool(random.IntN(2) == 0)
	default:
		panic(v.Kind())
	}
}

func TestAResponseIsWrittenAsEncodingJSONWouldWriteIt(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		var r authzen.Response
		fill(random, reflect.ValueOf(&r).Elem(), []float64{0, 0.3, 0.7}[i%3])
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.AppendJSON([]byte("before"))
		if err != nil || string(got) != "before"+string(want) {
			t.Fatalf("%s\nwant\n%s, %v", got, want, err)
		}
	}
}

func TestAnObligationThatIsNoJSONIsAnError(t *testing.T) {
	t.Parallel()
	r := authzen.Response{Context: &authzen.ResponseContext{Obligations: map[string]any{"f": func() {}}}}
	if _, err := r.AppendJSON(nil); err == nil {
		t.Error("no error")
	}
}

func BenchmarkResponse(b *testing.B) {
	r := authzen.Response{Decision: true, Context: &authzen.ResponseContext{
		Outcome: authzen.Permit, Reasons: []string{"granted_to_customer"}, Revision: "76d77fb5060707f6", DecisionID: "01a21229-8372-74a6-aee8-3080cfb352c3",
		Cache: &authzen.Cache{TTL: 2000, Vary: []string{"/subject/id", "/action/name"}},
	}}
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("appended", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			var err error
			if buf, err = r.AppendJSON(buf[:0]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
