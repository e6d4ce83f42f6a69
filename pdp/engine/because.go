package engine

import (
	"bytes"
	"context"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// Bounds of finding out by which rules something can come to be, in ruleid's steps. For the decision it is done while policies are put
// in force, for a document when it first denies.
const (
	decisionSteps = 300_000
	documentSteps = 30_000
)

// because knows by which rules denials came to be. They are a function of what is denied for, so that every way to a decision names the
// same ones, and nothing is done for them while rules are evaluated.
type because struct {
	origins *ruleid.Origins

	mu    sync.RWMutex
	known map[string][]string // by what was said
}

// maxBecause bounds the denials that are known; there are as many as ways to say no, but for reasons that a policy makes of its input.
const maxBecause = 1024

func (d *documents) becauseOf(ctx context.Context) *because {
	entry := ast.MustParseRef(Entrypoint)
	p := ruleid.Policy{Compiler: d.compiler, Data: d.data, Names: d.names, Steps: decisionSteps, Breathe: func() { pace.Breathe(ctx) }}
	return &because{origins: originsOf(p, entry, "need", "obligations"), known: map[string][]string{}}
}

// originsOf knows nothing where finding out fails: it is no reason not to decide.
func originsOf(p ruleid.Policy, ref ast.Ref, except ...string) (o *ruleid.Origins) {
	defer func() {
		if recover() != nil {
			o = &ruleid.Origins{}
		}
	}()
	return p.Origins(ref, except...)
}

// tell notes in a denial by which rules it came to be.
func (b *because) tell(a *answer) {
	if b == nil || a.allow {
		return
	}
	about := a.about
	room := [256]byte{}
	key := append(room[:0], '-', '-', '-')
	if about.Need != nil {
		key[0] = 'n'
	}
	if about.Obligations != nil {
		key[1] = 'o'
	}
	if about.Reasons != nil {
		key[2] = 'r'
	}
	for _, r := range about.Reasons {
		key = appendText(key, r)
	}
	b.mu.RLock()
	ids, ok := b.known[string(key)]
	b.mu.RUnlock()
	if !ok {
		ids = b.origins.Of(decisionLike(about))
		b.mu.Lock()
		if len(b.known) < maxBecause && len(key) <= maxKey {
			b.known[string(key)] = ids
		}
		b.mu.Unlock()
	}
	about.Rules = ids
}

// decisionLike is a denial as the policy says it, but for what need and obligations are.
func decisionLike(about *authzen.ResponseContext) map[string]any {
	d := map[string]any{"allow": false}
	if about.Need != nil {
		d["need"] = nil
	}
	if about.Obligations != nil {
		d["obligations"] = nil
	}
	if about.Reasons != nil {
		all := make([]any, len(about.Reasons))
		for i, r := range about.Reasons {
			all[i] = r
		}
		d["reasons"] = all
	}
	return d
}

// origins finds out by which rules a document comes to be, when it is first asked.
func (d *documents) origins(ref ast.Ref) func() *ruleid.Origins {
	return sync.OnceValue(func() *ruleid.Origins {
		return originsOf(ruleid.Policy{Compiler: d.compiler, Data: d.data, Names: d.names, Steps: documentSteps}, ref)
	})
}

// refuses reports whether a document is a denial, to those who ask for yes or no.
func refuses(v any) bool {
	if o, ok := v.(map[string]any); ok {
		if v = o["allow"]; v == nil {
			v = o["allowed"]
		}
	}
	allow, ok := v.(bool)
	return ok && !allow
}

// names are those of all rules.
func (s source) names() ruleid.Names {
	all := ruleid.Names{}
	for file, m := range s.modules {
		if own := s.named[file]; own != nil {
			m = own
		}
		all.Add(m)
	}
	return all
}

// withIDs parses a module with its annotations if rules may have ids in them, which takes longer. What is wrong with annotations is no
// reason not to decide by the rules.
func withIDs(file string, text []byte) *ast.Module {
	if !bytes.Contains(text, []byte("METADATA")) || !bytes.Contains(text, []byte("custom:")) {
		return nil
	}
	m, err := ast.ParseModuleWithOpts(file, string(text), ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: Capabilities(), ProcessAnnotation: true})
	if err != nil {
		return nil
	}
	return m
}
