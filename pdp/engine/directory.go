package engine

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

// subjectFacts are the members of input.subject that a directory knows better than a request.
var subjectFacts = []string{"roles", "groups", "tenant", "attributes"}

// directoryRef is where policies read the directory itself.
var directoryRef = ast.MustParseRef("data.directory")

// maxDirectoryAge is how long an enforcement point may go on with an answer that a directory had a part in. A change is here
// within a second, and so felt everywhere within two; an answer of another revision makes it felt at once.
const maxDirectoryAge = time.Second

var (
	errNoDirectory    = fault.New(fault.Unavailable, "Nothing is known of subjects yet.").Named("not_loaded")
	errDirectoryStale = fault.New(fault.Unavailable, "The directory is too old to decide by.").Named(directory.Stale)
)

// consulted is what a directory said for one decision, which sees one view of it from its beginning to its end.
type consulted struct {
	view  *directory.View // nil without a directory
	now   time.Time
	until time.Time // when what was said changes by itself; zero is never
	fed   bool      // something was said that the decision can depend on

	reads *readings // of data.directory; nil: nobody wants to know
}

// consult puts into the request what the directory knows of its subject, as far as rules look at it. The request's maps are shared and stay as they are.
func (e *Engine) consult(looks *looksAt, r *authzen.Request, now time.Time) (consulted, error) {
	d := e.opts.Directory
	if d == nil {
		return consulted{}, nil
	}
	c := consulted{view: d.View(), now: now, fed: looks.facts || looks.directory}
	if c.view == nil {
		return c, errNoDirectory
	}
	if looks.facts {
		r.Subject.Properties, c.until = propertiesOf(d, c.view, r.Subject, now)
	}
	return c, nil
}

// propertiesOf are a subject's with what the directory knows in the place of what the request says. Who is known there holds no
// other roles, and is of no other group or tenant, than those.
func propertiesOf(d *directory.Directory, v *directory.View, s authzen.Subject, now time.Time) (properties map[string]any, until time.Time) {
	entry, known := entryOf(d, v, s)
	if !known && !d.ForgetsUnknown() {
		return s.Properties, time.Time{}
	}
	properties = make(map[string]any, len(s.Properties)+len(subjectFacts))
	maps.Copy(properties, s.Properties)
	for _, name := range subjectFacts {
		delete(properties, name)
	}
	if !known {
		return properties, time.Time{}
	}
	claimed, _ := s.Properties["tenant"].(string)
	facts := entry.Facts(claimed, now)
	properties["roles"], properties["groups"], properties["attributes"] = listOf(facts.Roles), listOf(facts.Groups), entry.Attributes()
	if facts.Tenant != "" {
		properties["tenant"] = facts.Tenant
	}
	return properties, facts.Until
}

func entryOf(d *directory.Directory, v *directory.View, s authzen.Subject) (e directory.Entry, known bool) {
	issuer := ""
	if d.ByIssuer() {
		claims, _ := s.Properties["claims"].(map[string]any)
		issuer, _ = claims["iss"].(string)
	}
	if !d.About(s.Type, issuer) {
		return e, false
	}
	return v.Find(s.ID)
}

// byToken reports whether a token could say of a subject what rules look at and neither the directory nor the request says: the roles
// of somebody unknown, the tenant of somebody who has several.
func byToken(d *directory.Directory, v *directory.View, l looksAt, s authzen.Subject) bool {
	if !l.facts {
		return false
	}
	if entry, known := entryOf(d, v, s); known {
		tenant, _ := s.Properties["tenant"].(string)
		return tenant == "" && entry.Floats()
	}
	return !d.ForgetsUnknown() && slices.ContainsFunc(subjectFacts, func(name string) bool {
		_, said := s.Properties[name]
		return !said && slices.ContainsFunc(l.paths, func(p []string) bool { return p[0] == "subject" && (len(p) == 1 || p[1] == name) })
	})
}

// listOf keeps an empty list from becoming null.
func listOf(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// word is the revision for the answer.
func (c consulted) word() string {
	if c.view == nil {
		return ""
	}
	return c.view.Word()
}

// bound makes what is said of an answer that a directory had a part in hold for no longer, and for no others, than it does. It
// answers false if it holds for none.
func (c consulted) bound(may *authzen.Cache, l *looksAt, unlooked bool) bool {
	if !c.fed {
		return true
	}
	age := min(time.Duration(may.TTL)*time.Millisecond, maxDirectoryAge)
	if !c.until.IsZero() {
		age = min(age, c.until.Sub(c.now))
	}
	may.TTL = int(age.Milliseconds())
	switch {
	case l.facts && unlooked:
		may.Vary = l.unlookedFacts
	case l.facts:
		may.Vary = l.varyFacts
	}
	return may.TTL > 0
}

// varyFacts are the parts of a request by which the directory finds what it knows, beside those of vary.
func varyFacts(vary []string) []string {
	return with(vary, "/subject/id", "/subject/properties/claims/iss", "/subject/properties/tenant", "/subject/type")
}

// readsFacts reports whether a path into the input leads to, or through, what a directory knows.
func readsFacts(path []string) bool {
	return path[0] == "subject" && (len(path) == 1 || slices.Contains(subjectFacts, path[1]))
}

// readsDirectory reports whether a reference leads to, or through, data.directory.
func readsDirectory(ref ast.Ref) bool {
	return ref.HasPrefix(directoryRef) || directoryRef.HasPrefix(ref)
}

type consultedKey struct{}

// in tells the store which view this decision sees.
func (c *consulted) in(ctx context.Context, l *looksAt) context.Context {
	if c.view == nil || !l.directory {
		return ctx
	}
	return context.WithValue(ctx, consultedKey{}, c)
}

// directoryStale reports whether everything is to be denied because the directory is too old.
func (e *Engine) directoryStale(now time.Time) bool {
	if e.opts.Directory == nil {
		return false
	}
	_, deny := e.opts.Directory.Stale(now)
	return deny
}

// DirectoryStats is how the directory is; false without one.
func (e *Engine) DirectoryStats() (directory.Stats, bool) {
	if e.opts.Directory == nil {
		return directory.Stats{}, false
	}
	return e.opts.Directory.Stats(), true
}
