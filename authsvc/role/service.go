package role

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// The refusals of the service.
var (
	ErrNotAdmin  = fault.New(fault.Forbidden, "Only who holds the role admin, without a tenant, administers roles.").Named("admin_required")
	ErrOwn       = fault.New(fault.Forbidden, "Nobody grants a role to themselves, or changes what they hold themselves; ask another admin.").Named("own_privilege")
	ErrProtected = fault.New(fault.Forbidden, "A protected role is granted by those who hold it, and changed by the operator.").Named("role_protected")
	ErrNoMatch   = fault.New(fault.Conflict, "It has been changed meanwhile: read it again.").Named("precondition_failed")
	ErrMatch     = fault.New(fault.Conflict, "Say by If-Match which version the change is for.").Named("precondition_required")
)

// Actor is who asks for a change.
type Actor struct {
	Subject   string // Operator may do what nobody else may
	RequestID string
}

func (a Actor) operator() bool { return a.Subject == Operator }

// Why is what whoever changes something says about it.
type Why struct{ Reason, Ticket string }

// Service administers. Of two changes of one thing at the same moment the second is judged by what the first has made.
type Service struct {
	Store Store
	// Publish tells the edge of a revocation at once. It is tried once after the commit; the job makes up for a failure.
	Publish   func(ctx context.Context, r job.Revocation) error
	TokenLife time.Duration // how long after its end a role's tokens could still be taken for good
	Now       func() time.Time
	NewID     func() string // UUIDv7
	Log       *slog.Logger
}

func (s *Service) cause(a Actor, w Why) (Cause, error) {
	c := Cause{Actor: a.Subject, At: s.Now(), Reason: w.Reason, Ticket: w.Ticket, RequestID: a.RequestID}
	return c, c.check()
}

// Authorize answers ErrNotAdmin unless a subject holds the role admin everywhere, at this moment and whatever its token says.
func (s *Service) Authorize(ctx context.Context, subject string) error {
	held, g, err := s.held(ctx, subject)
	if err != nil {
		return err
	}
	if !g.holds(held, Admin, everywhere(), s.Now()) {
		return ErrNotAdmin
	}
	return nil
}

func (s *Service) held(ctx context.Context, subject string) (Held, Graph, error) {
	held, err := s.Store.Held(ctx, subject)
	if err != nil {
		return Held{}, nil, err
	}
	g, err := s.Store.Graph(ctx)
	return held, g, err
}

// Effective answers the roles that a subject comes to now, in one tenant unless it is nil.
func (s *Service) Effective(ctx context.Context, subject string, tenant *string) ([]Effective, error) {
	held, g, err := s.held(ctx, subject)
	if err != nil {
		return nil, err
	}
	return g.Effective(held, tenant, s.Now()), nil
}

// CreateRole makes a role.
func (s *Service) CreateRole(ctx context.Context, a Actor, r Role, w Why) (Role, uint64, error) {
	c, err := s.cause(a, w)
	if err != nil {
		return Role{}, 0, err
	}
	if err := r.tidy(); err != nil {
		return Role{}, 0, err
	}
	r.CreatedAt, r.UpdatedAt = c.At, c.At
	made, revision, err := s.Store.CreateRole(ctx, c, r, s.mayChange(a, r.Name, r.Inherits))
	s.told(ctx, c, RoleCreated, r.Name, revision, err)
	return made, revision, err
}

// UpdateRole replaces description, protection, inheritance and permissions of the version that ifMatch names. The operator need
// not name one.
func (s *Service) UpdateRole(ctx context.Context, a Actor, r Role, ifMatch string, w Why) (Role, uint64, error) {
	c, err := s.cause(a, w)
	if err != nil {
		return Role{}, 0, err
	}
	if err := r.tidy(); err != nil {
		return Role{}, 0, err
	}
	made, revision, err := s.Store.UpdateRole(ctx, c, r.Name, func(is *Role) error {
		if err := a.match(ifMatch, is.Version); err != nil {
			return err
		}
		is.Description, is.Protected, is.Inherits, is.Permissions, is.UpdatedAt = r.Description, r.Protected, r.Inherits, r.Permissions, c.At
		return nil
	}, s.mayChange(a, r.Name, r.Inherits))
	s.told(ctx, c, RoleUpdated, r.Name, revision, err)
	return made, revision, err
}

