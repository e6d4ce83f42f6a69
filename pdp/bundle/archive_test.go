package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entry is one of a tar archive.
type entry struct {
	name string
	body string
	kind byte // default a file
	link string
}

// tarOf writes entries as they are, however wrong.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: tar.TypeReg, Size: int64(len(e.body)), Mode: 0o644, Linkname: e.link}
		if e.kind != 0 {
			h.Typeflag = e.kind
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func archive(t testing.TB, entries ...entry) []byte { t.Helper(); return gz(t, tarOf(t, entries...)) }

const rego = "package gatehouse.authz\n\nx := 1\n"

func TestABundleIsRead(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]entry{
		"plain":          {{name: "gatehouse/x.rego", body: rego}, {name: "data.json", body: "{}"}, {name: ".manifest", body: `{"revision":"7","roots":["/gatehouse/","a"],"rego_version":1,"metadata":{"a":1}}`}},
		"by OPA's tools": {{name: "/data.json", body: "{}"}, {name: "/gatehouse/x.rego", body: rego}, {name: "/.manifest", body: `{"revision":"7","roots":["gatehouse","a"],"file_rego_versions":{"x.rego":1},"wasm":[]}`}},
		"by tar":         {{name: "./", kind: tar.TypeDir}, {name: "./gatehouse/", kind: tar.TypeDir}, {name: "./gatehouse/x.rego", body: rego}, {name: "./data.json", body: "{}"}, {name: "./.manifest", body: `{"revision":"7","roots":["a","gatehouse"]}`}},
	} {
		b, err := bundle.Open(archive(t, entries...), bundle.Limits{}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b.Revision != "7" || !slices.Equal(b.Roots, []string{"a", "gatehouse"}) || len(b.Digest) != 64 || b.KeyID != "" {
			t.Errorf("%s: %+v", name, b)
		}
		if got := slices.Sorted(maps.Keys(b.Files)); !slices.Equal(got, []string{"data.json", "gatehouse/x.rego"}) || string(b.Files["gatehouse/x.rego"]) != rego {
			t.Errorf("%s: files %q", name, got)
		}
	}
	b, err := bundle.Open(archive(t, entry{name: "data.yaml", body: "a: 1"}), bundle.Limits{}, nil)
	if err != nil || !slices.Equal(b.Roots, []string{""}) {
		t.Errorf("without a manifest: %+v, %v", b, err)
	}
}

// S62: what is no bundle is refused whole.
func TestArchivesThatAreNoBundlesAreRefused(t *testing.T) {
	t.Parallel()
	good := entry{name: "x.rego", body: rego}
	for want, entries := range map[string][]entry{
		`"../x.rego" is not one`:                    {{name: "../x.rego", body: rego}},
		`"a/../../x.rego" is not one`:               {{name: "a/../../x.rego", body: rego}},
		`"/../etc/x.rego" is not one`:               {{name: "/../etc/x.rego", body: rego}},
		`"//etc/x.rego" is not one`:                 {{name: "//etc/x.rego", body: rego}},
		`"a//x.rego" is not one`:                    {{name: "a//x.rego", body: rego}},
		`"a/./x.rego" is not one`:                   {{name: "a/./x.rego", body: rego}},
		`"..\\x.rego" is not one`:                   {{name: `..\x.rego`, body: rego}},
		`"a\nx.rego" is not one`:                    {{name: "a\nx.rego", body: rego}},
		`"//etc/" is not one`:                       {good, {name: "//etc/", kind: tar.TypeDir}},
		`"../" is not one`:                          {good, {name: "../", kind: tar.TypeDir}},
		`"x.rego" is there twice`:                   {good, good},
		`"data.json" is there twice`:                {{name: "/data.json", body: "{}"}, {name: "data.json", body: "{}"}},
		`"y.rego" is a link`:                        {good, {name: "y.rego", kind: tar.TypeSymlink, link: "/etc/passwd"}},
		`"z.rego" is a link`:                        {good, {name: "z.rego", kind: tar.TypeLink, link: "x.rego"}},
		`"c.rego" is a link, a device`:              {{name: "c.rego", kind: tar.TypeChar}},
		`"b.rego" is a link, a device`:              {{name: "b.rego", kind: tar.TypeBlock}},
		`"f.rego" is a link, a device`:              {{name: "f.rego", kind: tar.TypeFifo}},
		`"etc/passwd" is neither`:                   {good, {name: "/etc/passwd", body: "x"}},
		`"a/cases/c.yaml" is neither`:               {good, {name: "a/cases/c.yaml", body: "x"}},
		`"cases/c.json" is neither`:                 {good, {name: "cases/c.json", body: "x"}},
		`"a/schema.json" is neither`:                {good, {name: "a/schema.json", body: "x"}},
		`"README.md" is neither`:                    {good, {name: "README.md", body: "x"}},
		`".x.rego" is neither`:                      {{name: ".x.rego", body: rego}},
		`"policy.wasm" is neither`:                  {good, {name: "policy.wasm", body: "x"}},
		`"plan.json" is neither`:                    {good, {name: "plan.json", body: "{}"}},
		`".manifest.pb" is neither`:                 {good, {name: ".manifest.pb", body: "x"}},
		`"a/.manifest" is neither`:                  {good, {name: "a/.manifest", body: "{}"}},
		`"a/.signatures.json" is neither`:           {good, {name: "a/.signatures.json", body: "{}"}},
		"delta bundle":                              {{name: "patch.json", body: `{"data":[]}`}},
		"neither rules nor data":                    {{name: ".manifest", body: "{}"}},
		"not a JSON object":                         {good, {name: ".manifest", body: "[]"}},
		`"rootz" is not known`:                      {good, {name: ".manifest", body: `{"rootz":["a"]}`}},
		`"Roots" is not known`:                      {good, {name: ".manifest", body: `{"Roots":["a"],"roots":["b"]}`}},
		"roots is not what it must be":              {good, {name: ".manifest", body: `{"roots":"a"}`}},
		"roots are empty":                           {good, {name: ".manifest", body: `{"roots":[]}`}},
		`root "a/../b" is not a path`:               {good, {name: ".manifest", body: `{"roots":["a/../b"]}`}},
		`roots "a" and "a/b" overlap`:               {good, {name: ".manifest", body: `{"roots":["a","a/b"]}`}},
		"revision is not what it must be":           {good, {name: ".manifest", body: `{"revision":7}`}},
		"revision is not what it must be (a string": {good, {name: ".manifest", body: `{"revision":"a\nb"}`}},
		"rego_version is not what it must be (1)":   {good, {name: ".manifest", body: `{"rego_version":0}`}},
		"file_rego_versions is not what it must be": {good, {name: ".manifest", body: `{"file_rego_versions":{"*":0}}`}},
		"wasm is not what it must be (absent":       {good, {name: ".manifest", body: `{"wasm":[{"entrypoint":"a","module":"b"}]}`}},
		fmt.Sprintf("more than %d files", 3):        {good, {name: "b.rego", body: rego}, {name: "c.rego", body: rego}, {name: "d.rego", body: rego}},
		"more than 3 files":                         {good, {name: "a/", kind: tar.TypeDir}, {name: "b/", kind: tar.TypeDir}, {name: "c/", kind: tar.TypeDir}},
		`is larger than 1000 bytes`:                 {{name: "x.rego", body: strings.Repeat("#", 1001)}},
		"unfolds to more than 5000 bytes":           {{name: "a.rego", body: strings.Repeat("#", 1000)}, {name: "b.rego", body: strings.Repeat("#", 1000)}, {name: "c.rego", body: strings.Repeat("#", 1000)}},
		`…" is not one`:                             {{name: strings.Repeat("a", 600) + ".rego", body: rego}},
	} {
		b, err := bundle.Open(archive(t, entries...), bundle.Limits{Files: 3, File: 1000, Uncompressed: 5000}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: read %v, %v", want, b != nil, err)
		}
	}
}

func TestDamagedArchivesAreRefused(t *testing.T) {
	t.Parallel()
	whole := archive(t, entry{name: "x.rego", body: rego}, entry{name: "data.json", body: `{"a":"` + strings.Repeat("x", 2000) + `"}`})
	for n := range whole {
		if b, err := bundle.Open(whole[:n], bundle.Limits{}, nil); err == nil {
			t.Fatalf("%d of %d bytes: %+v", n, len(whole), b)
		}
	}
	flipped := slices.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // of the checksum
	plain := tarOf(t, entry{name: "x.rego", body: rego})
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("<html>"), "not compressed": plain, "checksum": flipped,
		"bytes after":           append(slices.Clone(whole), 'x'),
		"a second stream":       append(slices.Clone(whole), whole...),
		"text after the end":    gz(t, append(slices.Clone(plain), "more"...)),
		"a second archive":      gz(t, append(slices.Clone(plain), plain...)),
		"a cut tar":             gz(t, plain[:520]),
		"larger than it may be": append(slices.Clone(whole), make([]byte, 5000)...),
	} {
		limits := bundle.Limits{}
		if strings.HasPrefix(name, "larger") {
			limits.Compressed = int64(len(whole)) + 4999
		}
		if got, err := bundle.Open(b, limits, nil); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// bomb is a gigabyte of zeros as one file, packed. It is put together from pieces, because packing all of it takes long.
func bomb(t *testing.T, size int64) []byte {
	t.Helper()
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "data.json", Typeflag: tar.TypeReg, Size: size}); err != nil {
		t.Fatal(err)
	}
	piece := func(b []byte) []byte {
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, flate.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	const zeros = 1 << 20
	packed := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}, piece(head.Bytes())...)
	return append(packed, bytes.Repeat(piece(make([]byte, zeros)), int(size/zeros))...)
}

