package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// Roles is the role.Store.
type Roles struct{ *DB }

const insertRole = `
	INSERT INTO roles (name, description, protected, inherits, permissions, version, created_at, updated_at)
	VALUES ($1, $2, $3, $4, $5, 1, $6, $7)`

const countRoles = `SELECT count(*) FROM roles`

// CreateRole adds a role.
func (s Roles) CreateRole(ctx context.Context, c role.Cause, r role.Role, guard role.Guard) (role.Role, uint64, error) {
	r.Version, r.CreatedAt, r.UpdatedAt = 1, stamp(r.CreatedAt), stamp(r.UpdatedAt)
	revision, err := s.change(ctx, "create role", c, func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error) {
		if err := s.checked(ctx, tx, c, guard, &r); err != nil {
			return changed{}, err
		}
		var n int
		if err := tx.QueryRowContext(ctx, countRoles).Scan(&n); err != nil {
			return changed{}, err
		}
		if n >= role.MaxRoles {
			return changed{}, role.ErrTooMany
		}
		inherits, permissions, err := roleColumns(r)
		if err != nil {
			return changed{}, err
		}
		_, err = tx.ExecContext(ctx, insertRole, r.Name, r.Description, r.Protected, inherits, permissions, r.CreatedAt, r.UpdatedAt)
		if s.dialect.violated(err, "roles_pkey") {
			return changed{}, role.ErrRoleExists
		}
		return changed{action: role.RoleCreated, target: r.Name, after: roleDocument(r), line: roleLine(r, revision)}, err
	})
	if err != nil {
		return role.Role{}, 0, err
	}
	return r, revision, nil
}

const updateRole = `
	UPDATE roles SET description = $2, protected = $3, inherits = $4, permissions = $5, version = $6, updated_at = $7
	WHERE name = $1`

// UpdateRole saves what fn makes of a role.
func (s Roles) UpdateRole(ctx context.Context, c role.Cause, name string, fn func(*role.Role) error, guard role.Guard) (role.Role, uint64, error) {
	var r role.Role
	revision, err := s.change(ctx, "update role", c, func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error) {
		was, err := scanRole(tx.QueryRowContext(ctx, selectRole, name))
		if err != nil {
			return changed{}, err
		}
		r = was
		if err := fn(&r); err != nil {
			return changed{}, err
		}
		r.Name, r.Version, r.CreatedAt, r.UpdatedAt = was.Name, was.Version+1, was.CreatedAt, stamp(r.UpdatedAt)
		if err := s.checked(ctx, tx, c, guard, &r); err != nil {
			return changed{}, err
		}
		inherits, permissions, err := roleColumns(r)
		if err != nil {
			return changed{}, err
		}
		_, err = tx.ExecContext(ctx, updateRole, name, r.Description, r.Protected, inherits, permissions, r.Version, r.UpdatedAt)
		return changed{
			action: role.RoleUpdated, target: name, before: roleDocument(was), after: roleDocument(r), line: roleLine(r, revision),
		}, err
	})
	if err != nil {
		return role.Role{}, 0, err
	}
	return r, revision, nil
}

const (
	anyBinding = `SELECT id FROM role_bindings WHERE role = $1 LIMIT 1`
	deleteRole = `DELETE FROM roles WHERE name = $1`
)

// DeleteRole deletes a role that nobody holds and no other inherits.
func (s Roles) DeleteRole(ctx context.Context, c role.Cause, name string, check func(role.Role) error, guard role.Guard) (uint64, error) {
	return s.change(ctx, "delete role", c, func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error) {
		was, err := scanRole(tx.QueryRowContext(ctx, selectRole, name))
		if err != nil {
			return changed{}, err
		}
		if err := check(was); err != nil {
			return changed{}, err
		}
		g, err := graph(ctx, tx)
		if err != nil {
			return changed{}, err
		}
		if err := s.guarded(ctx, tx, c, g, guard); err != nil {
			return changed{}, err
		}
		for _, other := range g {
			for _, parent := range other.Inherits {
				if parent == name {
					return changed{}, role.ErrRoleInUse
				}
			}
		}
		var held string
		switch err := tx.QueryRowContext(ctx, anyBinding, name).Scan(&held); {
		case err == nil:
			return changed{}, role.ErrRoleInUse
		case !errors.Is(err, sql.ErrNoRows):
			return changed{}, err
		}
		_, err = tx.ExecContext(ctx, deleteRole, name)
		return changed{
			action: role.RoleDeleted, target: name, before: roleDocument(was),
			line: feed.Line{Role: &feed.Role{Revision: revision, Name: name, Gone: true}},
		}, err
	})
}

