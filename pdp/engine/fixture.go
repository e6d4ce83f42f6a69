package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

// fixture is the directory that the policies' own data.directory makes: what their tests and cases are about. Decisions never see it
// where there is a directory. Without any it knows nobody.
func fixture(data map[string]any) (*directory.View, error) {
	made, _ := data["directory"].(map[string]any)
	own := map[string]any{"subjects": map[string]any{}, "roles": map[string]any{}}
	for name := range own {
		if v, ok := made[name]; ok {
			own[name] = v
		}
	}
	text, err := json.Marshal(own)
	if err != nil {
		return nil, fmt.Errorf("data.directory: %w", err)
	}
	v, err := directory.ReadData(bytes.NewReader(text), directory.Limits{})
	if err != nil {
		return nil, fmt.Errorf("data.directory is not written as a directory is: %w", err)
	}
	return v, nil
}

// seeing has evaluations see a view.
func seeing(ctx context.Context, v *directory.View, now time.Time) context.Context {
	return context.WithValue(ctx, consultedKey{}, &consulted{view: v, now: now})
}

// Known is a directory for the tools of those who write policies: what rules read as data.directory. Nil is none.
type Known struct {
	view *directory.View
}

// KnownOf answers what rules read as data.directory: v, or without it what the policy's own data says there. It is nil where no rule
// reads any. The compiler has compiled the rules.
func KnownOf(c *ast.Compiler, data map[string]any, v *directory.View) (*Known, error) {
	reads := false
	for _, m := range c.Modules {
		ast.WalkRefs(m, func(r ast.Ref) bool {
			reads = reads || r.HasPrefix(directoryRef)
			return reads
		})
	}
	if !reads {
		return nil, nil //nolint:nilnil // see above
	}
	if v == nil {
		var err error
		if v, err = fixture(data); err != nil {
			return nil, err
		}
	}
	return &Known{v}, nil
}

// Store is a store of data in which data.directory is what is known, and which knows it at the moment of the context (At). It
// answers what rules would go through that can only be read by keys, as "file:line: what", one a line.
func (k *Known) Store(c *ast.Compiler, data map[string]any) (storage.Store, error) {
	s, _, err := storeOf(data, math.MaxInt, directory.Fixed(k.view, directory.Options{}))
	return s, errors.Join(err, scans(c, s))
}

// At has evaluations see what is known at a moment: bindings that have ended by then do not count.
func (k *Known) At(ctx context.Context, now time.Time) context.Context {
	if k == nil {
		return ctx
	}
	return seeing(ctx, k.view, now)
}

// View is the directory itself.
func (k *Known) View() *directory.View { return k.view }

// SubjectOf is a subject as a decision point with this directory sees it at a moment.
func SubjectOf(d *directory.Directory, s authzen.Subject, now time.Time) authzen.Subject {
	s.Properties, _ = propertiesOf(d, d.View(), s, now)
	return s
}