// S62: a gigabyte in a megabyte is refused before it is unfolded. It does not run in parallel, so that it can count memory.
func TestABombIsRefused(t *testing.T) {
	const size = 1 << 30
	packed := bomb(t, size)
	if len(packed) > 2<<20 {
		t.Fatalf("it has %d bytes", len(packed))
	}
	for want, limits := range map[string]bundle.Limits{"is larger than": {}, "unfolds to more than": {File: 2 * size}} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := bundle.Open(packed, limits, nil)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 6*bundle.DefaultUncompressed {
			t.Errorf("%s: took %d bytes of memory", want, bytes)
		}
	}
}

func TestWriteMakesTheSameOfTheSame(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{"b.rego": []byte(rego), "a/data.json": []byte("{}"), ".manifest": []byte(`{"revision":"1"}`)}
	one, err := bundle.Write(files)
	if err != nil {
		t.Fatal(err)
	}
	two, err := bundle.Write(maps.Clone(files))
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("differ: %v", err)
	}
	if b, err := bundle.Open(one, bundle.Limits{}, nil); err != nil || len(b.Files) != 2 || b.Revision != "1" {
		t.Errorf("%+v, %v", b, err)
	}
	for _, name := range []string{"../x.rego", "README", "/a//b.rego"} {
		if _, err := bundle.Write(map[string][]byte{name: nil}); err == nil {
			t.Errorf("%s is written", name)
		}
	}
}

