package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

// Where no rule of gatehouse.search says what there is, subjects are those of the directory, and actions those whose names the policy
// speaks of. Each that is found was decided on by its own name. But not every subject that there is is: those are left out that are
// alike, to the rules, to one that was denied (naming). What there is of resources nobody but a rule can say.

// A name that nothing holds stands for all names that the policy does not speak of.
const stranger = "gatehouse:a stranger"

// names are what a search needs to know of a policy.
type names struct {
	once            sync.Once
	subject, action naming
	texts           map[string]bool // that the policy holds
	whole           bool            // these are all
}

func (s *snapshot) known() *names {
	n := &s.names
	n.once.Do(func() {
		c := s.documents.compiler
		n.subject, n.action = namingOf(c, "subject", "id"), namingOf(c, "action", "name")
		n.texts, n.whole = textsOf(c, s.documents.data)
	})
	return n
}

// knows reports whether such a search can be made without a rule.
func (e *Engine) knows(kind authzen.Kind) bool {
	return kind == authzen.Actions || kind == authzen.Subjects && e.opts.Directory != nil
}

// nameSearch is one search by names.
type nameSearch struct {
	e      *Engine
	snap   *snapshot
	q      authzen.Search
	found  authzen.Found
	looked map[string]any
	texts  map[string]bool // of the request, and of what was looked up for it
	asked  int
}

// searchNames answers a page of a search for which there is no rule. Candidates come in the order of their names, so that pages
// follow each other whatever changes in between.
func (e *Engine) searchNames(ctx context.Context, snap *snapshot, q authzen.Search, found authzen.Found) (authzen.Found, error) {
	s := &nameSearch{e: e, snap: snap, q: q, found: found, texts: map[string]bool{}}
	s.found.Last = q.After
	var err error
	if s.looked, err = snap.properties(ctx, q.Request.Resource, snap.looksUp(q.Request.Resource)); err != nil {
		return found, errFailed.Because(err)
	}
	r := q.Request
	for _, v := range []any{r.Subject.ID, r.Subject.Type, r.Subject.Properties, r.Resource.ID, r.Resource.Type, r.Resource.Properties, r.Action.Name, r.Action.Properties, r.Context, s.looked} {
		collect(s.texts, v)
	}
	if d := e.opts.Directory; d != nil && snap.looksAt.directory {
		for name, role := range d.View().Roles().All() {
			s.texts[name] = true
			collect(s.texts, roleOf(role))
		}
	}
	var candidates []string
	var more bool
	if q.For == authzen.Actions {
		candidates, err = s.actions(ctx)
	} else {
		candidates, more, err = s.subjects(ctx)
	}
	if err != nil {
		return found, err
	}
	return s.page(ctx, candidates, more)
}

// page decides on one candidate after the other.
func (s *nameSearch) page(ctx context.Context, candidates []string, more bool) (authzen.Found, error) {
	i := 0
	for ; i < len(candidates) && len(s.found.Results) < s.q.Limit && s.asked < maxAsked; i++ {
		allow, _, err := s.decide(ctx, candidates[i])
		if ctx.Err() != nil {
			if i == 0 {
				return s.found, errFailed.Because(errors.New("not one candidate was decided on in time"))
			}
			break // the next page begins with it
		}
		switch {
		case err != nil:
			s.found.Undecided++
		case allow:
			s.found.Results = append(s.found.Results, s.entity(candidates[i]))
		}
		s.found.Last = candidates[i]
	}
	if s.found.Undecided > 0 {
		s.because(authzen.ReasonUndecided)
	}
	s.found.More, s.found.Complete = more || i < len(candidates), len(s.found.Reasons) == 0
	return s.found, nil
}

func (s *nameSearch) because(reason string) {
	if !slices.Contains(s.found.Reasons, reason) {
		s.found.Reasons = append(s.found.Reasons, reason)
	}
}

func (s *nameSearch) entity(name string) authzen.Entity {
	if s.q.For == authzen.Actions {
		return authzen.Entity{Name: name}
	}
	return authzen.Entity{Type: s.q.Request.Subject.Type, ID: name}
}