// DeleteRole deletes a role that nobody holds and no other inherits.
func (s *Service) DeleteRole(ctx context.Context, a Actor, name, ifMatch string, w Why) (uint64, error) {
	c, err := s.cause(a, w)
	if err != nil {
		return 0, err
	}
	revision, err := s.Store.DeleteRole(ctx, c, name, func(is Role) error { return a.match(ifMatch, is.Version) }, s.mayChange(a, name, nil))
	s.told(ctx, c, RoleDeleted, name, revision, err)
	return revision, err
}

// mayChange keeps admins from widening what they hold, and everybody but the operator from protected roles.
func (s *Service) mayChange(a Actor, name string, inherits []string) Guard {
	if a.operator() {
		return nil
	}
	return func(g Graph, actor Held) error {
		if g.holds(actor, name, nil, s.Now()) {
			return ErrOwn
		}
		if len(g.protected(append([]string{name}, inherits...)...)) > 0 {
			return ErrProtected
		}
		return nil
	}
}

// Grant gives a role, and answers the binding with its id.
func (s *Service) Grant(ctx context.Context, a Actor, b Binding) (Binding, uint64, error) {
	c, err := s.cause(a, Why{b.Reason, b.Ticket})
	if err != nil {
		return Binding{}, 0, err
	}
	b.ID, b.GrantedBy, b.GrantedAt = s.NewID(), a.Subject, c.At.UTC().Truncate(time.Microsecond)
	var jobs []job.Job
	if b.Until != nil {
		until := b.Until.UTC().Truncate(time.Microsecond)
		b.Until = &until
		jobs = append(jobs, job.ExpireRoles(until))
	}
	if err := b.check(c.At); err != nil {
		return Binding{}, 0, err
	}
	revision, err := s.Store.Grant(ctx, c, b, s.mayGrant(a, b), jobs...)
	s.told(ctx, c, Granted, b.Subject, revision, err)
	if err != nil {
		return Binding{}, 0, err
	}
	if b.BreakGlass {
		s.Log.WarnContext(ctx, "break-glass role granted", "binding_id", b.ID, "role", b.Role, "subject", b.Subject, "actor", c.Actor, "until", b.Until, "ticket", b.Ticket)
	}
	return b, revision, nil
}

// mayGrant: nobody grants to themselves, and nobody gives away a protected role, or one that inherits such, that they do not hold.
func (s *Service) mayGrant(a Actor, b Binding) Guard {
	if a.operator() {
		return nil
	}
	return func(g Graph, actor Held) error {
		if b.Subject == a.Subject {
			return ErrOwn
		}
		for _, name := range g.protected(b.Role) {
			if !g.holds(actor, name, &b.Tenant, s.Now()) {
				return ErrProtected
			}
		}
		return nil
	}
}

// RevokeBinding takes a binding away.
func (s *Service) RevokeBinding(ctx context.Context, a Actor, id string, w Why) (uint64, error) {
	b, err := s.Store.Binding(ctx, id)
	if err != nil {
		return 0, err
	}
	return s.Revoke(ctx, a, b.Subject, b.Role, b.Tenant, w)
}

