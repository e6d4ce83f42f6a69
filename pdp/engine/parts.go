package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// Folder is the Part.Source of Options.Policies and Options.Dir.
const Folder = ""

// Part is what one source of policies contributes to a snapshot.
type Part struct {
	Source    string            // one of Options.Feeds
	Revision  string            // what the source calls it, for people
	Roots     []string          // paths below data that this source alone defines, as in an OPA manifest; nil is everything
	Files     map[string][]byte // as in a policy folder
	Confirmed time.Time         // when the source last said that there is nothing newer; default now
	Decides   func()            // called once, when this part begins to decide; may be nil

	digest  string   // what digestOf answers, once it has been worked out
	known   string   // and print
	decoded *decoded // what the source's data files held before; nil for nothing
}

// print names the contents of a part.
func (p Part) print() string {
	if p.known != "" {
		return p.known
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %s", p.Source, p.Roots, p.digestOf(context.Background()))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// digestOf names the files of a part.
func (p Part) digestOf(ctx context.Context) string {
	if p.digest != "" {
		return p.digest
	}
	return digestOf(ctx, p.Files)
}

// roots are those of the part; one root is everything if it names none.
func (p Part) roots() []string {
	if p.Roots == nil {
		return []string{""}
	}
	return p.Roots
}

// at is where a file of the part is, in words that an operator knows.
func (p Part) at(name string) string {
	if p.Source == Folder {
		return name
	}
	return p.Source + ":" + name
}

// parts is one Part by source.
type parts map[string]Part

// revision is that of the folder if there is nothing else.
func (ps parts) revision() string {
	if folder, ok := ps[Folder]; ok && len(ps) == 1 {
		return folder.digestOf(context.Background())
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(ps)) {
		fmt.Fprintln(h, ps[name].print())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// conflict says which roots of which sources overlap.
func (ps parts) conflict() error {
	var errs []error
	names := slices.Sorted(maps.Keys(ps))
	for i, a := range names {
		for _, b := range names[i+1:] {
			for _, ra := range ps[a].roots() {
				for _, rb := range ps[b].roots() {
					if bundle.RootPathsOverlap(ra, rb) {
						errs = append(errs, fmt.Errorf("root %q of %s overlaps root %q of %s", ra, called(a), rb, called(b)))
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}

func called(source string) string {
	if source == Folder {
		return "the policy folder"
	}
	return "source " + source
}

// parse reads all parts into one; each keeps within its roots.
func (ps parts) parse(ctx context.Context) (source, error) {
	all := source{revision: ps.revision(), modules: map[string]*ast.Module{}, named: map[string]*ast.Module{}, tests: map[string]*ast.Module{}, data: map[string]any{}}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(ps)) {
		p := ps[name]
		src, err := parse(ctx, p)
		if err == nil {
			err = src.within(p.roots())
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		maps.Copy(all.modules, src.modules)
		maps.Copy(all.named, src.named)
		maps.Copy(all.tests, src.tests)
		if at := merge(all.data, src.data, ""); at != "" { // roots that do not overlap leave nothing to collide
			errs = append(errs, fmt.Errorf("%s: %s is also defined by another source", called(name), at))
		}
	}
	return all, errors.Join(errs...)
}

// within checks that rules, tests and data lie below the roots.
func (s source) within(roots []string) error {
	var errs []error
	for _, modules := range []map[string]*ast.Module{s.modules, s.tests} {
		for _, name := range slices.Sorted(maps.Keys(modules)) {
			if at := packagePath(modules[name].Package.Path); !bundle.RootPathsContain(roots, at) {
				errs = append(errs, fmt.Errorf("%s: package %s is outside the roots %q", name, strings.ReplaceAll(at, "/", "."), roots))
			}
		}
	}
	if at := outside(s.data, "", roots); at != "" {
		errs = append(errs, fmt.Errorf("data: %s is outside the roots %q", at, roots))
	}
	return errors.Join(errs...)
}

// packagePath is data.a.b as a/b. A package's terms are strings.
func packagePath(r ast.Ref) string {
	var names []string
	for _, t := range r[1:] {
		s, _ := t.Value.(ast.String)
		names = append(names, string(s))
	}
	return strings.Join(names, "/")
}

// outside answers the first path of data that no root contains. Objects on the way to a root are not outside.
func outside(data map[string]any, at string, roots []string) string {
	for _, k := range slices.Sorted(maps.Keys(data)) {
		here := strings.TrimPrefix(at+"/"+k, "/")
		if bundle.RootPathsContain(roots, here) {
			continue
		}
		leads := slices.ContainsFunc(roots, func(r string) bool { return strings.HasPrefix(r, here+"/") })
		if !leads || !isObject(data[k]) {
			return here
		}
		if found := outside(objectOf(data[k]), here, roots); found != "" {
			return found
		}
	}
	return ""
}

// Put offers the newest part of a source. It decides, together with the newest of all other sources, once each source has
// offered one; if that fails, together with those parts of the others that decide now. Else what decided goes on deciding,
// and Put answers why. A part that failed is tried again when another source offers something,
// and after a while if it failed for want of time alone.
func (e *Engine) Put(ctx context.Context, p Part) error {
	e.loading.Lock()
	defer e.loading.Unlock()
	if e.sources[p.Source] == nil {
		return fmt.Errorf("engine: no source is called %q", p.Source)
	}
	return e.offer(e.GivingWay(ctx), p)
}

// offer is Put for those who hold the lock.
func (e *Engine) offer(ctx context.Context, p Part) error {
	if p.Confirmed.IsZero() {
		p.Confirmed = e.opts.Now()
	}
	p.decoded = &e.sources[p.Source].decoded
	p.decoded.large = e.large()
	p.digest = p.digestOf(ctx)
	p.known = p.print() // not under the lock of those who only ask
	e.telling.Lock()
	e.offered[p.Source] = p
	s := e.sources[p.Source]
	s.away, s.refused, s.pause = nil, false, pause{}
	newest := maps.Clone(e.offered)
	e.telling.Unlock()
	return e.enforce(ctx, newest, p)
}

// enforce puts a part in force, with the newest of all others or else with what decides.
func (e *Engine) enforce(ctx context.Context, newest parts, p Part) error {
	if len(newest) < len(e.sources) {
		e.opts.Log.InfoContext(ctx, "waiting for policies", "have", called(p.Source), "of", len(e.sources), "so_far", len(newest))
		return nil
	}
	err := e.activate(ctx, newest, p)
	if err == nil {
		for name := range newest {
			e.settle(ctx, name, nil)
		}
		return nil
	}
	beside := maps.Clone(e.active)
	beside[p.Source] = p
	if len(e.active) > 0 && beside.revision() != newest.revision() {
		if alone := e.activate(ctx, beside, p); alone != nil {
			err = alone // it fails beside what decides; what it lacks or clashes with stands there
		} else {
			err = nil
		}
	}
	e.settle(ctx, p.Source, err)
	return err
}

// activate builds a snapshot and puts it in force.
func (e *Engine) activate(ctx context.Context, ps parts, newest Part) error {
	began := time.Now()
	revision := ps.revision()
	if now := e.current.Load(); now == nil || now.revision != revision {
		snap, err := e.build(ctx, ps)
		e.opts.OnLoad(Load{Source: newest.Source, Revision: revision, Step: stepOf(err), Err: err, Took: time.Since(began)})
		if err != nil {
			return err
		}
		e.telling.Lock()
		e.current.Store(snap)
		e.lanes.anew()
		e.since = e.opts.Now()
		e.loads++
		e.telling.Unlock()
		e.opts.Log.InfoContext(ctx, "policies loaded", "revision", revision, "sources", ps.names())
	}
	e.telling.Lock()
	defer e.telling.Unlock()
	for name, p := range ps {
		before, was := e.active[name]
		if !was || before.print() != p.print() {
			if p.Decides != nil {
				p.Decides()
			}
		}
		s := e.sources[name]
		if confirmed := s.confirmed.Load(); name == newest.Source || confirmed == nil || confirmed.Before(p.Confirmed) {
			s.confirmed.Store(&p.Confirmed)
		}
	}
	e.active = ps
	return nil
}

// names are the sources and what they call their parts, for the log.
func (ps parts) names() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(ps)) {
		if name == Folder {
			name = "folder"
		} else if r := ps[name].Revision; r != "" {
			name += "@" + r
		}
		out = append(out, name)
	}
	return out
}

// settle remembers how loading a source's part went, and logs a failure once. Who opens an engine on a folder is told the
// first by Open.
func (e *Engine) settle(ctx context.Context, name string, err error) {
	e.telling.Lock()
	defer e.telling.Unlock()
	s := e.sources[name]
	if err == nil && s.refused { // what was refused is newer than what it offered
		return
	}
	if err != nil && (s.failure == nil || s.failure.Error() != err.Error()) {
		e.failures++
		s.failures[stepOf(err)]++
		switch {
		case e.current.Load() != nil:
			e.opts.Log.ErrorContext(ctx, "policies not loaded; the old ones go on deciding", "revision", e.Revision(), "source", called(name), "error", err)
		case name != Folder:
			e.opts.Log.ErrorContext(ctx, "policies not loaded; there are none to decide by", "source", called(name), "error", err)
		}
	}
	s.failure, s.pause = err, s.pause.after(err, e.opts.Now())
}

// Refuse records that a source sent what cannot be offered, because of its signature for instance.
func (e *Engine) Refuse(ctx context.Context, source string, err error) {
	if e.sources[source] == nil {
		return
	}
	e.opts.OnLoad(Load{Source: source, Step: stepOf(err), Err: err})
	e.settle(ctx, source, err)
	e.telling.Lock()
	defer e.telling.Unlock()
	e.sources[source].away, e.sources[source].refused = nil, true
}

// Away records that a source could not be reached.
func (e *Engine) Away(ctx context.Context, source string, err error) {
	e.telling.Lock()
	defer e.telling.Unlock()
	if s := e.sources[source]; s != nil {
		if s.away == nil {
			e.opts.Log.WarnContext(ctx, "source of policies is away", "source", called(source), "error", err)
		}
		s.away = err
	}
}

// Stored records whether what decides is kept for a start without its source.
func (e *Engine) Stored(source string, err error) {
	e.telling.Lock()
	defer e.telling.Unlock()
	if s := e.sources[source]; s != nil {
		s.unkept = err
	}
}

// Confirm records that a source has nothing newer than what it offered last. If that decides, its age starts anew.
func (e *Engine) Confirm(source string, at time.Time) {
	e.telling.Lock()
	defer e.telling.Unlock()
	s := e.sources[source]
	if s == nil {
		return
	}
	s.away = nil
	offered, ok := e.offered[source]
	if !ok || s.refused {
		return
	}
	offered.Confirmed = at // for when it begins to decide
	e.offered[source] = offered
	if now, decides := e.active[source]; decides && offered.print() == now.print() {
		s.confirmed.Store(&at)
	}
}
