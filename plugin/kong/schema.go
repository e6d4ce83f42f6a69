package kong

import (
	"encoding/json"
	"io"
)

// What Kong is told of the plugin. Priority 1500 runs it before every bundled authentication and rate limit (jwt 1450) and
// after cors (2000), which answers preflights.
const (
	Name     = "gatehouse"
	Version  = "0.1.0"
	Priority = 1500
)

type object = map[string]any

// Dump writes what Kong's query command expects: one JSON object. It needs neither network nor socket.
func Dump(w io.Writer, socket string) error {
	return json.NewEncoder(w).Encode(object{
		"Protocol":   "ProtoBuf:1",
		"SocketPath": socket,
		"Plugins": []object{{
			"Name": Name, "Version": Version, "Priority": Priority, "Phases": []string{"access"}, "Schema": Schema(),
		}},
	})
}

// Schema is the configuration's schema in Kong's own form, by hand: reflection could say neither defaults nor bounds.
func Schema() object {
	return object{"name": Name, "fields": []object{
		{"consumer": object{"type": "foreign", "reference": "consumers", "eq": nil}},
		{"protocols": object{"type": "set", "default": []string{"http", "https"}, "elements": object{"type": "string", "one_of": []string{"http", "https"}}}},
		{"config": record(
			field("mode", oneOf("enforce", "enforce", "observe"), "what a denial does: stop the request, or only be logged"),
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
			field("limits", array(record(
				field("name", object{"type": "string", "required": true, "match": "^[%w_-]+$"}, "shown in RateLimit"),
				field("key", object{"type": "string", "required": true, "one_of": []string{"ip", "subject"}}, "what is counted by"),
				field("rate", object{"type": "string", "required": true, "match": "^%d+%-[SMHD]$"}, "requests per second, minute, hour or day, such as 60-M"),
			)), "every one counts every request"),
			field("challenge", record(
				field("when", oneOf("never", "never", "always"), "whether a proof of work is asked for"),
				field("action", object{"type": "string"}, "what the proof is good for"),
				field("secret", object{"type": "string", "referenceable": true, "encrypted": true}, "signs challenges; at least 32 bytes, the same everywhere"),
				field("max_number", integer(50000, 1000, 5000000), "the work: half as many hashes on average"),
				field("ttl_seconds", integer(300, 10, 3600), "how long a challenge is good"),
			), "ALTCHA"),
			field("authorize", object{"type": "boolean", "default": true}, "whether the policy is asked"),
			field("resources", array(record(
				field("pattern", object{"type": "string", "required": true, "match": "^/"}, "a path; {id} is one segment"),
				field("type", object{"type": "string", "required": true}, "the resource type that the policy sees"),
			)), "what paths stand for; a path that none covers is denied"),
			field("pdp", record(
				field("url", object{"type": "string", "referenceable": true}, "http://host:port or unix:///path"),
				field("timeout_ms", integer(50, 1, 1000), "deadline of a decision"),
			), "the decision point"),
			field("redis_url", object{"type": "string", "referenceable": true, "encrypted": true}, "for revocations, limits and challenges"),
		)},
	}}
}

func field(name string, f object, description string) object {
	f["description"] = description
	return object{name: f}
}

func record(fields ...object) object {
	return object{"type": "record", "required": true, "fields": fields}
}

func array(element object) object {
	delete(element, "required")
	return object{"type": "array", "default": []any{}, "elements": element}
}

func oneOf(def string, values ...string) object {
	return object{"type": "string", "default": def, "one_of": values}
}

func integer(def, low, high int) object {
	return object{"type": "integer", "default": def, "between": []int{low, high}}
}

func reference(f object) object {
	f["type"], f["referenceable"] = "string", true
	return f
}
