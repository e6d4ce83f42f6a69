// Package bundle brings policies from elsewhere: OPA bundles, checked as strictly as something that decides about everything
// deserves.
//
// Open reads one: limits before and while decoding, names that cannot leave the bundle, nothing but Rego, data, manifest and
// signatures; then the signature, by a pinned key and algorithm, over every file and nothing else; only then the manifest.
// It refuses what OPA would read past: delta bundles (which cannot be signed), Wasm, plans, Rego v0.
// A Source asks an HTTP server for new ones and keeps the last that decided on disk. Write and Sign make them.
//
// The package does not parse Rego: that is the engine's, which a Source reaches through Sink.
package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	obundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

const (
	manifestFile   = ".manifest"
	signaturesFile = ".signatures.json"
)

// Bundle is what a bundle holds, checked.
type Bundle struct {
	Revision string            // as its manifest says
	Roots    []string          // the paths below data that it owns, sorted; one "" is everything
	Files    map[string][]byte // *.rego and data.*, by path
	KeyID    string            // the key that signed it; "" if no signature was asked for
	Digest   string            // SHA-256 of the archive, hexadecimal
	Archive  []byte            // as it came
}

// Open reads an archive. Without a verifier its signature is not looked at.
func Open(archive []byte, limits Limits, v *Verifier) (*Bundle, error) {
	return openIn(context.Background(), archive, limits, v)
}

func openIn(ctx context.Context, archive []byte, limits Limits, v *Verifier) (b *Bundle, err error) {
	defer func() {
		if p := recover(); p != nil { // foreign bytes must not end the program, whichever parser they break
			b, err = nil, fmt.Errorf("a parser panicked: %v", p)
		}
	}()
	files, err := unpack(ctx, archive, limits)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(archive)
	b = &Bundle{Digest: hex.EncodeToString(digest[:]), Archive: archive}
	if v != nil {
		if b.KeyID, err = v.verify(ctx, files); err != nil {
			return nil, &SignatureError{err}
		}
	}
	if err := b.manifest(files[manifestFile]); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestFile, err)
	}
	delete(files, manifestFile)
	delete(files, signaturesFile)
	if len(files) == 0 {
		return nil, errors.New("holds neither rules nor data")
	}
	b.Files = files
	return b, nil
}

// SignatureError is a bundle that is not signed as it must be.
type SignatureError struct{ err error }

func (e *SignatureError) Error() string { return e.err.Error() }

func (e *SignatureError) Unwrap() error { return e.err }

// manifest reads a manifest through the same parser as its hash, and by exact names, so that what was signed is what counts.
func (b *Bundle) manifest(text []byte) error {
	b.Roots = []string{""}
	if text == nil {
		return nil
	}
	var v map[string]any
	if err := util.Unmarshal(text, &v); err != nil {
		return errors.New("not a JSON object")
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		ok := false
		switch value := v[name]; name {
		case "revision":
			b.Revision, ok = value.(string)
			ok = ok && len(b.Revision) <= 256 && !strings.ContainsFunc(b.Revision, control)
		case "roots":
			b.Roots, ok = rootsOf(value)
		case "rego_version":
			ok = isOne(value)
		case "file_rego_versions":
			var versions map[string]any
			versions, ok = value.(map[string]any)
			for _, n := range versions {
				ok = ok && isOne(n)
			}
		case "metadata":
			_, ok = value.(map[string]any)
		case "wasm":
			list, isList := value.([]any)
			ok = value == nil || isList && len(list) == 0
		default:
			return fmt.Errorf("%q is not known", clip(name))
		}
		if !ok {
			return fmt.Errorf("%s is not what it must be (%s)", name, musts[name])
		}
	}
	return CheckRoots(b.Roots)
}

var musts = map[string]string{
	"revision": "a string of at most 256 bytes without control characters", "roots": "a list of paths such as gatehouse/authz",
	"rego_version": "1", "file_rego_versions": "1 for each file", "metadata": "an object", "wasm": "absent: rules are Rego here",
}

func isOne(v any) bool {
	n, ok := v.(json.Number)
	return ok && n == "1"
}

func rootsOf(v any) ([]string, bool) {
	list, ok := v.([]any)
	if !ok || len(list) > 1000 {
		return nil, false
	}
	roots := make([]string, len(list))
	for i, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, false
		}
		roots[i] = strings.Trim(text, "/")
	}
	slices.Sort(roots)
	return roots, true
}

// CheckRoots answers what is wrong with a list of roots.
func CheckRoots(roots []string) error {
	if len(roots) == 0 {
		return errors.New("roots are empty: the bundle may define nothing")
	}
	for i, a := range roots {
		if a != "" && (!fs.ValidPath(a) || a == ".") || len(a) > maxName || strings.ContainsFunc(a, control) {
			return fmt.Errorf("root %q is not a path such as gatehouse/authz", clip(a))
		}
		for _, b := range roots[i+1:] {
			if obundle.RootPathsOverlap(a, b) {
				return fmt.Errorf("roots %q and %q overlap", a, b)
			}
		}
	}
	return nil
}

// Within answers whether all roots lie at or below one of others; nil is everything.
func Within(roots, others []string) error {
	if others == nil {
		return nil
	}
	for _, r := range roots {
		if !obundle.RootPathsContain(others, r) {
			return fmt.Errorf("root %q is outside the roots %q that the source may define", r, others)
		}
	}
	return nil
}

func control(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' }

// clip keeps foreign text short in errors.
func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}
