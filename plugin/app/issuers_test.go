package app_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/plugin/app"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func issuer(change func(*guard.Issuer)) guard.Issuer {
	i := guard.Issuer{
		Issuer: "https://i.test", Algorithms: []string{"RS256"}, Audiences: []string{"a"}, Types: []string{"at+jwt"}, KeysMaxAge: time.Hour, Claims: jose.StandardClaims(),
		Introspection: guard.Introspection{URL: "https://i.test/introspect", ClientID: "edge", ClientSecret: "canary", Timeout: time.Second},
	}
	if change != nil {
		change(&i)
	}
	return i
}

// S31, S64: where an issuer may be is refused at start, by the field that says so; nothing is fetched from the private network, or
// without TLS, unless the configuration allows it.
func TestWhereAnIssuerMayBeIsConfigured(t *testing.T) {
	t.Parallel()
	a := app.New(app.Options{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(a.Close)
	for what, c := range map[string]struct {
		change func(*guard.Issuer)
		wrong  string
	}{
		"by discovery":   {nil, ""},
		"by its key set": {func(i *guard.Issuer) { i.JWKSURL = "https://keys.test/jwks" }, ""},
		"on this machine": {func(i *guard.Issuer) {
			i.JWKSURL, i.Introspection.URL = "http://127.0.0.1:8081/jwks", "http://localhost/x"
		}, ""},
		"plain http":                  {func(i *guard.Issuer) { i.JWKSURL = "http://keys.test/jwks" }, "config.issuers[1].jwks_url: "},
		"plain http, private":         {func(i *guard.Issuer) { i.JWKSURL, i.Private = "http://keys.test/jwks", true }, ""},
		"metadata by plain http":      {func(i *guard.Issuer) { i.MetadataURL = "http://i.test/m" }, "config.issuers[1].jwks_url: "},
		"a name and no URL":           {func(i *guard.Issuer) { i.Issuer = "shop" }, "config.issuers[1].jwks_url: "},
		"asked by plain http":         {func(i *guard.Issuer) { i.Introspection.URL = "http://i.test/x" }, "config.issuers[1].introspection.url: "},
		"asked by plain http, opaque": {func(i *guard.Issuer) { i.Tokens, i.Introspection.URL = guard.Opaque, "http://i.test/x" }, "config.issuers[1].introspection.url: "},
		"an opaque name and no URL":   {func(i *guard.Issuer) { i.Tokens, i.Issuer = guard.Opaque, "shop" }, ""},
		"a weak algorithm":            {func(i *guard.Issuer) { i.Algorithms = []string{"HS256"} }, "config.issuers[1]: algorithms"},
	} {
		_, err := a.Guard(guard.Config{Identify: guard.Required, RedisURL: "redis://127.0.0.1:1", Issuers: []guard.Issuer{issuer(c.change)}, Alive: guard.Alive{Behind: guard.Introspect}})
		if (err == nil) != (c.wrong == "") || err != nil && (!strings.HasPrefix(err.Error(), c.wrong) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v, want %q", what, err, c.wrong)
		}
	}
}
