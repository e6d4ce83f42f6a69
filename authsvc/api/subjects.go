package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

func (h *admin) subjects(routes huma.API) {
	huma.Register(routes, adminOperation("list-subjects", http.MethodGet, "/subjects",
		"List subjects of whom tenant, groups or attributes are kept, by id", http.StatusOK), h.listSubjects)
	huma.Register(routes, adminOperation("read-subject", http.MethodGet, "/subjects/{id}", "Read what is kept of a subject", http.StatusOK), h.readSubject)
	huma.Register(routes, adminOperation("put-subject", http.MethodPut, "/subjects/{id}",
		"Replace what is kept of a subject; If-Match is needed unless it is new", http.StatusOK), h.putSubject)
	huma.Register(routes, adminOperation("delete-subject", http.MethodDelete, "/subjects/{id}",
		"Forget a subject that holds no roles", http.StatusNoContent), h.deleteSubject)
	huma.Register(routes, adminOperation("effective-roles", http.MethodGet, "/subjects/{id}/roles",
		"List the roles that a subject comes to now, inherited ones included", http.StatusOK), h.effective)
	huma.Register(routes, adminOperation("take-role", http.MethodDelete, "/subjects/{id}/roles/{role}",
		"Take a role that holds everywhere away, out of the account too, whose tokens are then revoked", http.StatusNoContent), h.takeRole)
}

// SubjectFields are what an admin says of a subject.
type SubjectFields struct {
	Tenant     string         `json:"tenant,omitempty" maxLength:"64"`
	Groups     []string       `json:"groups,omitempty" maxItems:"100"`
	Attributes map[string]any `json:"attributes,omitempty" doc:"what policies may look at, as department"`
}

// subjectBody is a subject as it is answered.
type subjectBody struct {
	ID         string         `json:"id"`
	Tenant     string         `json:"tenant"`
	Groups     []string       `json:"groups"`
	Attributes map[string]any `json:"attributes"`
	CreatedAt  time.Time      `json:"created_at"`
	UpdatedAt  time.Time      `json:"updated_at"`
}

func subjectBodyOf(n role.Subject) subjectBody {
	return subjectBody{n.ID, n.Tenant, append([]string{}, n.Groups...), n.Attributes, n.CreatedAt.UTC(), n.UpdatedAt.UTC()}
}

type subjectsInput struct {
	CallerInput
	PageQuery
}

func (h *admin) listSubjects(ctx context.Context, in *subjectsInput) (*listOutput[subjectBody], error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	page, err := in.page()
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	found, err := h.Roles.Store.Subjects(ctx, page)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return listOf(found, in.Limit, subjectBodyOf, func(n role.Subject) string { return n.ID }), nil
}

// SubjectInput names a subject.
type SubjectInput struct {
	CallerInput
	ID string `path:"id" maxLength:"200"`
}

type subjectOutput struct {
	ETag string `header:"ETag"`
	Body subjectBody
}

func (h *admin) readSubject(ctx context.Context, in *SubjectInput) (*subjectOutput, error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	n, err := h.Roles.Store.Subject(ctx, in.ID)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return &subjectOutput{role.ETag(n.Version), subjectBodyOf(n)}, nil
}

type putSubjectInput struct {
	SubjectInput
	IfMatch string `header:"If-Match" doc:"the ETag that the change is for"`
	Body    struct {
		SubjectFields
		Why
	}
}

type subjectChanged struct {
	Revised
	ETag string `header:"ETag"`
	Body subjectBody
}

func (h *admin) putSubject(ctx context.Context, in *putSubjectInput) (*subjectChanged, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	n, revision, err := h.Roles.PutSubject(ctx, by, role.Subject{
		ID: in.ID, Tenant: in.Body.Tenant, Groups: in.Body.Groups, Attributes: in.Body.Attributes,
	}, in.IfMatch, role.Why(in.Body.Why))
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return &subjectChanged{revisedTo(revision), role.ETag(n.Version), subjectBodyOf(n)}, nil
}

