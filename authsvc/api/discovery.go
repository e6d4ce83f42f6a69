package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// discovery serves what verifiers need to know of the issuer.
func (h *handler) discovery(mux *http.ServeMux) {
	mux.HandleFunc("GET /.well-known/jwks.json", h.keySet)
	mux.HandleFunc("GET /auth/.well-known/jwks.json", h.keySet)
	mux.HandleFunc("GET /.well-known/openid-configuration", h.metadata)
}

// public lets caches keep an answer for five minutes; a next key is published far longer before it signs.
const public = "public, max-age=300"

func (h *handler) keySet(w http.ResponseWriter, r *http.Request) {
	set, err := h.KeySet(r.Context())
	if err != nil {
		_ = h.fail(r.Context(), err) // logs
		web.WriteProblem(w, web.Problem(r.Context(), err))
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", public)
	_, _ = w.Write(set) // the caller is gone; there is nobody to tell
}

// metadata says what there is so far (OpenID Connect Discovery 1.0 section 3); there is no authorization endpoint yet.
func (h *handler) metadata(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", public)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the caller is gone; there is nobody to tell
		"issuer":                                h.Issuer,
		"jwks_uri":                              strings.TrimSuffix(h.Issuer, "/") + "/auth/.well-known/jwks.json",
		"response_types_supported":              []string{},
		"grant_types_supported":                 []string{},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	})
}
