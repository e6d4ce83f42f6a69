package kong_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

const full = `{"__seq__":1,"__plugin_id":"x","mode":null,"redis_url":"redis://r","$refs":{"redis_url":"{vault://env/x}"},
 "issuers":[{"issuer":"i","jwks_url":"http://i/jwks","audiences":["a"],"skew_seconds":null,"$refs":{}}],
 "limits":[{"name":"n","key":"ip","rate":"60-M"}],"resources":[{"pattern":"/orders/{id}","type":"order"}],"pdp":{"url":"http://pdp"}}`

func TestAConfigurationComesWithItsDefaults(t *testing.T) {
	t.Parallel()
	c, err := kong.ParseConfig([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	i := c.Issuers[0]
	if c.Mode != guard.Enforce || c.Identify != guard.Required || !c.Authorize || c.PDP.Timeout != 50*time.Millisecond || c.Challenge.When != guard.Never ||
		i.Skew != 30*time.Second || i.Algorithms[0] != "RS256" || i.Types[0] != "at+jwt" || i.Claims.Roles[0] != "roles" || c.Limits[0].Rate.Limit != 60 || c.RedisURL.Reveal() != "redis://r" {
		t.Errorf("config %+v", c)
	}
}

func TestADecisionPointComesWithWhatIsShownToIt(t *testing.T) {
	t.Parallel()
	text := strings.Replace(full, `"pdp":{"url":"http://pdp"}`, `"pdp":{"url":"https://pdp","token":"t-1","ca_file":"/ca","cert_file":"/cert","key_file":"/key"}`, 1)
	c, err := kong.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if c.PDP.Token.Reveal() != "t-1" || c.PDP.TLS != (guard.PDPFiles{CA: "/ca", Cert: "/cert", Key: "/key"}) {
		t.Errorf("pdp %+v, token %q", c.PDP, c.PDP.Token.Reveal())
	}
	if strings.Contains(fmt.Sprintf("%+v %#v", c, c), "t-1") {
		t.Error("the token prints itself")
	}
}

// Kong 3.9.1 writes into the configuration whose it is (get_plugin_config in runloop/plugins_iterator.lua).
func TestWhatKongAddsToAConfigurationIsNoUnknownField(t *testing.T) {
	t.Parallel()
	for _, of := range []string{
		`"route_id":"r","plugin_instance_name":"n"`, `"service_id":"s","consumer_id":"c"`, `"route_id":null`, `"consumer_group_id":"g","ordering":null`,
	} {
		if _, err := kong.ParseConfig([]byte(strings.Replace(full, `"__seq__":1`, `"__seq__":1,"__ws_id":"w","__key__":"k",`+of, 1))); err != nil {
			t.Errorf("%s: %v", of, err)
		}
	}
	if _, err := kong.ParseConfig([]byte(strings.Replace(full, `"key":"ip"`, `"key":"ip","route_id":"r"`, 1))); err == nil {
		t.Error("what Kong adds is taken for the plugin's own below the top")
	}
}

func TestALimitComesWithAllThatItMaySay(t *testing.T) {
	t.Parallel()
	text := strings.Replace(full, `{"name":"n","key":"ip","rate":"60-M"}`, `{"name":"n","key":"ip","rate":"60-M"},
		{"name":"o","key":"subject+header:X-Api-Key","rate":"5-S","window":"fixed","strict":true,"cost":{"POST":5,"OPTIONS":0},
		 "tiers":{"claim":"plan","rates":{"gold":"9-S"}},"exempt":{"addresses":["10.1.2.3/8","::ffff:192.0.2.1","2001:db8::1"],"subjects":["robot"]}}`, 1)
	text = strings.Replace(text, `"mode":null`, `"revocation":{"max_lag_seconds":7,"when_behind":"continue"}`, 1)
	c, err := kong.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []guard.Limit{
		{Name: "n", Key: guard.ByAddress, Rate: limit.Rate{Limit: 60, Period: time.Minute}},
		{
			Name: "o", Key: "subject+header:X-Api-Key", Rate: limit.Rate{Limit: 5, Period: time.Second}, Fixed: true, Strict: true,
			Cost: map[string]int64{"POST": 5, "OPTIONS": 0}, Tiers: guard.Tiers{Claim: "plan", Rates: map[string]limit.Rate{"gold": {Limit: 9, Period: time.Second}}},
			Exempt: guard.Exempt{
				Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128")},
				Subjects:  []string{"robot"},
			},
		},
	}
	if diff := cmp.Diff(want, c.Limits, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if want := (guard.Alive{MaxLag: 7 * time.Second, Behind: guard.Continue}); c.Alive != want {
		t.Errorf("revocation %+v", c.Alive)
	}
}

func TestAnIssuerComesWithAllThatItMaySay(t *testing.T) {
	t.Parallel()
	text := strings.Replace(full, `{"issuer":"i","jwks_url":"http://i/jwks","audiences":["a"],"skew_seconds":null,"$refs":{}}`, `{"issuer":"https://i","audiences":["a"],
		"tokens":"both","network":"private","metadata_url":"https://i/m","keys_max_age_seconds":600,"min_rsa_bits":3072,"require":{"tid":"t1"},
		"claims":{"roles":["realm_access.roles","/resource_access/my.app/roles"],"groups":[],"attribute_claims":{"plan":"https://i/plan"},"separator":"comma"},
		"introspection":{"url":"https://i/x","client_id":"edge","client_secret":"s","cache_seconds":0}}`, 1)
	c, err := kong.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := guard.Issuer{
		Issuer: "https://i", Tokens: guard.Both, MetadataURL: "https://i/m", Private: true, KeysMaxAge: 10 * time.Minute,
		Algorithms: []string{"RS256"}, Audiences: []string{"a"}, Types: []string{"at+jwt"}, Skew: 30 * time.Second, MinRSABits: 3072, Require: map[string]string{"tid": "t1"},
		Claims: jose.Mapping{
			Roles: []jose.Path{"realm_access.roles", "/resource_access/my.app/roles"}, Scope: []jose.Path{"scope"}, ClientID: []jose.Path{"client_id"},
			Session: "sid", Tenant: "tid", Attributes: "attributes", AttributeClaims: map[string]jose.Path{"plan": "https://i/plan"}, Separator: ",",
		},
		Introspection: guard.Introspection{URL: "https://i/x", ClientID: "edge", ClientSecret: "s", Timeout: time.Second},
	}
	if diff := cmp.Diff(want, c.Issuers[0]); diff != "" {
		t.Error(diff)
	}
}

func TestProofsAreCheckedAsTheConfigurationSays(t *testing.T) {
	t.Parallel()
	c, err := kong.ParseConfig([]byte(strings.Replace(full, `"mode":null`, `"dpop":{"mode":"optional","origins":["https://api.test"]}`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	want := guard.DPoP{Mode: guard.DPoPOptional, Origins: []string{"https://api.test"}, Algorithms: []string{"ES256", "EdDSA", "PS256", "RS256"}, Window: time.Minute}
	if diff := cmp.Diff(want, c.DPoP); diff != "" {
		t.Error(diff)
	}
}

func TestBrowsersAreServedAsTheConfigurationSays(t *testing.T) {
	t.Parallel()
	c, err := kong.ParseConfig([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	if c.Cookie.Name != "" || len(c.CORS.Origins) > 0 || c.Login.URL != "" {
		t.Errorf("by default: %+v %+v %+v", c.Cookie, c.CORS, c.Login)
	}
	c, err = kong.ParseConfig([]byte(strings.Replace(full, `"mode":null`, `"token_cookie":{"name":"__Host-at"},"on_unauthenticated":"redirect","login":{"url":"/login"},
		"cors":{"origins":["https://app.test"],"credentials":true,"answered_by":"upstream","expose":["ETag"]}`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	cors := guard.CORS{
		Origins: []string{"https://app.test"}, Methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, Headers: []string{"Authorization", "Content-Type"},
		Expose: []string{"ETag"}, Credentials: true, MaxAge: 10 * time.Minute, Upstream: true,
	}
	if diff := cmp.Diff(cors, c.CORS); diff != "" || c.Cookie.Name != "__Host-at" || c.Cookie.Keep || c.Login != (guard.Login{URL: "/login", Parameter: "return_to"}) {
		t.Errorf("%s%+v %+v", diff, c.Cookie, c.Login)
	}
}

func TestAWrongConfigurationIsRefusedWithThePath(t *testing.T) {
	t.Parallel()
	replace := func(old, new string) string { return strings.Replace(full, old, new, 1) }
	for path, bad := range map[string]string{
		"config: not JSON":                                           `{`,
		"config: expected a record":                                  `[]`,
		"config.mod: unknown field":                                  replace(`"mode":null`, `"mod":1`),
		"config.mode: expected one of: enforce":                      replace(`"mode":null`, `"mode":"off"`),
		"config.limits[1].key: expected ip, route, subject":          replace(`"ip"`, `"cookie"`),
		"config.limits[1].key: expected ip, route, ":                 replace(`"ip"`, `"ip subject"`),
		"config.limits[1].window: expected one of":                   replace(`"key":"ip"`, `"key":"ip","window":"leaky"`),
		"config.limits[1].tiers.rates.gold: invalid value":           replace(`"key":"ip"`, `"key":"ip","tiers":{"claim":"plan","rates":{"gold":"many"}}`),
		"config.limits[1].tiers.rates.gold: expected a number":       replace(`"key":"ip"`, `"key":"ip","tiers":{"claim":"plan","rates":{"gold":"0-M"}}`),
		"config.limits[1].cost: invalid value":                       replace(`"key":"ip"`, `"key":"ip","cost":{"post":2}`),
		"config.limits[1].cost.POST: value should be between":        replace(`"key":"ip"`, `"key":"ip","cost":{"POST":-1}`),
		"config.limits[1].exempt.addresses[1]: expected an":          replace(`"key":"ip"`, `"key":"ip","exempt":{"addresses":["10.0.0.0/33"]}`),
		"config.limits[1].strict: expected a boolean":                replace(`"key":"ip"`, `"key":"ip","strict":"very"`),
		"config.revocation.max_lag_seconds: value should be":         replace(`"mode":null`, `"revocation":{"max_lag_seconds":0}`),
		"config.revocation.when_behind: expected one of: deny":       replace(`"mode":null`, `"revocation":{"when_behind":"hope"}`),
		"config.limits[1].rate: invalid value":                       replace(`60-M`, `60 per minute`),
		"config.limits[1].rate: expected a number":                   replace(`60-M`, `0-M`),
		"config.limits[1].burst: unknown field":                      replace(`"key":"ip"`, `"key":"ip","burst":1`),
		"config.issuers[1].jwks_url: invalid value":                  replace(`http://i/jwks`, `file:///etc/passwd`),
		"config.issuers[1].audiences: required field missing":        replace(`"audiences":["a"]`, `"audiences":null`),
		"config.issuers[1].audiences: length must be at least":       replace(`["a"]`, `[]`),
		"config.issuers[1].skew_seconds: value should be":            replace(`"skew_seconds":null`, `"skew_seconds":61`),
		"config.issuers[1].skew_seconds: expected an integer":        replace(`"skew_seconds":null`, `"skew_seconds":1.5`),
		"config.issuers[1].algorithms[1]: expected one of":           replace(`"audiences"`, `"algorithms":["HS256"],"audiences"`),
		"config.pdp.url: is needed":                                  replace(`"pdp":{"url":"http://pdp"}`, `"pdp":{}`),
		"config.issuers[1].metadata_url: jwks_url says already":      replace(`"audiences"`, `"metadata_url":"http://i/m","audiences"`),
		"config.issuers[1].network: expected one of: public":         replace(`"audiences"`, `"network":"any","audiences"`),
		"config.issuers[1].tokens: opaque tokens need no keys":       replace(`"audiences"`, `"tokens":"opaque","audiences"`),
		"config.issuers[1].introspection.url: is needed for opaque":  replace(`"audiences"`, `"tokens":"both","audiences"`),
		"config.issuers[1].introspection.client_id: and client_secr": replace(`"audiences"`, `"introspection":{"url":"https://i/x"},"audiences"`),
		"config.issuers[1].introspection.cache_seconds: value shoul": replace(`"audiences"`, `"introspection":{"cache_seconds":301},"audiences"`),
		"config.issuers[1].claims.roles[2]: a claim's path has":      replace(`"audiences"`, `"claims":{"roles":["a","b..c"]},"audiences"`),
		"config.issuers[1].claims.attribute_claims.x: a claim's":     replace(`"audiences"`, `"claims":{"attribute_claims":{"x":"."}},"audiences"`),
		"config.issuers[1].min_rsa_bits: value should be":            replace(`"audiences"`, `"min_rsa_bits":1024,"audiences"`),
		"config.issuers[1].introspection.url: is needed for revocat": replace(`"mode":null`, `"revocation":{"when_behind":"introspect"}`),
		"config.issuers[2].tokens: an opaque token does not say": replace(`"issuers":[`, `"issuers":[
			{"issuer":"j","tokens":"opaque","audiences":["a"],"introspection":{"url":"https://j/x","client_id":"c","client_secret":"s"}},
			{"issuer":"k","tokens":"opaque","audiences":["a"],"introspection":{"url":"https://k/x","client_id":"c","client_secret":"s"}},`),
		"config.dpop.origins: at least one is needed":         replace(`"mode":null`, `"dpop":{"mode":"required"}`),
		"config.dpop.algorithms[1]: expected one of: ES256":   replace(`"mode":null`, `"dpop":{"algorithms":["HS256"]}`),
		"config.dpop.window_seconds: value should be":         replace(`"mode":null`, `"dpop":{"window_seconds":301}`),
		"config.token_cookie.name: invalid value":             replace(`"mode":null`, `"token_cookie":{"name":"a b"}`),
		"config.token_cookie.origins[1]: expected an origin":  replace(`"mode":null`, `"token_cookie":{"name":"a","origins":["app.test"]}`),
		"config.cors.origins: * and cors.credentials":         replace(`"mode":null`, `"cors":{"origins":["*"],"credentials":true}`),
		"config.cors.methods[1]: invalid value":               replace(`"mode":null`, `"cors":{"origins":["*"],"methods":["*"]}`),
		"config.cors.answered_by: expected one of: edge":      replace(`"mode":null`, `"cors":{"answered_by":"both"}`),
		"config.on_unauthenticated: expected one of: problem": replace(`"mode":null`, `"on_unauthenticated":"hope"`),
		"config.login.url: is needed for on_unauthenticated":  replace(`"mode":null`, `"on_unauthenticated":"redirect"`),
		"config.login.url: expected https":                    replace(`"mode":null`, `"on_unauthenticated":"redirect","login":{"url":"http://a.test"}`),
		"config.redis_url: expected a string":                 replace(`"redis://r"`, `7`),
		"config.authorize: expected a boolean":                replace(`"mode":null`, `"authorize":"yes"`),
	} {
		if _, err := kong.ParseConfig([]byte(bad)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want %q", err, path)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"limits":{},"issuers":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := kong.ParseConfig(data); err == nil && c.Validate() != nil {
			t.Errorf("taken, and not valid: %+v", c)
		}
	})
}