// checked answers why r cannot be among the roles, or why the actor may not make it so.
func (s Roles) checked(ctx context.Context, tx *sql.Tx, c role.Cause, guard role.Guard, r *role.Role) error {
	g, err := graph(ctx, tx)
	if err != nil {
		return err
	}
	if err := s.guarded(ctx, tx, c, g, guard); err != nil {
		return err
	}
	return g.Check(*r)
}

func (s Roles) guarded(ctx context.Context, tx *sql.Tx, c role.Cause, g role.Graph, guard role.Guard) error {
	if guard == nil {
		return nil
	}
	held, err := heldBy(ctx, tx, c.Actor)
	if err != nil {
		return err
	}
	return guard(g, held)
}

const roleFields = `SELECT name, description, protected, inherits, permissions, version, created_at, updated_at FROM roles `

const selectRole = roleFields + `WHERE name = $1`

// Role finds a role by name.
func (s Roles) Role(ctx context.Context, name string) (r role.Role, err error) {
	err = s.read(ctx, "find role", func(ctx context.Context) error {
		r, err = scanRole(s.db.QueryRowContext(ctx, selectRole, name))
		return err
	})
	return r, err
}

const selectRoles = roleFields + `WHERE name > $1 ORDER BY name LIMIT $2`

// Roles answers roles in the order of their names.
func (s Roles) Roles(ctx context.Context, p role.Page) (all []role.Role, err error) {
	err = s.read(ctx, "list roles", func(ctx context.Context) error {
		all, err = collect(ctx, s.db, scanRole, selectRoles, p.After, p.Limit)
		return err
	})
	return all, err
}

// Graph answers the inheritance of all roles.
func (s Roles) Graph(ctx context.Context) (g role.Graph, err error) {
	err = s.read(ctx, "read the inheritance of roles", func(ctx context.Context) error {
		g, err = graph(ctx, s.db)
		return err
	})
	return g, err
}

const selectGraph = `SELECT name, inherits, protected FROM roles`

func graph(ctx context.Context, q querier) (role.Graph, error) {
	rows, err := q.QueryContext(ctx, selectGraph)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	g := role.Graph{}
	for rows.Next() {
		var name string
		var n role.Node
		if err := rows.Scan(&name, fromJSON{&n.Inherits}, &n.Protected); err != nil {
			return nil, err
		}
		g[name] = n
	}
	return g, rows.Err()
}

func scanRole(from row) (role.Role, error) {
	var r role.Role
	var permissions []permissionDoc
	err := from.Scan(&r.Name, &r.Description, &r.Protected, fromJSON{&r.Inherits}, fromJSON{&permissions}, &r.Version, &r.CreatedAt, &r.UpdatedAt)
	if errors.Is(err, sql.ErrNoRows) {
		return role.Role{}, role.ErrRoleNotFound
	}
	r.Permissions = make([]role.Permission, len(permissions))
	for i, p := range permissions {
		r.Permissions[i] = role.Permission(p)
	}
	r.CreatedAt, r.UpdatedAt = r.CreatedAt.UTC(), r.UpdatedAt.UTC()
	return r, err
}

func roleColumns(r role.Role) (inherits, permissions string, err error) {
	if inherits, err = document(orEmpty(r.Inherits)); err != nil {
		return "", "", err
	}
	permissions, err = document(permissionDocs(r.Permissions))
	return inherits, permissions, err
}

// querier is what a database and a transaction have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, q querier, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}
