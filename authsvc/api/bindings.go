package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

func (h *admin) bindings(routes huma.API) {
	huma.Register(routes, adminOperation("list-bindings", http.MethodGet, "/bindings",
		"List who holds which role, in the order in which it was granted", http.StatusOK), h.listBindings)
	huma.Register(routes, adminOperation("grant", http.MethodPost, "/bindings", "Grant a role", http.StatusCreated), h.grant)
	huma.Register(routes, adminOperation("read-binding", http.MethodGet, "/bindings/{id}", "Read a grant", http.StatusOK), h.readBinding)
	huma.Register(routes, adminOperation("revoke", http.MethodDelete, "/bindings/{id}",
		"Take a role away; one that holds everywhere out of the account too, whose tokens are then revoked", http.StatusNoContent), h.revoke)
}

// bindingBody is a binding as it is answered.
type bindingBody struct {
	ID         string     `json:"id"`
	Subject    string     `json:"subject"`
	Role       string     `json:"role"`
	Tenant     string     `json:"tenant" doc:"empty for everywhere"`
	Until      *time.Time `json:"until,omitempty" doc:"when it ends by itself"`
	Active     bool       `json:"active" doc:"whether it counts now"`
	Reason     string     `json:"reason"`
	Ticket     string     `json:"ticket"`
	BreakGlass bool       `json:"break_glass"`
	GrantedBy  string     `json:"granted_by"`
	GrantedAt  time.Time  `json:"granted_at"`
}

func (h *admin) bindingBodyOf(b role.Binding) bindingBody {
	return bindingBody{
		ID: b.ID, Subject: b.Subject, Role: b.Role, Tenant: b.Tenant, Until: b.Until, Active: b.Alive(h.Roles.Now()), Reason: b.Reason,
		Ticket: b.Ticket, BreakGlass: b.BreakGlass, GrantedBy: b.GrantedBy, GrantedAt: b.GrantedAt.UTC(),
	}
}

type bindingsInput struct {
	CallerInput
	PageQuery
	Subject    string `query:"subject" maxLength:"200"`
	Role       string `query:"role" maxLength:"64"`
	Tenant     string `query:"tenant" maxLength:"64"`
	Everywhere bool   `query:"everywhere" doc:"only what holds in every tenant"`
}

func (h *admin) listBindings(ctx context.Context, in *bindingsInput) (*listOutput[bindingBody], error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	page, err := in.page()
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	f := role.BindingFilter{Subject: in.Subject, Role: in.Role}
	switch {
	case in.Tenant != "":
		f.Tenant = &in.Tenant
	case in.Everywhere:
		f.Tenant = new(string)
	}
	found, err := h.Roles.Store.Bindings(ctx, f, page)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return listOf(found, in.Limit, h.bindingBodyOf, func(b role.Binding) string { return b.ID }), nil
}

type grantInput struct {
	CallerInput
	Body struct {
		Subject    string     `json:"subject" maxLength:"200"`
		Role       string     `json:"role" maxLength:"64"`
		Tenant     string     `json:"tenant,omitempty" maxLength:"64" doc:"nothing for everywhere"`
		Until      *time.Time `json:"until,omitempty" doc:"when it ends by itself"`
		BreakGlass bool       `json:"break_glass,omitempty" doc:"taken in an emergency: needs until (at most 24 hours ahead), reason and ticket"`
		Why
	}
}

type grantOutputOf struct {
	Revised
	Location string `header:"Location"`
	Body     bindingBody
}

func (h *admin) grant(ctx context.Context, in *grantInput) (*grantOutputOf, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	b, revision, err := h.Roles.Grant(ctx, by, role.Binding{
		Subject: in.Body.Subject, Role: in.Body.Role, Tenant: in.Body.Tenant, Until: in.Body.Until, BreakGlass: in.Body.BreakGlass,
		Reason: in.Body.Reason, Ticket: in.Body.Ticket,
	})
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return &grantOutputOf{revisedTo(revision), "/admin/v1/bindings/" + b.ID, h.bindingBodyOf(b)}, nil
}

// BindingInput names a binding.
type BindingInput struct {
	CallerInput
	ID string `path:"id" maxLength:"64"`
}

type bindingOutput struct{ Body bindingBody }

func (h *admin) readBinding(ctx context.Context, in *BindingInput) (*bindingOutput, error) {
	if _, err := h.asAdmin(ctx, in.Authorization); err != nil {
		return nil, err
	}
	b, err := h.Roles.Store.Binding(ctx, in.ID)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return &bindingOutput{h.bindingBodyOf(b)}, nil
}

type revokeInput struct {
	BindingInput
	WhyQuery
}

func (h *admin) revoke(ctx context.Context, in *revokeInput) (*Revised, error) {
	by, err := h.asAdmin(ctx, in.Authorization)
	if err != nil {
		return nil, err
	}
	revision, err := h.Roles.RevokeBinding(ctx, by, in.ID, role.Why(in.WhyQuery))
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	out := revisedTo(revision)
	return &out, nil
}
