package api

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// AdminOptions are the parts behind the interface of admins.
type AdminOptions struct {
	Roles        *role.Service
	Authenticate func(ctx context.Context, accessToken string) (principal.Principal, error)
	Checks       map[string]web.Check // for /readyz
	Log          *slog.Logger
}

type admin struct {
	*handler
	Roles *role.Service
}

// NewAdmin makes the handler of /admin/v1, which has a listener of its own.
func NewAdmin(o AdminOptions) http.Handler {
	mux := http.NewServeMux()
	h := &admin{&handler{Options{Authenticate: o.Authenticate, Log: o.Log}}, o.Roles}
	c := config()
	c.Info.Title = "Gatehouse administration"
	c.OpenAPIPath = "/admin/v1/openapi"
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{bearerScheme: {Type: "http", Scheme: "bearer", BearerFormat: "JWT"}}
	routes := humago.New(mux, c)
	h.roles(routes)
	h.bindings(routes)
	h.subjects(routes)
	h.audit(routes)
	return chained(mux, o.Checks, o.Log)
}

const bearerScheme = "accessToken"

// adminOperation is an operation that needs an admin's access token.
func adminOperation(id, method, path, summary string, status int) huma.Operation {
	op := operation(id, method, "/admin/v1"+path, summary, status)
	op.Security = []map[string][]string{{bearerScheme: {}}}
	return op
}

// asAdmin answers who asks, if that is an admin: by the session and the roles of this moment, not by those of the token.
func (h *admin) asAdmin(ctx context.Context, authorization string) (role.Actor, error) {
	p, err := h.caller(ctx, authorization)
	if err != nil {
		return role.Actor{}, h.fail(ctx, err)
	}
	if err := h.Roles.Authorize(ctx, p.Subject); err != nil {
		return role.Actor{}, h.fail(ctx, err)
	}
	return role.Actor{Subject: p.Subject, RequestID: web.TraceID(ctx)}, nil
}

// Why is in the body of each change that has one.
type Why struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"for the audit"`
	Ticket string `json:"ticket,omitempty" maxLength:"100" doc:"for the audit"`
}

// WhyQuery is Why for a change without a body.
type WhyQuery struct {
	Reason string `query:"reason" maxLength:"500" doc:"for the audit"`
	Ticket string `query:"ticket" maxLength:"100" doc:"for the audit"`
}

// PageQuery asks for a part of a list.
type PageQuery struct {
	Cursor string `query:"cursor" maxLength:"400" doc:"next of the page before; nothing for the first"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

var errCursor = fault.New(fault.Invalid, "The cursor is none that a page before has answered.").Named("invalid_cursor")

// page asks for one entry more than the caller, so that it is known whether there are more.
func (q PageQuery) page() (role.Page, error) {
	after, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
	if err != nil {
		return role.Page{}, errCursor
	}
	return role.Page{After: string(after), Limit: q.Limit + 1}, nil
}

// listOutput is a page. Next is absent from the last.
type listOutput[T any] struct {
	Body struct {
		Items []T    `json:"items"`
		Next  string `json:"next,omitempty" doc:"the cursor of the page after this"`
	}
}

// listOf shows at most limit of found, whose key is where the next page begins.
func listOf[T, F any](found []F, limit int, show func(F) T, key func(F) string) *listOutput[T] {
	out := &listOutput[T]{}
	if len(found) > limit {
		found = found[:limit]
		out.Body.Next = base64.RawURLEncoding.EncodeToString([]byte(key(found[limit-1])))
	}
	out.Body.Items = make([]T, len(found))
	for i, f := range found {
		out.Body.Items[i] = show(f)
	}
	return out
}

// Revised says as which revision a change counts: decision points that have reached it know of the change.
type Revised struct {
	Revision string `header:"Gatehouse-Revision" doc:"the revision that the change has made"`
}

func revisedTo(revision uint64) Revised { return Revised{strconv.FormatUint(revision, 10)} }
