package api

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
)

func (h *handler) profile(routes huma.API) {
	huma.Register(routes, operation("profile", http.MethodGet, "/user/me", "Read the own profile", http.StatusOK), h.readProfile)
	huma.Register(routes, operation("patch-profile", http.MethodPatch, "/user/me",
		"Change the own profile by JSON merge patch (RFC 7396)", http.StatusOK), h.patchProfile)
}

type profileOutput struct {
	ETag string `header:"ETag"`
	Body struct {
		ID          string          `json:"id"`
		Name        string          `json:"name"`
		AvatarURL   string          `json:"avatar_url"`
		Preferences json.RawMessage `json:"preferences"`
		CreatedAt   time.Time       `json:"created_at"`
		UpdatedAt   time.Time       `json:"updated_at"`
	}
}

func profileOf(p profile.Profile) *profileOutput {
	out := &profileOutput{ETag: p.ETag()}
	out.Body.ID, out.Body.Name, out.Body.AvatarURL, out.Body.Preferences = p.ID, p.Name, p.AvatarURL, p.Preferences
	out.Body.CreatedAt, out.Body.UpdatedAt = p.CreatedAt.UTC(), p.UpdatedAt.UTC()
	return out
}

func (h *handler) readProfile(ctx context.Context, in *CallerInput) (*profileOutput, error) {
	caller, err := h.caller(ctx, in.Authorization)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	p, err := h.Profiles.Get(ctx, caller.Subject)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return profileOf(p), nil
}

type patchInput struct {
	Authorization string `header:"Authorization" doc:"Bearer and an access token"`
	IfMatch       string `header:"If-Match" doc:"the ETag that the change is for"`
	ContentType   string `header:"Content-Type"`
	RawBody       []byte `contentType:"application/merge-patch+json"`
}

func (h *handler) patchProfile(ctx context.Context, in *patchInput) (*profileOutput, error) {
	caller, err := h.caller(ctx, in.Authorization)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	media, _, err := mime.ParseMediaType(in.ContentType)
	if err != nil || (media != "application/merge-patch+json" && media != "application/json") {
		return nil, h.fail(ctx, errMediaType)
	}
	p, err := h.Profiles.Patch(ctx, caller.Subject, in.RawBody, in.IfMatch)
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return profileOf(p), nil
}