// request is the question about one candidate. A subject has what the request says of subjects: its tenant, its claims; the directory
// knows better what it knows.
func (s *nameSearch) request(name string) authzen.Request {
	r := s.q.Request
	if s.q.For == authzen.Actions {
		r.Action = authzen.Action{Name: name}
		return r
	}
	r.Subject.ID = name
	if d := s.e.opts.Directory; d.ByIssuer() {
		claims, _ := r.Subject.Properties["claims"].(map[string]any)
		if claims = maps.Clone(claims); claims == nil {
			claims = map[string]any{}
		}
		claims["iss"] = d.Issuer()
		properties := maps.Clone(r.Subject.Properties)
		if properties == nil {
			properties = map[string]any{}
		}
		properties["claims"], r.Subject.Properties = claims, properties
	}
	return r
}

func (s *nameSearch) decide(ctx context.Context, name string) (allow bool, read *readings, err error) {
	s.asked++
	return s.e.verdict(ctx, s.snap, s.request(name), s.looked)
}

// strangers reports whether a name of which nothing is known is denied; that is so for all of them only where the rules do nothing
// but compare names, and all that they compare them with is known.
func (s *nameSearch) strangers(ctx context.Context, n naming) (denied, alike bool) {
	allow, read, err := s.decide(ctx, stranger)
	alike = n.alike && s.snap.known().whole
	if read != nil {
		alike = alike && !read.many
		for _, one := range read.subjects {
			s.texts[one.id] = true
			collect(s.texts, one.facts)
		}
	}
	return err == nil && !allow, alike
}

// actions are the names that the policy, the directory and the request speak of.
func (s *nameSearch) actions(ctx context.Context) ([]string, error) {
	n := s.snap.known()
	denied, alike := s.strangers(ctx, n.action)
	r := s.q.Request
	if _, err := s.e.consult(&s.snap.looksAt, &r, s.e.opts.Now()); err != nil {
		return nil, err
	}
	collect(s.texts, r.Subject.Properties)
	all := map[string]bool{}
	if denied {
		maps.Copy(all, n.texts)
		maps.Copy(all, s.texts)
	} else { // whatever it is called: then only what it is compared with is an action for sure
		maps.Copy(all, n.action.beside)
	}
	if !denied || !alike || slices.ContainsFunc(s.snap.looksAt.paths, func(p []string) bool { return p[0] == "action" && second(p) != "name" }) {
		s.because(authzen.ReasonPartial)
	}
	delete(all, "")
	maps.DeleteFunc(all, func(name string, _ bool) bool { return name <= s.q.After })
	return slices.Sorted(maps.Keys(all)), nil
}

// subjects are those of the directory, the first of them behind the page before; more says that there are others.
func (s *nameSearch) subjects(ctx context.Context) (ids []string, more bool, err error) {
	d := s.e.opts.Directory
	if !slices.Contains(d.Types(), s.q.Request.Subject.Type) {
		s.because(authzen.ReasonUnknown)
		return nil, false, nil
	}
	n, looks := s.snap.known(), s.snap.looksAt
	denied, alike := s.strangers(ctx, n.subject)
	if !d.ForgetsUnknown() || !denied || !alike {
		s.because(authzen.ReasonOutside)
	}
	if slices.ContainsFunc(looks.paths, func(p []string) bool {
		return p[0] == "subject" && second(p) != "id" && second(p) != "type" && !slices.Contains(subjectFacts, second(p))
	}) {
		s.because(authzen.ReasonToken)
	}
	k := &classes{nameSearch: s, alike: alike, known: map[string]*class{}}
	k.named = looks.directory || slices.ContainsFunc(looks.paths, func(p []string) bool { return p[0] == "subject" && (second(p) == "" || second(p) == "id") })
	first := firstNames{most: maxAsked}
	if k.tell() {
		first.most = min(2*s.q.Limit+1000, maxAsked)
	}
	tenant, _ := s.q.Request.Subject.Properties["tenant"].(string)
	view, i := d.View(), 0
	for id, entry := range view.All() {
		if i++; i%1024 == 0 && ctx.Err() != nil {
			return nil, false, errFailed.Because(errors.New("the directory was not gone through in time"))
		}
		if looks.facts && tenant == "" && entry.Floats() {
			s.because(authzen.ReasonToken)
		}
		if id > s.q.After && first.wants(id) && k.mayBe(ctx, view, id) {
			first.add(id)
		}
	}
	if denied && alike { // whom the directory does not know, but somebody names, is not alike
		for _, texts := range []map[string]bool{n.texts, s.texts} {
			for id := range texts {
				if _, known := view.Find(id); !known && id > s.q.After && first.wants(id) && k.mayBe(ctx, view, id) {
					first.add(id)
				}
			}
		}
	}
	ids, more = first.sorted()
	return ids, more, nil
}