// Revoke takes a role from a subject in a tenant. Without a tenant it is taken out of the account too, whose tokens carry it: then
// the tokens that are out are revoked, and the next ones do not have it. What is held less than before needs nobody's leave.
func (s *Service) Revoke(ctx context.Context, a Actor, subject, name, tenant string, w Why) (uint64, error) {
	c, err := s.cause(a, w)
	if err != nil {
		return 0, err
	}
	if !ValidSubject(subject) || len(name) > maxText || tenant != "" && !validTenant.MatchString(tenant) {
		return 0, ErrBindingNotFound
	}
	r := Revocation{ID: s.NewID(), Subject: subject, At: c.At, ExpiresAt: c.At.Add(s.TokenLife)}
	publication := job.Revocation{Kind: "sub", Value: subject, NotBefore: r.At, ExpiresAt: r.ExpiresAt}
	revision, ended, err := s.Store.Revoke(ctx, c, subject, name, tenant, r, job.PublishRevocation(publication))
	s.told(ctx, c, Revoked, subject, revision, err)
	if err == nil && ended {
		s.publish(ctx, r.ID, publication)
	}
	return revision, err
}

// publish tells the edge at once. The caller may hang up meanwhile; the edge shall know nevertheless.
func (s *Service) publish(ctx context.Context, id string, r job.Revocation) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.Publish(ctx, r); err != nil {
		s.Log.WarnContext(ctx, "revocation not published at once; its job will", "revocation_id", id, "error", err)
	}
}

// sweep is how many bindings end in one transaction.
const sweep = 100

// Expire takes away what has ended by itself, so that the audit and the decision points' memory say so. It has counted for
// nothing since it ended.
func (s *Service) Expire(ctx context.Context) error {
	for {
		n, err := s.Store.Expire(ctx, Cause{Actor: System, At: s.Now(), Reason: "its time was over"}, sweep)
		if err != nil || n < sweep {
			return err
		}
	}
}

// PutSubject replaces what is known of a subject: the version that ifMatch names, or nothing if it is new.
func (s *Service) PutSubject(ctx context.Context, a Actor, n Subject, ifMatch string, w Why) (Subject, uint64, error) {
	c, err := s.cause(a, w)
	if err != nil {
		return Subject{}, 0, err
	}
	if err := n.tidy(); err != nil {
		return Subject{}, 0, err
	}
	if n.ID == a.Subject {
		return Subject{}, 0, ErrOwn
	}
	made, revision, err := s.Store.SetSubject(ctx, c, n.ID, func(is *Subject) error {
		if is.Version > 0 || ifMatch != "" {
			if err := a.match(ifMatch, is.Version); err != nil {
				return err
			}
		}
		is.Tenant, is.Groups, is.Attributes, is.UpdatedAt = n.Tenant, n.Groups, n.Attributes, c.At
		if is.Version == 0 {
			is.CreatedAt = c.At
		}
		return nil
	})
	s.told(ctx, c, SubjectSet, n.ID, revision, err)
	return made, revision, err
}

// DeleteSubject forgets a subject that holds no roles.
func (s *Service) DeleteSubject(ctx context.Context, a Actor, id, ifMatch string, w Why) (uint64, error) {
	c, err := s.cause(a, w)
	if err != nil {
		return 0, err
	}
	if id == a.Subject {
		return 0, ErrOwn
	}
	revision, err := s.Store.DeleteSubject(ctx, c, id, func(is Subject) error { return a.match(ifMatch, is.Version) })
	s.told(ctx, c, SubjectDeleted, id, revision, err)
	return revision, err
}

// match compares an If-Match (RFC 9110 section 13.1.1) with a version.
func (a Actor) match(ifMatch string, version int64) error {
	switch {
	case ifMatch == "" && a.operator(), ifMatch == "*" && version > 0, ifMatch == ETag(version):
		return nil
	case ifMatch == "":
		return ErrMatch
	}
	return ErrNoMatch
}

// ETag names a version of a role or a subject.
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// told logs a change; the database has the whole of it.
func (s *Service) told(ctx context.Context, c Cause, action, target string, revision uint64, err error) {
	if err == nil {
		s.Log.InfoContext(ctx, "roles changed", "action", action, "target", target, "actor", c.Actor, "revision", revision, "trace_id", c.RequestID)
	}
}
