package kong

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func identifyFields() []object {
	return []object{
		field("identify", oneOf("required", "required", "optional", "none"), "whether a token is needed; optional refuses a bad one all the same; with none everybody is anonymous: no token is looked at, and identity headers are taken away as everywhere"),
		field("issuers", array(record(
			field("issuer", reference(object{"required": true}), "compared with the claim iss, byte by byte"),
			field("tokens", oneOf("jwt", "jwt", "opaque", "both"), "jwt: verified by the issuer's keys; opaque: the issuer is asked for each (RFC 7662); both: it is asked for those that are no JWS. One issuer of a route at most may have opaque ones"),
			field("jwks_url", reference(object{"match": "^https?://"}), "where the issuer's key set is; without it the issuer's metadata says (OpenID Connect Discovery, RFC 8414)"),
			field("metadata_url", reference(object{"match": "^https?://"}), "where that metadata is, if not at the issuer's well-known places"),
			field("network", oneOf("public", "public", "private"), "public: https at public addresses; private: at private ones too, and by plain http there. This machine is reached where a URL says localhost or 127.0.0.1"),
			field("keys_max_age_seconds", integer(86400, 300, 2592000), "how long the last good key set is used while the issuer is away"),
			field("algorithms", object{"type": "array", "default": []string{"RS256"}, "len_min": 1, "elements": object{"type": "string", "one_of": []string{"RS256", "PS256", "ES256", "EdDSA"}}}, "pinned signature algorithms"),
			field("min_rsa_bits", integer(2048, 2048, 8192), "the smallest RSA key that is accepted"),
			field("audiences", object{"type": "array", "required": true, "len_min": 1, "elements": object{"type": "string"}}, "the token must name one of these"),
			field("types", object{"type": "array", "default": []string{"at+jwt"}, "len_min": 1, "elements": object{"type": "string"}}, "accepted typ headers"),
			field("skew_seconds", integer(30, 0, 60), "how far clocks may differ"),
			field("require", texts(object{}), "claims that must have these values, by their path"),
			field("claims", record(
				field("roles", paths("roles"), "lists of roles"),
				field("groups", paths("groups"), "lists of groups"),
				field("scope", paths("scope"), "scopes, in lists or in texts with spaces"),
				field("client_id", paths("client_id"), "the client; the first that is there"),
				field("session", object{"type": "string", "default": "sid"}, "the session, by which a log-out ends tokens"),
				field("tenant", object{"type": "string", "default": "tid"}, "the tenant that the caller belongs to"),
				field("attributes", object{"type": "string", "default": "attributes"}, "an object of attributes"),
				field("attribute_claims", texts(object{}), "further attributes, by their name for the policy"),
				field("separator", oneOf("none", "none", "space", "comma"), "what cuts roles and groups that are one text"),
			), "where a token says what: paths such as realm_access.roles, whole URLs, or pointers such as /resource_access/my.app/roles"),
			field("introspection", record(
				field("url", reference(object{"match": "^https?://"}), "the issuer's introspection endpoint (RFC 7662)"),
				field("client_id", reference(object{}), "by which the edge authenticates there (HTTP Basic)"),
				field("client_secret", object{"type": "string", "referenceable": true, "encrypted": true}, "by which the edge authenticates there"),
				field("timeout_ms", integer(1000, 50, 5000), "deadline of one question"),
				field("cache_seconds", integer(10, 0, 300), "how long an answer is good at most: a log-out at the issuer is felt that much later. A bad one is good for 10 s at most"),
			), "how the issuer is asked for opaque tokens, and by revocation.when_behind: introspect"),
		)), "whose tokens are accepted; needed unless identify is none"),
	}
}

// paths is a list of claims' paths.
func paths(def string) object {
	return object{"type": "array", "default": []string{def}, "elements": object{"type": "string"}}
}

func readIdentify(v value, c *guard.Config) error {
	c.Identify = guard.Identify(v.at("identify").text())
	for _, i := range v.at("issuers").list() {
		is := guard.Issuer{
			Issuer: i.at("issuer").text(), Tokens: guard.Tokens(i.at("tokens").text()), JWKSURL: i.at("jwks_url").text(), MetadataURL: i.at("metadata_url").text(),
			Private: i.at("network").text() == "private", KeysMaxAge: time.Duration(i.at("keys_max_age_seconds").number()) * time.Second,
			Algorithms: i.at("algorithms").texts(), Audiences: i.at("audiences").texts(), Types: i.at("types").texts(),
			Skew: time.Duration(i.at("skew_seconds").number()) * time.Second, MinRSABits: int(i.at("min_rsa_bits").number()),
			Require: i.at("require").entries(), Claims: readClaims(i.at("claims")),
		}
		n := i.at("introspection")
		is.Introspection = guard.Introspection{
			URL: n.at("url").text(), ClientID: n.at("client_id").text(), ClientSecret: telemetry.Secret(n.at("client_secret").text()),
			Timeout: time.Duration(n.at("timeout_ms").number()) * time.Millisecond, Remember: time.Duration(n.at("cache_seconds").number()) * time.Second,
		}
		c.Issuers = append(c.Issuers, is)
	}
	return nil
}

func readClaims(v value) jose.Mapping {
	m := jose.Mapping{
		Roles: claimPaths(v.at("roles")), Groups: claimPaths(v.at("groups")), Scope: claimPaths(v.at("scope")), ClientID: claimPaths(v.at("client_id")),
		Session: jose.Path(v.at("session").text()), Tenant: jose.Path(v.at("tenant").text()), Attributes: jose.Path(v.at("attributes").text()),
		Separator: map[string]string{"space": " ", "comma": ","}[v.at("separator").text()],
	}
	for name, path := range v.at("attribute_claims").entries() {
		if m.AttributeClaims == nil {
			m.AttributeClaims = map[string]jose.Path{}
		}
		m.AttributeClaims[name] = jose.Path(path)
	}
	return m
}

func claimPaths(v value) []jose.Path {
	var out []jose.Path
	for _, p := range v.texts() {
		out = append(out, jose.Path(p))
	}
	return out
}
