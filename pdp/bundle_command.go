package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

const bundleUsage = `usage: gatehouse-pdp bundle build [-o FILE] [-revision TEXT] [-root PATH]… [-key FILE -key-id ID] [-json] FOLDER
       gatehouse-pdp bundle sign -key FILE -key-id ID [-o FILE] [-json] BUNDLE
       gatehouse-pdp bundle verify -key FILE -key-id ID [-json] BUNDLE

  build    check a policy folder as serve does and pack it
  sign     sign a bundle, also one by opa build
  verify   say whether serve would take a bundle, and what it holds`

// wanting is what a command found, and not what kept it from looking: the exit code is 1 and not 2.
type wanting struct{ error }

func (w wanting) Unwrap() error { return w.error }

// bundleCommand makes and checks bundles.
func bundleCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New("bundle needs a command\n" + bundleUsage)
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		_, err := fmt.Fprintln(stdout, bundleUsage)
		return err
	case "build":
		return bundleBuild(ctx, args[1:], stdout, stderr)
	case "sign":
		return bundleSign(args[1:], stdout, stderr)
	case "verify":
		return bundleVerify(args[1:], stdout, stderr)
	}
	return fmt.Errorf("%q is no command of bundle\n%s", args[0], bundleUsage)
}

// keyFlags are those of a key, private or public.
type keyFlags struct{ file, id, algorithm, scope string }

func (k *keyFlags) register(f *flag.FlagSet, kind string) {
	f.StringVar(&k.file, "key", "", kind+" key, in PEM")
	f.StringVar(&k.id, "key-id", "", "what the key is called where the bundle is used")
	f.StringVar(&k.algorithm, "algorithm", "ES256", "ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512 or EdDSA")
	f.StringVar(&k.scope, "scope", "", "what the bundle is for; the signature and whoever checks it must agree")
}

