package engine

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

// DefaultLarge is how many members an object of policy data may have to be kept as OPA does. A larger one is a relation: it is kept in
// a tenth of the room, policies read it by a key, and none may go through all of it.
const DefaultLarge = 20_000

// node is a place in data at or below which something is not OPA's to keep. It never changes.
type node struct {
	below map[string]*node
	of    member // nil above one
}

// member answers what stands under a name; nil if nothing does. Whole answers all of it, nil if it is too large.
type member interface {
	member(t *transaction, name string) ast.Value
	whole(t *transaction) ast.Value
	many() string // what it is, in an error
}

// store keeps large objects of policy data, and the directory, outside of OPA's document.
type store struct {
	storage.Store // the rest; nothing writes to it
	root          *node
	directory     *directory.Directory
	all           map[string]any // all data, where relations may be read whole; else nil
}

// over is data with what nodes keep in its place: a *relation, which has Member for those who look things up in Go, or something of
// which they know nothing, and which only the store can read.
func (n *node) over(rest map[string]any) map[string]any {
	all := maps.Clone(rest)
	if all == nil {
		all = map[string]any{}
	}
	for name, child := range n.below {
		if child.of != nil {
			all[name] = child.of
			continue
		}
		below, _ := rest[name].(map[string]any)
		all[name] = child.over(below)
	}
	return all
}

// storeOf answers a store over data, and what it holds as node.over does. With a directory, data.directory is that; what data has
// there is for tests. The options are for OPA's store of the rest.
func storeOf(data map[string]any, large int, d *directory.Directory, opts ...inmem.Opt) (s storage.Store, tree map[string]any, err error) {
	root := &node{}
	rest, err := root.relate(data, large, "")
	if err != nil {
		return nil, nil, err
	}
	if d != nil {
		if rest["directory"] != nil {
			rest = maps.Clone(rest)
			delete(rest, "directory")
		}
		root.put("directory", &node{below: map[string]*node{"subjects": {of: subjects{}}, "roles": {of: &roles{}}}})
	}
	plain := inmem.NewFromObjectWithOpts(rest, append(opts, inmem.OptRoundTripOnWrite(false))...)
	if root.below == nil {
		return plain, rest, nil
	}
	return &store{Store: plain, root: root, directory: d}, root.over(rest), nil
}

// testStoreOf answers a store over all data as it is to tests, which may read all of anything.
func testStoreOf(data map[string]any) (storage.Store, error) {
	made, _, err := storeOf(data, never, nil)
	if own, ok := made.(*store); ok {
		own.all = data
	}
	return made, err
}

// whole answers all that stands at a place above a relation, or at one.
func (s *store) whole(path storage.Path) any {
	var v any = s.all
	for _, name := range path {
		v = objectOf(v)[name]
	}
	return expanded(v)
}

func (n *node) put(name string, child *node) {
	if n.below == nil {
		n.below = map[string]*node{}
	}
	n.below[name] = child
}

// relate takes large objects out of data, which stays as it is, and answers the rest.
func (n *node) relate(data map[string]any, large int, at string) (map[string]any, error) {
	rest, own := data, false
	for name, v := range data {
		child := &node{}
		var smaller map[string]any
		switch v := v.(type) {
		case *relation:
			child.of = v
		case map[string]any:
			if len(v) > large {
				t, err := directory.NewTable(v)
				if err != nil {
					return nil, fmt.Errorf("data%s/%s: %w", at, name, err)
				}
				child.of = newRelation(t)
				break
			}
			var err error
			if smaller, err = child.relate(v, large, at+"/"+name); err != nil {
				return nil, err
			}
		}
		if child.of == nil && child.below == nil {
			continue
		}
		n.put(name, child)
		if !own {
			rest, own = maps.Clone(data), true
		}
		if delete(rest, name); smaller != nil {
			rest[name] = smaller
		}
	}
	return rest, nil
}