// firstNames keeps the first of many names.
type firstNames struct {
	most int
	all  []string
	last string // the last of most, once there are more
	over bool
}

func (f *firstNames) wants(name string) bool {
	if f.over && name > f.last {
		return false
	}
	return true
}

func (f *firstNames) add(name string) {
	if f.all = append(f.all, name); len(f.all) >= 2*f.most+16 {
		f.cut()
	}
}

func (f *firstNames) cut() {
	slices.Sort(f.all)
	f.all = slices.Compact(f.all)
	if len(f.all) > f.most {
		f.all, f.over = f.all[:f.most], true
		if f.most > 0 {
			f.last = f.all[f.most-1]
		}
	}
}

func (f *firstNames) sorted() (names []string, more bool) {
	f.cut()
	return f.all, f.over
}

// classes tells subjects apart by what the rules can see of them.
type classes struct {
	*nameSearch
	alike bool // rules only compare ids
	named bool // they look at ids at all
	known map[string]*class
	buf   []byte
}

// class is what is known of subjects that are alike.
type class struct {
	may    bool            // the one that was asked about is permitted, or could not be decided on
	others map[string]bool // texts that the rules saw of others when they were asked: who is called so is not alike
}

// tell reports whether subjects can be told apart without deciding on each.
func (k *classes) tell() bool { return k.alike || !k.named }

// mayBe reports whether a subject has to be decided on: it is not alike to one that was denied.
func (k *classes) mayBe(ctx context.Context, view *directory.View, id string) bool {
	if !k.tell() {
		return true
	}
	seen := consulted{view: view, now: k.e.opts.Now()}
	r := k.request(id)
	r.Subject.Properties, _ = propertiesOf(k.e.opts.Directory, view, r.Subject, seen.now)
	if k.named {
		own := map[string]bool{}
		if k.snap.looksAt.directory {
			collect(own, seen.subject(id))
		}
		if collect(own, r.Subject.Properties); own[id] || k.texts[id] || k.snap.known().texts[id] {
			return true
		}
		r.Subject.ID = ""
	}
	key, ok := k.snap.looksAt.key(k.buf[:0], &r, k.looked, seen.now)
	if k.snap.looksAt.directory {
		var some bool
		key, some = appendAny(key, seen.subject(id))
		ok = ok && some
	}
	if k.buf = key; !ok {
		return true
	}
	c := k.known[string(key)]
	if c == nil {
		if k.asked >= maxAsked/2 { // too many kinds of subjects; the rest of the questions is for the page
			return true
		}
		c = k.ask(ctx, id)
		k.known[string(key)] = c
	}
	return c.may || c.others[id]
}

// ask decides on the first of a class.
func (k *classes) ask(ctx context.Context, id string) *class {
	allow, read, err := k.decide(ctx, id)
	c := &class{may: allow || err != nil || read != nil && read.many}
	if read != nil {
		c.others = map[string]bool{}
		for _, s := range read.subjects {
			if s.id != id {
				c.others[s.id] = true
				collect(c.others, s.facts)
			}
		}
	}
	return c
}
