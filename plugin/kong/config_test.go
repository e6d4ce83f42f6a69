package kong_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
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
	if c.Mode != guard.Enforce || c.Identify != guard.Required || !c.Authorize || c.PDP.Timeout != 50*time.Millisecond || c.Challenge.Always ||
		i.Skew != 30*time.Second || i.Algorithms[0] != "RS256" || i.Types[0] != "at+jwt" || i.RolesClaim != "roles" || c.Limits[0].Rate.Limit != 60 || c.RedisURL.Reveal() != "redis://r" {
		t.Errorf("config %+v", c)
	}
}

func TestAWrongConfigurationIsRefusedWithThePath(t *testing.T) {
	t.Parallel()
	replace := func(old, new string) string { return strings.Replace(full, old, new, 1) }
	for path, bad := range map[string]string{
		"config: not JSON":                                     `{`,
		"config: expected a record":                            `[]`,
		"config.mod: unknown field":                            replace(`"mode":null`, `"mod":1`),
		"config.mode: expected one of: enforce":                replace(`"mode":null`, `"mode":"off"`),
		"config.limits[1].key: expected one of: ip, subject":   replace(`"ip"`, `"cookie"`),
		"config.limits[1].rate: invalid value":                 replace(`60-M`, `60 per minute`),
		"config.limits[1].rate: expected a number":             replace(`60-M`, `0-M`),
		"config.limits[1].burst: unknown field":                replace(`"key":"ip"`, `"key":"ip","burst":1`),
		"config.issuers[1].jwks_url: invalid value":            replace(`http://i/jwks`, `file:///etc/passwd`),
		"config.issuers[1].audiences: required field missing":  replace(`"audiences":["a"]`, `"audiences":null`),
		"config.issuers[1].audiences: length must be at least": replace(`["a"]`, `[]`),
		"config.issuers[1].skew_seconds: value should be":      replace(`"skew_seconds":null`, `"skew_seconds":61`),
		"config.issuers[1].skew_seconds: expected an integer":  replace(`"skew_seconds":null`, `"skew_seconds":1.5`),
		"config.issuers[1].algorithms[1]: expected one of":     replace(`"audiences"`, `"algorithms":["HS256"],"audiences"`),
		"config.pdp.url: is needed":                            replace(`"pdp":{"url":"http://pdp"}`, `"pdp":{}`),
		"config.redis_url: expected a string":                  replace(`"redis://r"`, `7`),
		"config.authorize: expected a boolean":                 replace(`"mode":null`, `"authorize":"yes"`),
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