// find follows a path as far as there are nodes.
func (n *node) find(path storage.Path) (at *node, rest storage.Path) {
	for i, name := range path {
		if n.of != nil {
			return n, path[i:]
		}
		next, ok := n.below[name]
		if !ok {
			return nil, nil
		}
		n = next
	}
	return n, nil
}

// transaction reads one view of the directory.
type transaction struct {
	storage.Transaction
	seen *consulted
}

// NewTransaction implements storage.Store. Who reads for a decision sees the view that the decision does.
func (s *store) NewTransaction(ctx context.Context, params ...storage.TransactionParams) (storage.Transaction, error) {
	inner, err := s.Store.NewTransaction(ctx, params...)
	if err != nil || s.directory == nil {
		return inner, err
	}
	return s.seenBy(ctx, inner), nil
}

// seenBy is a transaction that sees the directory as the decision of a context does.
func (s *store) seenBy(ctx context.Context, inner storage.Transaction) *transaction {
	t := &transaction{Transaction: inner}
	if t.seen, _ = ctx.Value(consultedKey{}).(*consulted); t.seen == nil {
		t.seen = &consulted{view: s.directory.View(), now: time.Now()}
	}
	return t
}

func inner(t storage.Transaction) storage.Transaction {
	if own, ok := t.(*transaction); ok {
		return own.Transaction
	}
	return t
}

// Read implements storage.Store.
func (s *store) Read(ctx context.Context, t storage.Transaction, path storage.Path) (any, error) {
	at, rest := s.root.find(path)
	if at == nil {
		return s.Store.Read(ctx, inner(t), path)
	}
	if s.all != nil && (at.of == nil || len(rest) == 0) {
		return s.whole(path), nil
	}
	own, _ := t.(*transaction)
	if at.of == nil {
		return nil, tooMuch("/"+strings.Join(path, "/"), "it holds what cannot be read whole")
	}
	if len(rest) == 0 {
		if v := at.of.whole(own); v != nil {
			return v, nil
		}
		return nil, tooMuch("/"+strings.Join(path, "/"), at.of.many())
	}
	v := at.of.member(own, rest[0])
	for _, name := range rest[1:] {
		if v == nil {
			break
		}
		v = step(v, name)
	}
	if v == nil {
		return nil, notFound
	}
	return v, nil
}

var notFound = &storage.Error{Code: storage.NotFoundErr, Message: "document does not exist"}

func tooMuch(path, what string) error {
	return &storage.Error{Code: storage.InternalErr, Message: "data" + path + " is read by a key, never whole: " + what}
}

// step goes into a value by a name, or by a place in an array.
func step(v ast.Value, name string) ast.Value {
	key := ast.StringTerm(name)
	if _, ok := v.(*ast.Array); ok {
		key = refOf([]string{name})[1]
	}
	found, err := v.Find(ast.Ref{key})
	if err != nil {
		return nil
	}
	return found
}

// NonEmpty implements storage.NonEmptyer, by which the compiler finds rules in the place of data.
func (s *store) NonEmpty(ctx context.Context, t storage.Transaction) func([]string) (bool, error) {
	plain := storage.NonEmpty(ctx, s.Store, inner(t))
	return func(path []string) (bool, error) {
		if at, _ := s.root.find(path); at != nil {
			return true, nil
		}
		return plain(path)
	}
}

// Commit implements storage.Store.
func (s *store) Commit(ctx context.Context, t storage.Transaction) error {
	return s.Store.Commit(ctx, inner(t))
}

// Abort implements storage.Store.
func (s *store) Abort(ctx context.Context, t storage.Transaction) { s.Store.Abort(ctx, inner(t)) }

// ListPolicies implements storage.Store.
func (s *store) ListPolicies(ctx context.Context, t storage.Transaction) ([]string, error) {
	return s.Store.ListPolicies(ctx, inner(t))
}
