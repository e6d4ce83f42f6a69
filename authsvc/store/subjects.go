package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

const subjectFields = `SELECT id, tenant, group_names, attributes, version, created_at, updated_at FROM subjects `

const selectSubject = subjectFields + `WHERE id = $1`

const putSubject = `
	INSERT INTO subjects (id, tenant, group_names, attributes, version, created_at, updated_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (id) DO UPDATE SET tenant = $2, group_names = $3, attributes = $4, version = $5, updated_at = $7`

// SetSubject saves what fn makes of a subject.
func (s Roles) SetSubject(ctx context.Context, c role.Cause, id string, fn func(*role.Subject) error) (role.Subject, uint64, error) {
	var n role.Subject
	revision, err := s.change(ctx, "set subject", c, func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error) {
		done := changed{action: role.SubjectSet, target: id}
		was, err := scanSubject(tx.QueryRowContext(ctx, selectSubject, id))
		switch {
		case errors.Is(err, role.ErrSubjectNotFound):
			was = role.Subject{ID: id}
		case err != nil:
			return changed{}, err
		default:
			done.before = subjectDocument(was)
		}
		n = was
		if err := fn(&n); err != nil {
			return changed{}, err
		}
		n.ID, n.Version, n.UpdatedAt = id, was.Version+1, stamp(n.UpdatedAt)
		n.CreatedAt = stamp(n.CreatedAt)
		if was.Version > 0 {
			n.CreatedAt = was.CreatedAt
		}
		n.Groups = orEmpty(n.Groups)
		if n.Attributes == nil {
			n.Attributes = map[string]any{}
		}
		groups, err := document(n.Groups)
		if err != nil {
			return changed{}, err
		}
		attributes, err := document(n.Attributes)
		if err != nil {
			return changed{}, err
		}
		if _, err := tx.ExecContext(ctx, putSubject, id, n.Tenant, groups, attributes, n.Version, n.CreatedAt, n.UpdatedAt); err != nil {
			return changed{}, err
		}
		done.after = subjectDocument(n)
		done.line, err = subjectLine(ctx, tx, id, revision)
		return done, err
	})
	if err != nil {
		return role.Subject{}, 0, err
	}
	return n, revision, nil
}

const (
	anyHeld       = `SELECT id FROM role_bindings WHERE subject = $1 LIMIT 1`
	deleteSubject = `DELETE FROM subjects WHERE id = $1`
)

// DeleteSubject forgets a subject that holds no roles.
func (s Roles) DeleteSubject(ctx context.Context, c role.Cause, id string, check func(role.Subject) error) (uint64, error) {
	return s.change(ctx, "delete subject", c, func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error) {
		was, err := scanSubject(tx.QueryRowContext(ctx, selectSubject, id))
		if err != nil {
			return changed{}, err
		}
		if err := check(was); err != nil {
			return changed{}, err
		}
		var held string
		switch err := tx.QueryRowContext(ctx, anyHeld, id).Scan(&held); {
		case err == nil:
			return changed{}, role.ErrSubjectInUse
		case !errors.Is(err, sql.ErrNoRows):
			return changed{}, err
		}
		if _, err := tx.ExecContext(ctx, deleteSubject, id); err != nil {
			return changed{}, err
		}
		line, err := subjectLine(ctx, tx, id, revision)
		return changed{action: role.SubjectDeleted, target: id, before: subjectDocument(was), line: line}, err
	})
}

// Subject finds what is known of a subject.
func (s Roles) Subject(ctx context.Context, id string) (n role.Subject, err error) {
	err = s.read(ctx, "find subject", func(ctx context.Context) error {
		n, err = scanSubject(s.db.QueryRowContext(ctx, selectSubject, id))
		return err
	})
	return n, err
}

const selectSubjects = subjectFields + `WHERE id > $1 ORDER BY id LIMIT $2`

// Subjects answers subjects in the order of their ids.
func (s Roles) Subjects(ctx context.Context, p role.Page) (all []role.Subject, err error) {
	err = s.read(ctx, "list subjects", func(ctx context.Context) error {
		all, err = collect(ctx, s.db, scanSubject, selectSubjects, p.After, p.Limit)
		return err
	})
	return all, err
}

func scanSubject(from row) (role.Subject, error) {
	var n role.Subject
	err := from.Scan(&n.ID, &n.Tenant, fromJSON{&n.Groups}, fromJSON{&n.Attributes}, &n.Version, &n.CreatedAt, &n.UpdatedAt)
	if errors.Is(err, sql.ErrNoRows) {
		return role.Subject{}, role.ErrSubjectNotFound
	}
	n.CreatedAt, n.UpdatedAt = n.CreatedAt.UTC(), n.UpdatedAt.UTC()
	return n, err
}

// subjectDoc is a subject in the audit.
type subjectDoc struct {
	ID         string         `json:"id"`
	Tenant     string         `json:"tenant"`
	Groups     []string       `json:"groups"`
	Attributes map[string]any `json:"attributes"`
	Version    int64          `json:"version"`
}

func subjectDocument(n role.Subject) subjectDoc {
	return subjectDoc{ID: n.ID, Tenant: n.Tenant, Groups: n.Groups, Attributes: n.Attributes, Version: n.Version}
}
