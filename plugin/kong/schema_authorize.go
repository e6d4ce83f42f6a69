package kong

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func authorizeFields() []object {
	return []object{
		field("authorize", object{"type": "boolean", "default": true}, "whether the policy is asked"),
		field("resources", array(record(
			field("pattern", object{"type": "string", "required": true, "match": "^/"}, "a path; {id} is one segment"),
			field("type", object{"type": "string", "required": true}, "the resource type that the policy sees"),
			field("action", object{"type": "string", "match": "^[%w._-]+$"}, "the action that the policy sees; without one, the method. For paths such as /orders/delete, whose method says less than they do"),
			field("ids", record(
				field("in", oneOf("path", "path", "query", "body"), "where they stand: at {id} in the path, in a parameter of the query, or in the body. Elsewhere than in the path there may be several; the request passes if all may pass"),
				field("parameter", object{"type": "string", "default": "ids", "match": "^[%w_-]+$"}, "of the query: ids with commas between them, in one parameter or in several of this name"),
				field("optional", object{"type": "boolean", "default": false}, "in the query: without the parameter the request is for the collection, and the policy is asked about that"),
				field("pointer", object{"type": "string", "default": "/ids"}, "in a JSON body: a JSON Pointer (RFC 6901) at an id or an array of ids. A token * is every element of an array: /items/*/id"),
				field("max_bytes", integer(16384, 1, 1048576), "the largest body; larger than nginx_http_client_body_buffer_size Kong cannot show one"),
				field("most", integer(100, 1, 1000), "ids in one request; the decision point's PDP_MAX_BATCH has to allow for them"),
			), "where a request names its objects"),
		)), "what paths stand for; a path that none covers is denied"),
		field("pdp", record(
			field("url", object{"type": "string", "referenceable": true}, "http://host:port or unix:///path"),
			field("others", object{"type": "array", "default": []any{}, "elements": object{"type": "string", "referenceable": true}}, "decision points that decide alike, asked in this order when the first is not well"),
			field("timeout_ms", integer(50, 1, 1000), "deadline of a decision, whoever makes it"),
			field("token", object{"type": "string", "referenceable": true, "encrypted": true}, "shown to the decision points, for their PDP_TOKENS_FILE"),
			field("ca_file", object{"type": "string"}, "PEM file of the authorities of decision points with https; without one, those of the system"),
			field("cert_file", object{"type": "string"}, "PEM file of the certificate shown to decision points with https; read again for each connection"),
			field("key_file", object{"type": "string"}, "PEM file of its private key"),
			field("cache_ttl_ms", integer(1000, 0, 2000), "how long a decision may be remembered at most, where the decision point lets it be; 0 for never"),
			field("cache_entries", integer(8192, 1, 1000000), "how many decisions are remembered, of at most 4 KB each"),
		), "the decision point"),
		field("obligations", record(
			field("upstream_headers", headerNames(), "headers that a decision may set on the request; overwritten always, so that no client can"),
			field("response_headers", headerNames(), "headers that a decision may set on the answer"),
		), "what an allowance may ask for; one that asks for more is refused"),
	}
}

func headerNames() object {
	return object{"type": "array", "default": []any{}, "elements": object{"type": "string", "match": "^[%w%-]+$"}}
}

func milliseconds(v value) time.Duration { return time.Duration(v.number()) * time.Millisecond }

func readAuthorize(v value, c *guard.Config) error {
	c.Authorize = v.at("authorize").flag()
	pdp, obligations := v.at("pdp"), v.at("obligations")
	c.PDP = guard.PDP{
		URL: pdp.at("url").text(), Others: pdp.at("others").texts(), Timeout: milliseconds(pdp.at("timeout_ms")),
		Token: telemetry.Secret(pdp.at("token").text()), TLS: guard.PDPFiles{CA: pdp.at("ca_file").text(), Cert: pdp.at("cert_file").text(), Key: pdp.at("key_file").text()},
		Cache: guard.DecisionCache{TTL: milliseconds(pdp.at("cache_ttl_ms")), Entries: int(pdp.at("cache_entries").number())},
	}
	c.Obligations = guard.Obligations{
		UpstreamHeaders: obligations.at("upstream_headers").texts(), ResponseHeaders: obligations.at("response_headers").texts(),
	}
	for _, r := range v.at("resources").list() {
		c.Resources = append(c.Resources, guard.Resource{
			Pattern: r.at("pattern").text(), Type: r.at("type").text(), Action: r.at("action").text(), IDs: readIDs(r.at("ids")),
		})
	}
	return nil
}

func readIDs(v value) guard.IDs {
	return guard.IDs{
		In: guard.Place(v.at("in").text()), Pointer: v.at("pointer").text(), Parameter: v.at("parameter").text(), Optional: v.at("optional").flag(),
		Most: int(v.at("most").number()), MaxBytes: int(v.at("max_bytes").number()),
	}
}