type deleteSubjectInput struct {
	SubjectInput
	IfMatch string `header:"If-Match" doc:"the ETag that the change is for"`
	WhyQuery
}

func (h *admin) deleteSubject(ctx context.Context, in *deleteSubjectInput) (*Revised, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	revision, err := h.Roles.DeleteSubject(ctx, by, in.ID, in.IfMatch, role.Why(in.WhyQuery))
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	out := revisedTo(revision)
	return &out, nil
}

type effectiveInput struct {
	SubjectInput
	Tenant string `query:"tenant" maxLength:"64" doc:"only what counts in this tenant"`
}

type effectiveBody struct {
	Role        string     `json:"role"`
	Via         string     `json:"via" doc:"the role that is held, and that inherits this one if it is another"`
	Tenant      string     `json:"tenant" doc:"empty for everywhere"`
	Until       *time.Time `json:"until,omitempty"`
	FromAccount bool       `json:"from_account" doc:"the account carries it into its tokens"`
}

type effectiveOutput struct {
	Body struct {
		Items []effectiveBody `json:"items"`
	}
}

func (h *admin) effective(ctx context.Context, in *effectiveInput) (*effectiveOutput, error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	var tenant *string
	if in.Tenant != "" {
		tenant = &in.Tenant
	}
	found, err := h.Roles.Effective(ctx, in.ID, tenant)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	out := &effectiveOutput{}
	out.Body.Items = make([]effectiveBody, len(found))
	for i, e := range found {
		out.Body.Items[i] = effectiveBody(e)
	}
	return out, nil
}

type takeRoleInput struct {
	SubjectInput
	Role string `path:"role" maxLength:"64"`
	WhyQuery
}

func (h *admin) takeRole(ctx context.Context, in *takeRoleInput) (*Revised, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	revision, err := h.Roles.Revoke(ctx, by, in.ID, in.Role, "", role.Why(in.WhyQuery))
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	out := revisedTo(revision)
	return &out, nil
}

func (h *admin) audit(routes huma.API) {
	huma.Register(routes, adminOperation("list-audit", http.MethodGet, "/audit", "List what was changed, newest first", http.StatusOK), h.listAudit)
}

type auditInput struct {
	CallerInput
	PageQuery
	Target string `query:"target" maxLength:"200" doc:"a role's name or a subject's id"`
	Actor  string `query:"actor" maxLength:"200"`
}

type auditBody struct {
	Revision  uint64          `json:"revision"`
	At        time.Time       `json:"at"`
	Actor     string          `json:"actor" doc:"a subject; operator for the command line; gatehouse for what ended by itself"`
	Action    string          `json:"action"`
	Target    string          `json:"target"`
	Before    json.RawMessage `json:"before"`
	After     json.RawMessage `json:"after"`
	Reason    string          `json:"reason"`
	Ticket    string          `json:"ticket"`
	RequestID string          `json:"request_id"`
}

func auditBodyOf(a role.Audit) auditBody {
	return auditBody{a.Revision, a.At.UTC(), a.Actor, a.Action, a.Target, a.Before, a.After, a.Reason, a.Ticket, a.RequestID}
}

func (h *admin) listAudit(ctx context.Context, in *auditInput) (*listOutput[auditBody], error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	page, err := in.page()
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	var before uint64
	if page.After != "" {
		if before, err = strconv.ParseUint(page.After, 10, 63); err != nil {
			return nil, h.fail(ctx, errCursor)
		}
	}
	found, err := h.Roles.Store.Audits(ctx, role.AuditFilter{Target: in.Target, Actor: in.Actor}, before, page.Limit)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return listOf(found, in.Limit, auditBodyOf, func(a role.Audit) string { return strconv.FormatUint(a.Revision, 10) }), nil
}
