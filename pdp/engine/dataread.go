package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// readData decodes JSON or YAML as OPA does, with a *relation in the place of each object of more than large members; rooted tells
// that the outermost one must be a map all the same. A relation is made member by member, so that nothing is ever held decoded that
// takes ten times its room, and the collector has nothing to do. It gives way to decisions.
func readData(ctx context.Context, text []byte, large int, rooted bool) (any, error) {
	r := &dataReader{
		ctx: ctx, large: large, size: len(text),
		dec: jsontext.NewDecoder(bytes.NewBuffer(withoutMark(text)), jsontext.AllowDuplicateNames(true)),
	}
	if v, err := r.all(rooted); err == nil {
		return v, nil
	}
	// What it does not read is YAML, or so odd that encoding/json may know what to make of it. If nobody does, OPA's words are better.
	var v any
	err := util.Unmarshal(text, &v)
	return v, err
}

// withoutMark is text without a byte order mark.
func withoutMark(text []byte) []byte { return bytes.TrimPrefix(text, []byte{0xef, 0xbb, 0xbf}) }

type dataReader struct {
	ctx   context.Context //nolint:containedctx // it lives as long as one call
	dec   *jsontext.Decoder
	large int
	size  int // of the whole text
	n     int
}

// never is more members than any object has.
const never = math.MaxInt

func (r *dataReader) all(rooted bool) (v any, err error) {
	here := r.large
	if rooted {
		here = never
	}
	if v, err = r.value(here, r.large); err != nil {
		return nil, err
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, errors.New("something follows the value"))
	}
	return v, nil
}

// breathe gives way now and then.
func (r *dataReader) breathe() {
	if r.n++; r.n&0x3f == 0 {
		pace.Breathe(r.ctx)
	}
}

// value reads the next one. It is a relation if it is an object of more members than here, and below it what has more than below.
func (r *dataReader) value(here, below int) (any, error) {
	r.breathe()
	kind := r.dec.PeekKind()
	t, err := r.dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch kind {
	case '{':
		return r.object(here, below)
	case '[':
		list := []any{}
		for r.dec.PeekKind() != ']' {
			v, err := r.value(never, never) // there are no relations in lists
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := r.dec.ReadToken()
		return list, err
	case 'n':
		return nil, nil //nolint:nilnil // null
	case 't', 'f':
		return t.Bool(), nil
	case '0':
		return json.Number(t.String()), nil
	}
	return t.String(), nil
}

func (r *dataReader) object(here, below int) (any, error) {
	m, began := map[string]any{}, r.dec.InputOffset()
	for r.dec.PeekKind() != '}' {
		name, err := r.name()
		if err != nil {
			return nil, err
		}
		if m[name], err = r.value(below, below); err != nil {
			return nil, err
		}
		if len(m) > here {
			return r.relation(m, int(r.dec.InputOffset()-began)/len(m))
		}
	}
	_, err := r.dec.ReadToken()
	return m, err
}

func (r *dataReader) name() (string, error) {
	t, err := r.dec.ReadToken()
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// Bounds of what is remembered of the texts of members, most of which are alike.
const (
	maxTexts = 1 << 14
	maxText  = 1 << 10 // bytes
)

// mostExpected bounds the members for which room is made before they are seen.
const mostExpected = 1 << 20

// relation reads the rest of an object, of which m is the beginning. A member there took so many bytes.
func (r *dataReader) relation(m map[string]any, each int) (any, error) {
	b := directory.BuildTable(min(r.size/max(1, each), mostExpected))
	for name, v := range m {
		n, err := b.Value(expanded(v))
		if err != nil {
			return nil, err
		}
		if err := b.Put(name, n); err != nil {
			return nil, err
		}
		r.breathe()
	}
	texts := map[string]int{}
	for r.dec.PeekKind() != '}' {
		r.breathe()
		name, err := r.name()
		if err != nil {
			return nil, err
		}
		text, err := r.dec.ReadValue()
		if err != nil {
			return nil, err
		}
		n, known := texts[string(text)]
		if !known {
			v, err := plain(text)
			if err != nil {
				return nil, err
			}
			if n, err = b.Value(v); err != nil {
				return nil, err
			}
			if len(texts) < maxTexts && len(text) <= maxText {
				texts[string(text)] = n
			}
		}
		if err := b.Put(name, n); err != nil {
			return nil, err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, err
	}
	return newRelation(b.Seal()), nil
}

// plain decodes a text that is valid.
func plain(text []byte) (v any, err error) {
	return v, util.UnmarshalJSON(text, &v)
}
