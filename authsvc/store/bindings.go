package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

const bindingFields = `
	SELECT id, subject, role, tenant, until, reason, ticket, break_glass, granted_by, granted_at
	FROM role_bindings `

const heldThere = bindingFields + `WHERE subject = $1 AND role = $2 AND tenant = $3`

const insertBinding = `
	INSERT INTO role_bindings (id, subject, role, tenant, until, reason, ticket, break_glass, granted_by, granted_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

const countBindings = `SELECT count(*) FROM role_bindings WHERE subject = $1`

const deleteBinding = `DELETE FROM role_bindings WHERE id = $1`

// Grant adds a binding. One that has ended and is still there gives way.
func (s Roles) Grant(ctx context.Context, c role.Cause, b role.Binding, guard role.Guard, jobs ...job.Job) (uint64, error) {
	b.GrantedAt = stamp(b.GrantedAt)
	return s.change(ctx, "grant role", c, func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error) {
		g, err := graph(ctx, tx)
		if err != nil {
			return changed{}, err
		}
		if err := s.guarded(ctx, tx, c, g, guard); err != nil {
			return changed{}, err
		}
		if _, known := g[b.Role]; !known {
			return changed{}, role.ErrRoleNotFound
		}
		var n int
		if err := tx.QueryRowContext(ctx, countBindings, b.Subject).Scan(&n); err != nil {
			return changed{}, err
		}
		if n >= role.MaxBindings {
			return changed{}, role.ErrTooManyBindings
		}
		done := changed{action: role.Granted, target: b.Subject, after: bindingDocument(b)}
		was, err := scanBinding(tx.QueryRowContext(ctx, heldThere, b.Subject, b.Role, b.Tenant))
		switch {
		case errors.Is(err, role.ErrBindingNotFound):
		case err != nil:
			return changed{}, err
		case was.Alive(c.At):
			return changed{}, role.ErrBindingExists
		default:
			done.before = bindingDocument(was)
			if _, err := tx.ExecContext(ctx, deleteBinding, was.ID); err != nil {
				return changed{}, err
			}
		}
		if _, err := tx.ExecContext(ctx, insertBinding, b.ID, b.Subject, b.Role, b.Tenant, optional(b.Until), b.Reason, b.Ticket, b.BreakGlass,
			b.GrantedBy, b.GrantedAt); err != nil {
			return changed{}, err
		}
		if done.line, err = subjectLine(ctx, tx, b.Subject, revision); err != nil {
			return changed{}, err
		}
		return done, s.queue.Insert(ctx, tx, jobs...)
	})
}

const (
	accountRoles    = `SELECT roles FROM users WHERE id = $1 AND disabled_at IS NULL`
	allAccountRoles = `SELECT roles FROM users WHERE id = $1`
	setAccountRoles = `UPDATE users SET roles = $2, updated_at = $3 WHERE id = $1`
)

// Revoke takes a role away: the binding and, where it holds everywhere, what the account carries into its tokens.
func (s Roles) Revoke(ctx context.Context, c role.Cause, subject, name, tenant string, r role.Revocation, jobs ...job.Job) (uint64, bool, error) {
	ended := false
	revision, err := s.change(ctx, "revoke role", c, func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error) {
		ended = false
		done := changed{action: role.Revoked, target: subject}
		was, err := scanBinding(tx.QueryRowContext(ctx, heldThere, subject, name, tenant))
		bound := err == nil
		switch {
		case bound:
			if _, err := tx.ExecContext(ctx, deleteBinding, was.ID); err != nil {
				return changed{}, err
			}
		case !errors.Is(err, role.ErrBindingNotFound):
			return changed{}, err
		}
		if tenant == "" {
			if ended, err = s.takeFromAccount(ctx, tx, subject, name, r, jobs); err != nil {
				return changed{}, err
			}
		}
		if !bound && !ended {
			return changed{}, role.ErrBindingNotFound
		}
		if !bound {
			was = role.Binding{Subject: subject, Role: name}
		}
		before := bindingDocument(was)
		before.Account = ended
		done.before = before
		done.line, err = subjectLine(ctx, tx, subject, revision)
		return done, err
	})
	return revision, ended && err == nil, err
}

// takeFromAccount leaves tokens that are out with a role that is no longer true, so it adds the revocation too.
func (s Roles) takeFromAccount(ctx context.Context, tx *sql.Tx, id, name string, r role.Revocation, jobs []job.Job) (bool, error) {
	var roles []string
	err := tx.QueryRowContext(ctx, allAccountRoles, id).Scan(fromJSON{&roles})
	if errors.Is(err, sql.ErrNoRows) || err == nil && !slices.Contains(roles, name) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	left, err := document(orEmpty(slices.DeleteFunc(roles, func(s string) bool { return s == name })))
	if err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, setAccountRoles, id, left, stamp(r.At)); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, insertRevocation, r.ID, "sub", id, stamp(r.At), stamp(r.At), stamp(r.ExpiresAt)); err != nil {
		return false, err
	}
	return true, s.queue.Insert(ctx, tx, jobs...)
}

const deadBindings = bindingFields + `WHERE until <= $1 ORDER BY until, id LIMIT $2`

// Expire takes away what has ended by itself, oldest first.
func (s Roles) Expire(ctx context.Context, c role.Cause, limit int) (int, error) {
	n := 0
	err := s.step(ctx, "expire roles", func(ctx context.Context, tx *sql.Tx) error {
		// Before the lock, so that looking in vain changes nothing and holds up nobody.
		dead, err := collect(ctx, tx, scanBinding, deadBindings, stamp(c.At), limit)
		if err != nil {
			return err
		}
		for _, b := range dead {
			revision, err := nextRevision(ctx, tx)
			if err != nil {
				return err
			}
			still, err := scanBinding(tx.QueryRowContext(ctx, bindingFields+`WHERE id = $1`, b.ID))
			if errors.Is(err, role.ErrBindingNotFound) { // another took it meanwhile
				return errLost
			}
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, deleteBinding, b.ID); err != nil {
				return err
			}
			done := changed{action: role.Expired, target: b.Subject, before: bindingDocument(still)}
			if done.line, err = subjectLine(ctx, tx, b.Subject, revision); err != nil {
				return err
			}
			if err := s.record(ctx, tx, revision, c, done); err != nil {
				return err
			}
		}
		n = len(dead)
		return nil
	})
	if errors.Is(err, errLost) {
		return s.Expire(ctx, c, limit)
	}
	if err != nil {
		return 0, err
	}
	if n > 0 {
		s.announce()
	}
	return n, nil
}

// errLost undoes a step that another has overtaken.
var errLost = errors.New("lost a race")

// Binding finds a binding by id.
func (s Roles) Binding(ctx context.Context, id string) (b role.Binding, err error) {
	err = s.read(ctx, "find binding", func(ctx context.Context) error {
		b, err = scanBinding(s.db.QueryRowContext(ctx, bindingFields+`WHERE id = $1`, id))
		return err
	})
	return b, err
}

// Bindings answers bindings in the order of their ids.
func (s Roles) Bindings(ctx context.Context, f role.BindingFilter, p role.Page) (all []role.Binding, err error) {
	query, args := bindingFields+`WHERE id > $1`, []any{p.After}
	also := func(column, value string) {
		args = append(args, value)
		query += fmt.Sprintf(` AND %s = $%d`, column, len(args)) // a column is a constant below
	}
	if f.Subject != "" {
		also("subject", f.Subject)
	}
	if f.Role != "" {
		also("role", f.Role)
	}
	if f.Tenant != nil {
		also("tenant", *f.Tenant)
	}
	args = append(args, p.Limit)
	query += fmt.Sprintf(` ORDER BY id LIMIT $%d`, len(args))
	err = s.read(ctx, "list bindings", func(ctx context.Context) error {
		all, err = collect(ctx, s.db, scanBinding, query, args...)
		return err
	})
	return all, err
}

// Held answers what a subject holds.
func (s Roles) Held(ctx context.Context, subject string) (h role.Held, err error) {
	err = s.read(ctx, "find what a subject holds", func(ctx context.Context) error {
		h, err = heldBy(ctx, s.db, subject)
		return err
	})
	return h, err
}

const selectHeld = bindingFields + `WHERE subject = $1 ORDER BY id`

func heldBy(ctx context.Context, q querier, subject string) (h role.Held, err error) {
	if h.Bindings, err = collect(ctx, q, scanBinding, selectHeld, subject); err != nil {
		return role.Held{}, err
	}
	err = q.QueryRowContext(ctx, accountRoles, subject).Scan(fromJSON{&h.Account})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return role.Held{}, err
	}
	return h, nil
}

func scanBinding(from row) (role.Binding, error) {
	var b role.Binding
	var until sql.NullTime
	err := from.Scan(&b.ID, &b.Subject, &b.Role, &b.Tenant, &until, &b.Reason, &b.Ticket, &b.BreakGlass, &b.GrantedBy, &b.GrantedAt)
	if errors.Is(err, sql.ErrNoRows) {
		return role.Binding{}, role.ErrBindingNotFound
	}
	b.Until, b.GrantedAt = pointer(until), b.GrantedAt.UTC()
	return b, err
}

// bindingDoc is a binding in the audit.
type bindingDoc struct {
	ID         string     `json:"id,omitempty"` // none if only the account had the role
	Subject    string     `json:"subject"`
	Role       string     `json:"role"`
	Tenant     string     `json:"tenant"`
	Until      *time.Time `json:"until,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Ticket     string     `json:"ticket,omitempty"`
	BreakGlass bool       `json:"break_glass,omitempty"`
	GrantedBy  string     `json:"granted_by,omitempty"`
	GrantedAt  time.Time  `json:"granted_at,omitzero"`
	Account    bool       `json:"account,omitempty"` // the account carried the role into its tokens
}

func bindingDocument(b role.Binding) bindingDoc {
	return bindingDoc{
		ID: b.ID, Subject: b.Subject, Role: b.Role, Tenant: b.Tenant, Until: b.Until, Reason: b.Reason, Ticket: b.Ticket,
		BreakGlass: b.BreakGlass, GrantedBy: b.GrantedBy, GrantedAt: b.GrantedAt,
	}
}