func FuzzOpen(f *testing.F) {
	v := verifier(f, "")
	for _, entries := range [][]entry{
		{{name: "x.rego", body: rego}, {name: "data.json", body: `{"a":1}`}, {name: ".manifest", body: `{"roots":["a"],"revision":"1"}`}},
		{{name: "/a/data.yaml", body: "a: [1]"}, {name: ".signatures.json", body: `{"signatures":["a.b.c"]}`}},
	} {
		f.Add(tarOf(f, entries...))
	}
	signed, err := bundle.Sign(archive(f, entry{name: "x.rego", body: rego}, entry{name: "data.yaml", body: "a: 1"}), bundle.Limits{}, signing(f, ""))
	if err != nil {
		f.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(signed))
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	limits := bundle.Limits{Uncompressed: 1 << 20}
	f.Fuzz(func(t *testing.T, plain []byte) {
		for _, packed := range [][]byte{plain, gz(t, plain)} {
			for _, by := range []*bundle.Verifier{nil, v} {
				b, err := bundle.Open(packed, limits, by)
				if err != nil {
					continue
				}
				for name := range b.Files {
					if strings.HasPrefix(name, "/") || strings.Contains(name, "..") && slices.Contains(strings.Split(name, "/"), "..") {
						t.Errorf("file %q", name)
					}
				}
				if by != nil && b.KeyID == "" {
					t.Error("nobody signed it")
				}
				if again, err := bundle.Write(b.Files); err != nil {
					t.Errorf("cannot be written: %v", err)
				} else if _, err := bundle.Open(again, limits, nil); err != nil && !strings.Contains(err.Error(), "unfolds") {
					t.Errorf("cannot be read again: %v", err)
				}
			}
		}
	})
}
