package kong

import (
	"strings"
	"testing"
)

func TestReferencesAreReadFromTheEnvironmentAsKongDoes(t *testing.T) {
	t.Parallel()
	vault := Environment(func(variable string) (string, bool) {
		v, ok := map[string]string{"GATEHOUSE_REDIS_URL": "redis://canary", "KEYS": "https://idp.test/keys"}[variable]
		return v, ok
	})
	given := map[string]any{
		"issuers":   []any{map[string]any{"issuer": "https://idp.test", "jwks_url": "{vault://env/keys}", "audiences": []any{"a"}}},
		"authorize": false, "redis_url": "{vault://env/gatehouse-redis-url}",
	}
	c, err := ReadConfig(given, vault)
	if err != nil {
		t.Fatal(err)
	}
	if c.RedisURL.Reveal() != "redis://canary" || c.Issuers[0].JWKSURL != "https://idp.test/keys" || c.Issuers[0].Skew == 0 {
		t.Errorf("%+v", c)
	}
	for _, reference := range []string{"{vault://env/absent}", "{vault://aws/keys}", "{vault://env/keys"} {
		given["redis_url"] = reference
		if _, err := ReadConfig(given, vault); err == nil || !strings.HasPrefix(err.Error(), "config.redis_url: ") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", reference, err)
		}
	}
	given["redis_url"] = 7
	if _, err := ReadConfig(given, vault); err == nil || !strings.HasPrefix(err.Error(), "config.redis_url: ") {
		t.Errorf("a number for a text: %v", err)
	}
}
