package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
)

// byTokens reads a value as encoding/json reads its tokens: the reference of reader.
func byTokens(dec *json.Decoder, depth int) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth >= maxDepth {
		return nil, errors.New("too deep")
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			v, err := byTokens(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	}
	object := map[string]any{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errors.New("no name")
		}
		if _, twice := object[name]; twice {
			return nil, errors.New("twice")
		}
		if object[name], err = byTokens(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token()
	return object, err
}

// FuzzReadDocument: what is read is what encoding/json reads, and what it refuses is refused.
func FuzzReadDocument(f *testing.F) {
	for _, text := range []string{
		whole, `[1,-0,0.5,1e9,-1.25E-3,10]`, `01`, `1.`, `.5`, `-`, `1e`, `+1`, `[1,]`, `[,1]`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`,
		`"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"`, `"\ud83d"`, `"\ud83d\u0041"`, `"\ud83d\ud83d\ude00"`, `"\udE00x"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"`, `"\`, "\"\x01\"", "\"\x7f\"", `"é😀"`,
		`null`, `tru`, `truex`, `nul`, ` { "a" : [ true , false ] } `, `{} {}`, `{}x`, "\ufeff{}", "[\v1]", "{\x00}", strings.Repeat("[", 33) + strings.Repeat("]", 33), strings.Repeat("[", 32) + strings.Repeat("]", 32), ``, ` `,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readDocument(body)
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		want, refused := byTokens(dec, 0)
		if refused == nil {
			if _, after := dec.Token(); !errors.Is(after, io.EOF) {
				refused = errors.New("something after it")
			}
		}
		if !utf8.Valid(body) || onejson.HalfPair(body) {
			refused = errors.New("no text")
		}
		if (err == nil) != (refused == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: read %v, %v; encoding/json %v, %v", body, got, err, want, refused)
		}
	})
}

func BenchmarkReadDocument(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readDocument([]byte(whole)); err != nil {
			b.Fatal(err)
		}
	}
}
