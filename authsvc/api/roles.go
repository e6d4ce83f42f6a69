package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

func (h *admin) roles(routes huma.API) {
	huma.Register(routes, adminOperation("list-roles", http.MethodGet, "/roles", "List roles by name", http.StatusOK), h.listRoles)
	huma.Register(routes, adminOperation("create-role", http.MethodPost, "/roles", "Make a role", http.StatusCreated), h.createRole)
	huma.Register(routes, adminOperation("read-role", http.MethodGet, "/roles/{name}", "Read a role", http.StatusOK), h.readRole)
	huma.Register(routes, adminOperation("replace-role", http.MethodPut, "/roles/{name}",
		"Replace what a role is, all but its name", http.StatusOK), h.replaceRole)
	huma.Register(routes, adminOperation("delete-role", http.MethodDelete, "/roles/{name}",
		"Delete a role that nobody holds and no other inherits", http.StatusNoContent), h.deleteRole)
}

type permissionBody struct {
	Action     string   `json:"action" maxLength:"200" doc:"as policies call it"`
	Resource   string   `json:"resource" maxLength:"200" doc:"a type of resource, or a pattern that the policies define"`
	Conditions []string `json:"conditions,omitempty" maxItems:"16" doc:"names that policies know; all must hold"`
}

// RoleFields are what an admin says of a role.
type RoleFields struct {
	Description string           `json:"description,omitempty" maxLength:"500"`
	Protected   bool             `json:"protected,omitempty" doc:"granted only by those who hold it, changed only by the operator"`
	Inherits    []string         `json:"inherits,omitempty" maxItems:"50" doc:"whoever holds the role holds these too"`
	Permissions []permissionBody `json:"permissions,omitempty" maxItems:"500"`
}

func (f RoleFields) role(name string) role.Role {
	r := role.Role{Name: name, Description: f.Description, Protected: f.Protected, Inherits: f.Inherits}
	for _, p := range f.Permissions {
		r.Permissions = append(r.Permissions, role.Permission(p))
	}
	return r
}

// roleBody is a role as it is answered.
type roleBody struct {
	Name        string           `json:"name"`
	Description string           `json:"description"`
	Protected   bool             `json:"protected"`
	Inherits    []string         `json:"inherits"`
	Permissions []permissionBody `json:"permissions"`
	CreatedAt   time.Time        `json:"created_at"`
	UpdatedAt   time.Time        `json:"updated_at"`
}

func roleBodyOf(r role.Role) roleBody {
	b := roleBody{
		Name: r.Name, Description: r.Description, Protected: r.Protected, Inherits: append([]string{}, r.Inherits...),
		Permissions: make([]permissionBody, len(r.Permissions)), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
	for i, p := range r.Permissions {
		b.Permissions[i] = permissionBody(p)
	}
	return b
}

type roleOutput struct {
	ETag string `header:"ETag"`
	Body roleBody
}

type roleChanged struct {
	Revised
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     roleBody
}

type rolesInput struct {
	CallerInput
	PageQuery
}

func (h *admin) listRoles(ctx context.Context, in *rolesInput) (*listOutput[roleBody], error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	page, err := in.page()
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	found, err := h.Roles.Store.Roles(ctx, page)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return listOf(found, in.Limit, roleBodyOf, func(r role.Role) string { return r.Name }), nil
}

type createRoleInput struct {
	CallerInput
	Body struct {
		Name string `json:"name" maxLength:"64" doc:"a lower-case letter, then a-z, 0-9, dot, colon, dash and underscore"`
		RoleFields
		Why
	}
}

func (h *admin) createRole(ctx context.Context, in *createRoleInput) (*roleChanged, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	r, revision, err := h.Roles.CreateRole(ctx, by, in.Body.role(in.Body.Name), role.Why(in.Body.Why))
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return &roleChanged{revisedTo(revision), "/admin/v1/roles/" + url.PathEscape(r.Name), role.ETag(r.Version), roleBodyOf(r)}, nil
}

// RoleInput names a role.
type RoleInput struct {
	CallerInput
	Name string `path:"name" maxLength:"64"`
}

func (h *admin) readRole(ctx context.Context, in *RoleInput) (*roleOutput, error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	r, err := h.Roles.Store.Role(ctx, in.Name)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return &roleOutput{role.ETag(r.Version), roleBodyOf(r)}, nil
}

type replaceRoleInput struct {
	RoleInput
	IfMatch string `header:"If-Match" doc:"the ETag that the change is for"`
	Body    struct {
		RoleFields
		Why
	}
}

func (h *admin) replaceRole(ctx context.Context, in *replaceRoleInput) (*roleChanged, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	r, revision, err := h.Roles.UpdateRole(ctx, by, in.Body.role(in.Name), in.IfMatch, role.Why(in.Body.Why))
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return &roleChanged{Revised: revisedTo(revision), ETag: role.ETag(r.Version), Body: roleBodyOf(r)}, nil
}

type deleteRoleInput struct {
	RoleInput
	IfMatch string `header:"If-Match" doc:"the ETag that the change is for"`
	WhyQuery
}

func (h *admin) deleteRole(ctx context.Context, in *deleteRoleInput) (*Revised, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	revision, err := h.Roles.DeleteRole(ctx, by, in.Name, in.IfMatch, role.Why(in.WhyQuery))
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	out := revisedTo(revision)
	return &out, nil
}