func (k *keyFlags) signing() (bundle.SigningKey, error) {
	if k.file == "" || k.id == "" {
		return bundle.SigningKey{}, errors.New("a bundle is signed with -key FILE and -key-id ID")
	}
	text, err := os.ReadFile(k.file)
	return bundle.SigningKey{ID: k.id, Algorithm: k.algorithm, PEM: string(text), Scope: k.scope}, err
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(v string) error { *l = append(*l, strings.Trim(v, "/")); return nil }

func jsonFlag(f *flag.FlagSet) *bool { return f.Bool("json", false, "answer in JSON") }

func newFlags(name string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("bundle "+name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		_, _ = fmt.Fprintf(stderr, "flags of gatehouse-pdp bundle %s:\n", name)
		f.PrintDefaults()
	}
	return f
}

// one parses flags, which may stand anywhere, and answers the one name among them.
func one(f *flag.FlagSet, args []string, what string) (string, error) {
	var names []string
	for {
		if err := f.Parse(args); err != nil {
			return "", err
		}
		if args = f.Args(); len(args) == 0 {
			break
		}
		names, args = append(names, args[0]), args[1:]
	}
	if len(names) != 1 {
		return "", fmt.Errorf("%s takes one %s", f.Name(), what)
	}
	return names[0], nil
}

func bundleBuild(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("build", stderr)
	asJSON := jsonFlag(f)
	out := f.String("o", "bundle.tar.gz", "where to write it")
	revision := f.String("revision", "", "what to call it; else a digest of its files")
	unchecked := f.Bool("unchecked", false, "pack it even if its rules need those of another bundle to compile")
	var roots list
	f.Var(&roots, "root", "path below data that it defines, such as gatehouse/authz; else the top names that it defines; repeatable")
	var key keyFlags
	key.register(f, "private")
	dir, err := one(f, args, "folder")
	if err != nil {
		return err
	}
	if _, err := os.ReadDir(dir); err != nil {
		return err
	}
	part, err := engine.ReadFolder(os.DirFS(dir))
	if err != nil {
		return wanting{fmt.Errorf("%s: %w", dir, err)}
	}
	packed, err := engine.Pack(part)
	if err != nil {
		return wanting{fmt.Errorf("%s: %w", dir, err)}
	}
	if len(packed.Files) == 0 {
		return fmt.Errorf("%s: no policies", dir)
	}
	if roots == nil {
		roots = packed.Roots
	}
	slices.Sort(roots)
	if err := bundle.CheckRoots(roots); err != nil {
		return err
	}
	if *revision == "" {
		*revision = packed.Revision
	}
	decides := false
	if !*unchecked {
		part.Roots = roots
		if decides, err = engine.Check(ctx, part); err != nil {
			return wanting{fmt.Errorf("%s: %w", dir, err)}
		}
	}
	manifest, err := json.Marshal(map[string]any{"revision": *revision, "roots": roots, "rego_version": 1})
	if err != nil {
		return err
	}
	packed.Files[".manifest"] = manifest
	archive, err := bundle.Write(packed.Files)
	if err != nil {
		return err
	}
	if key.file != "" || key.id != "" {
		if archive, err = signed(archive, key); err != nil {
			return err
		}
	}
	// What serve would not take is not written.
	b, err := bundle.Open(archive, bundle.Limits{}, nil)
	if err != nil {
		return err
	}
	if err := bundle.ReplaceFile(*out, archive, 0o644); err != nil {
		return err
	}
	checked := "compiles and passes its tests"
	switch {
	case *unchecked:
		checked = "not checked"
	case decides:
		checked += ", denies by default"
	default:
		checked += "; holds no entry point, so another bundle decides"
	}
	return tell(stdout, *asJSON, *out, b, [2]string{"checked", checked}, [2]string{"signed", orNo(key.id, key.file)})
}

func signed(archive []byte, key keyFlags) ([]byte, error) {
	k, err := key.signing()
	if err != nil {
		return nil, err
	}
	return bundle.Sign(archive, bundle.Limits{}, k)
}

func bundleSign(args []string, stdout, stderr io.Writer) error {
	f := newFlags("sign", stderr)
	asJSON := jsonFlag(f)
	out := f.String("o", "", "where to write it; else in place")
	var key keyFlags
	key.register(f, "private")
	name, err := one(f, args, "bundle")
	if err != nil {
		return err
	}
	archive, err := os.ReadFile(name) //nolint:gosec // the user says which
	if err != nil {
		return err
	}
	if archive, err = signed(archive, key); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b, err := bundle.Open(archive, bundle.Limits{}, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if *out == "" {
		*out = name
	}
	if err := bundle.ReplaceFile(*out, archive, 0o644); err != nil {
		return err
	}
	return tell(stdout, *asJSON, *out, b, [2]string{"signed", orNo(key.id, key.file)})
}

func bundleVerify(args []string, stdout, stderr io.Writer) error {
	f := newFlags("verify", stderr)
	asJSON := jsonFlag(f)
	unsigned := f.Bool("unsigned", false, "do without a signature")
	var key keyFlags
	key.register(f, "public")
	name, err := one(f, args, "bundle")
	if err != nil {
		return err
	}
	var v *bundle.Verifier
	if !*unsigned {
		if key.file == "" || key.id == "" {
			return errors.New("a bundle is verified by -key FILE and -key-id ID, or as it is by -unsigned")
		}
		text, err := os.ReadFile(key.file)
		if err != nil {
			return err
		}
		if v, err = bundle.NewVerifier(key.scope, bundle.Key{ID: key.id, Algorithm: key.algorithm, PEM: string(text)}); err != nil {
			return err
		}
	}
	archive, err := os.ReadFile(name) //nolint:gosec // the user says which
	if err != nil {
		return err
	}
	b, err := bundle.Open(archive, bundle.Limits{}, v)
	if err != nil {
		return wanting{fmt.Errorf("%s: refused: %w", name, err)}
	}
	return tell(stdout, *asJSON, name, b, [2]string{"signed", orNo(b.KeyID, b.KeyID)})
}

func orNo(id, given string) string {
	if given == "" {
		return "no"
	}
	return "by " + id
}

// tell describes a bundle.
func tell(w io.Writer, asJSON bool, name string, b *bundle.Bundle, more ...[2]string) error {
	if asJSON {
		doc := map[string]any{
			"bundle": name, "revision": b.Revision, "roots": b.Roots, "files": slices.Sorted(maps.Keys(b.Files)), "sha256": b.Digest,
		}
		for _, m := range more {
			doc[m[0]] = m[1]
		}
		return json.NewEncoder(w).Encode(doc)
	}
	roots := strings.Join(b.Roots, ", ")
	if roots == "" {
		roots = "everything"
	}
	lines := [][2]string{{"revision", b.Revision}, {"roots", roots}, {"files", strconv.Itoa(len(b.Files))}, {"sha256", b.Digest}}
	text := name + "\n"
	for _, l := range append(lines, more...) {
		text += fmt.Sprintf("  %-9s %s\n", l[0], l[1])
	}
	_, err := io.WriteString(w, text)
	return err
}
