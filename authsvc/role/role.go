// Package role is the administration point (PAP) of who may do what: roles with their permissions and what they inherit, who
// holds them, where, until when and why, and what else policies may know of a subject. Decisions are the decision point's,
// which hears of every change within a second.
//
// A change is one transaction: the change, one revision more, and one line of the audit that says who did it, when, why, and
// what was there before and after. Package role knows neither accounts nor tokens; where an account carries a role into its
// tokens, the store takes it from there too, and answers what has to be revoked.
package role

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Admin is the role whose holders, without a tenant, administer all of this.
const Admin = "admin"

// Who else than a subject appears in the audit as the one who did something.
const (
	Operator = "operator"  // at the command line, with the database's own credentials
	System   = "gatehouse" // what ended by itself
)

// Role is a set of permissions under a name.
type Role struct {
	Name        string // as ValidName says; the key
	Description string
	// Protected roles are given only by those who hold them, and changed only by the operator.
	Protected   bool
	Inherits    []string // direct parents, sorted; whoever holds the role holds these too
	Permissions []Permission
	Version     int64 // 1, 2, 3, …
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Permission lets do something to something, under conditions that policies know by name.
type Permission struct {
	Action     string
	Resource   string
	Conditions []string // all must hold
}

// Binding is a role that a subject holds.
type Binding struct {
	ID         string // UUIDv7
	Subject    string
	Role       string
	Tenant     string     // "" for everywhere
	Until      *time.Time // nil until it is taken away; from then on it counts for nothing, swept or not
	Reason     string
	Ticket     string
	BreakGlass bool // taken in an emergency: until, reason and ticket are there
	GrantedBy  string
	GrantedAt  time.Time
}

// Alive reports whether the binding counts at now.
func (b Binding) Alive(now time.Time) bool { return b.Until == nil || now.Before(*b.Until) }

// Subject is what policies may know of somebody or something besides roles.
type Subject struct {
	ID         string // an account's id, or whatever an issuer calls its subjects
	Tenant     string
	Groups     []string // sorted
	Attributes map[string]any
	Version    int64
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Cause says who changes something, and why.
type Cause struct {
	Actor     string // a subject, Operator or System
	At        time.Time
	Reason    string
	Ticket    string
	RequestID string // the trace id of the request
}

// Actions of the audit.
const (
	RoleCreated    = "role.created"
	RoleUpdated    = "role.updated"
	RoleDeleted    = "role.deleted"
	Granted        = "binding.granted"
	Revoked        = "binding.revoked"
	Expired        = "binding.expired"
	SubjectSet     = "subject.set"
	SubjectDeleted = "subject.deleted"
)

// Audit is one line: what a revision changed. Before is null for what was made, After for what was taken away.
type Audit struct {
	Revision uint64
	Action   string
	Target   string // a role's name or a subject's id
	Before   json.RawMessage
	After    json.RawMessage
	Cause
}

// Revocation makes the edge refuse the tokens that a subject has, since they carry a role that is no longer true.
type Revocation struct {
	ID        string // UUIDv7
	Subject   string
	At        time.Time // tokens issued at or before it are dead
	ExpiresAt time.Time // from here on no such token can be alive
}

// Held is what somebody holds: bindings, dead ones among them, and the roles that the account carries into its tokens.
type Held struct {
	Bindings []Binding
	Account  []string
}

// Guard looks at what is there and at what the actor holds, before anything is changed, and answers why not. Roles and bindings
// stand still meanwhile. It may run again after a lost race.
type Guard func(g Graph, actor Held) error

// Page bounds a list: at most Limit entries after the one whose key is After ("" for the first).
type Page struct {
	After string
	Limit int
}

// BindingFilter chooses bindings; an empty field chooses all. Tenant is a pointer because "" is a place of its own.
type BindingFilter struct {
	Subject, Role string
	Tenant        *string
}

// AuditFilter chooses lines of the audit; an empty field chooses all.
type AuditFilter struct{ Target, Actor string }

// The failures of a Store.
var (
	ErrRoleNotFound    = fault.New(fault.NotFound, "There is no such role.").Named("role_not_found")
	ErrRoleExists      = fault.New(fault.Conflict, "There is a role of this name already.").Named("role_exists")
	ErrRoleInUse       = fault.New(fault.Conflict, "Somebody holds the role, or another role inherits it.").Named("role_in_use")
	ErrCycle           = fault.New(fault.Conflict, "The role would inherit itself.").Named("role_cycle")
	ErrParentUnknown   = fault.New(fault.Conflict, "A role to inherit is not there.").Named("parent_not_found")
	ErrTooMany         = fault.New(fault.Conflict, "There are as many roles as there may be.").Named("too_many_roles")
	ErrTooManyBindings = fault.New(fault.Conflict, "The subject holds as many roles as it may.").Named("too_many_bindings")
	ErrBindingNotFound = fault.New(fault.NotFound, "The subject does not hold the role there.").Named("binding_not_found")
	ErrBindingExists   = fault.New(fault.Conflict, "The subject holds the role there already.").Named("binding_exists")
	ErrSubjectNotFound = fault.New(fault.NotFound, "Nothing is known of this subject.").Named("subject_not_found")
	ErrSubjectInUse    = fault.New(fault.Conflict, "The subject still holds roles.").Named("subject_in_use")
)

// Store keeps roles, bindings, subjects and the audit. Each method is one atomic step; storetest.Run is its contract. A method
// that changes something counts one revision up and adds one line to the audit, or does neither; it answers that revision.
// Changes have an order: of two at the same moment, the second sees what the first has done. A database that cannot be reached
// is fault.Unavailable.
type Store interface {
	// CreateRole answers ErrRoleExists, ErrParentUnknown, ErrCycle (of a role that inherits itself) or ErrTooMany.
	CreateRole(ctx context.Context, c Cause, r Role, guard Guard) (Role, uint64, error)
	// UpdateRole saves what fn makes of the role, one version on; name, version and time of creation are not fn's to change. It answers
	// ErrRoleNotFound, ErrParentUnknown or ErrCycle. fn may run again after a lost race.
	UpdateRole(ctx context.Context, c Cause, name string, fn func(*Role) error, guard Guard) (Role, uint64, error)
	// DeleteRole deletes a role that check has nothing against. It answers ErrRoleNotFound, and ErrRoleInUse while somebody holds it,
	// even if only until it is swept, or another role inherits it.
	DeleteRole(ctx context.Context, c Cause, name string, check func(Role) error, guard Guard) (uint64, error)
	Role(ctx context.Context, name string) (Role, error)
	Roles(ctx context.Context, p Page) ([]Role, error)
	Graph(ctx context.Context) (Graph, error)

	// Grant adds a binding, and jobs with it. One of the same subject, role and tenant that is dead at c.At is replaced; one that is
	// alive is ErrBindingExists. It answers ErrRoleNotFound and ErrTooManyBindings.
	Grant(ctx context.Context, c Cause, b Binding, guard Guard, jobs ...job.Job) (uint64, error)
	// Revoke takes a role from a subject in a tenant. Without a tenant, it also takes it out of the account of that id; then, and only
	// then, ended is true and the revocation and the jobs are added. It answers ErrBindingNotFound if there is neither.
	Revoke(ctx context.Context, c Cause, subject, role, tenant string, r Revocation, jobs ...job.Job) (revision uint64, ended bool, err error)
	// Expire takes away up to limit bindings that are dead at c.At, each as a change of its own, and answers how many.
	Expire(ctx context.Context, c Cause, limit int) (int, error)
	Binding(ctx context.Context, id string) (Binding, error)
	// Bindings are in the order of their ids.
	Bindings(ctx context.Context, f BindingFilter, p Page) ([]Binding, error)
	// Held answers what a subject holds; nothing of one that is unknown. The account's roles are left out if it is disabled.
	Held(ctx context.Context, subject string) (Held, error)

	// SetSubject saves what fn makes of what is known of a subject, which is nothing (Version 0) for a new one.
	SetSubject(ctx context.Context, c Cause, id string, fn func(*Subject) error) (Subject, uint64, error)
	// DeleteSubject answers ErrSubjectNotFound, and ErrSubjectInUse while there are bindings.
	DeleteSubject(ctx context.Context, c Cause, id string, check func(Subject) error) (uint64, error)
	Subject(ctx context.Context, id string) (Subject, error)
	Subjects(ctx context.Context, p Page) ([]Subject, error)

	// Audits answers lines with a revision below before (0 for the newest on), newest first.
	Audits(ctx context.Context, f AuditFilter, before uint64, limit int) ([]Audit, error)
	// NewEpoch begins another life of the data, as after a restore; readers begin again with a snapshot.
	NewEpoch(ctx context.Context) (epoch string, err error)
}
