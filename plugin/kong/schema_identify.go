package kong

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func identifyFields() []object {
	return []object{
		field("identify", oneOf("required", "required", "optional", "none"), "whether a token is needed; optional refuses a bad one all the same"),
		field("issuers", array(record(
			field("issuer", reference(object{"required": true}), "compared with the claim iss, byte by byte"),
			field("jwks_url", reference(object{"required": true, "match": "^https?://"}), "where the issuer's key set is"),
			field("algorithms", object{"type": "array", "default": []string{"RS256"}, "len_min": 1, "elements": object{"type": "string", "one_of": []string{"RS256", "PS256", "ES256", "EdDSA"}}}, "pinned signature algorithms"),
			field("audiences", object{"type": "array", "required": true, "len_min": 1, "elements": object{"type": "string"}}, "the token must name one of these"),
			field("types", object{"type": "array", "default": []string{"at+jwt"}, "len_min": 1, "elements": object{"type": "string"}}, "accepted typ headers"),
			field("skew_seconds", integer(30, 0, 60), "how far clocks may differ"),
			field("roles_claim", object{"type": "string", "default": "roles"}, "claim that lists roles"),
			field("attributes_claim", object{"type": "string", "default": "attributes"}, "claim that holds an object of attributes"),
			field("tenant_claim", object{"type": "string", "default": "tid"}, "claim that names the tenant"),
		)), "whose tokens are accepted; needed unless identify is none"),
	}
}

func readIdentify(v value, c *guard.Config) error {
	c.Identify = guard.Identify(v.at("identify").text())
	for _, i := range v.at("issuers").list() {
		c.Issuers = append(c.Issuers, guard.Issuer{
			Issuer: i.at("issuer").text(), JWKSURL: i.at("jwks_url").text(), Algorithms: i.at("algorithms").texts(),
			Audiences: i.at("audiences").texts(), Types: i.at("types").texts(), Skew: time.Duration(i.at("skew_seconds").number()) * time.Second,
			RolesClaim: i.at("roles_claim").text(), AttributesClaim: i.at("attributes_claim").text(), TenantClaim: i.at("tenant_claim").text(),
		})
	}
	return nil
}
