package gatehouse.authz_test

import data.gatehouse.authz

# A Tuesday, 10:00 UTC, from a private network.
context := {"time": "2026-03-03T10:00:00Z", "ip": "10.1.2.3"}

order := {"owner": "alice", "department": "sales"}

request(roles, method, id) := {
	"subject": {"type": "user", "id": "alice", "roles": roles, "attributes": {"department": "support"}},
	"action": {"name": method},
	"resource": {"type": "order", "id": id, "properties": order},
	"context": context,
}

patched(roles, method, id, patches) := json.patch(request(roles, method, id), patches)

others := [{"op": "replace", "path": "/resource/properties/owner", "value": "bob"}]

test_customer_lists_and_creates if {
	authz.decision == {"allow": true, "reasons": ["granted_to_customer"]} with input as request(["customer"], "GET", "/orders")
	authz.decision.allow with input as request(["customer"], "POST", "/orders")
}

test_owner_reads_and_deletes if {
	authz.decision.allow with input as request(["customer"], "GET", "17")
	authz.decision.allow with input as request(["customer"], "DELETE", "17")
}

test_another_s_order_is_denied if {
	denied := {"allow": false, "reasons": ["not_owner"]}
	authz.decision == denied with input as patched(["customer"], "GET", "17", others)
	authz.decision == denied with input as patched(["customer"], "DELETE", "17", others)
}

test_roles_are_inherited if {
	every role in ["customer", "clerk", "support", "admin"] {
		authz.decision.allow with input as request([role], "GET", "17")
	}
}

test_department_reads_but_does_not_delete if {
	same := array.concat(others, [{"op": "replace", "path": "/resource/properties/department", "value": "support"}])
	authz.decision == {"allow": true, "reasons": ["granted_to_clerk"]} with input as patched(["support"], "GET", "17", same)
	not authz.decision.allow with input as patched(["customer"], "GET", "17", same)
	not authz.decision.allow with input as patched(["support"], "DELETE", "17", same)
}

test_other_department_is_denied if {
	authz.decision == {"allow": false, "reasons": ["not_in_department", "not_owner"]} with input as patched(["support"], "GET", "17", others)
}

test_null_and_empty_attributes_match_nothing if {
	every nothing in [null, "", false, [], {}] {
		p := [
			{"op": "replace", "path": "/resource/properties/owner", "value": nothing},
			{"op": "replace", "path": "/resource/properties/department", "value": nothing},
			{"op": "replace", "path": "/subject/attributes/department", "value": nothing},
			{"op": "replace", "path": "/subject/id", "value": nothing},
		]
		not authz.decision.allow with input as patched(["support"], "GET", "17", p)
	}
}

# The first and the last second of the office hours, and the seconds around them.
office_hours := {
	"2026-03-03T05:59:59Z": false,
	"2026-03-03T06:00:00Z": true,
	"2026-03-03T19:59:59Z": true,
	"2026-03-03T20:00:00Z": false,
	"2026-03-07T12:00:00Z": true, # Saturday
	"2026-03-08T12:00:00Z": false, # Sunday
}

test_admin_deletes_in_office_hours_only if {
	every at, allowed in office_hours {
		p := array.concat(others, [{"op": "replace", "path": "/context/time", "value": at}])
		authz.decision.allow == allowed with input as patched(["admin"], "DELETE", "17", p)
	}
}

test_outside_office_hours_says_so if {
	p := array.concat(others, [{"op": "replace", "path": "/context/time", "value": "2026-03-08T12:00:00Z"}])
	authz.decision.reasons == ["not_owner", "outside_office_hours"] with input as patched(["admin"], "DELETE", "17", p)
}

networks := {
	"127.0.0.1": true, "10.255.255.255": true, "172.31.0.1": true, "192.168.1.1": true, "::1": true, "fd00::1": true,
	"11.0.0.1": false, "172.32.0.1": false, "203.0.113.9": false, "2001:db8::1": false,
}

test_admin_deletes_from_trusted_networks_only if {
	every ip, allowed in networks {
		p := array.concat(others, [{"op": "replace", "path": "/context/ip", "value": ip}])
		authz.decision.allow == allowed with input as patched(["admin"], "DELETE", "17", p)
	}
}

test_untrusted_network_says_so if {
	p := array.concat(others, [{"op": "replace", "path": "/context/ip", "value": "203.0.113.9"}])
	authz.decision.reasons == ["not_owner", "untrusted_network"] with input as patched(["admin"], "DELETE", "17", p)
}

test_admin_passes_for_a_missing_order if {
	gone := [{"op": "replace", "path": "/resource/properties", "value": {"missing": true}}]
	authz.decision.allow with input as patched(["admin"], "GET", "17", gone)
	authz.decision.allow with input as patched(["admin"], "DELETE", "17", gone)
	not authz.decision.allow with input as patched(["customer"], "GET", "17", gone)
	not authz.decision.allow with input as patched(["support"], "DELETE", "17", gone)
}

# S59: whatever the role, another tenant's object is out of reach.
test_other_tenant_is_denied if {
	every tenant in ["t2", "", false] {
		p := [
			{"op": "add", "path": "/resource/properties/tenant", "value": tenant},
			{"op": "add", "path": "/subject/tenant", "value": "t1"},
		]
		authz.decision == {"allow": false, "reasons": ["other_tenant"]} with input as patched(["admin"], "DELETE", "17", p)
	}
	no_tenant := [{"op": "add", "path": "/resource/properties/tenant", "value": "t2"}]
	not authz.decision.allow with input as patched(["admin"], "DELETE", "17", no_tenant)
}

test_own_tenant_is_allowed if {
	p := [
		{"op": "add", "path": "/resource/properties/tenant", "value": "t1"},
		{"op": "add", "path": "/subject/tenant", "value": "t1"},
	]
	authz.decision.allow with input as patched(["customer"], "DELETE", "17", p)
}

# S53: what no rule covers is denied.
test_unknown_is_denied if {
	authz.decision == {"allow": false, "reasons": ["resource_unknown"]} with input as patched(["admin"], "GET", "17", [{"op": "replace", "path": "/resource/type", "value": "invoice"}])
	authz.decision == {"allow": false, "reasons": ["action_unknown"]} with input as request(["admin"], "PATCH", "17")
	authz.decision == {"allow": false, "reasons": ["action_unknown"]} with input as request(["admin"], "DELETE", "/orders")
	authz.decision == {"allow": false, "reasons": ["role_missing"]} with input as request([], "GET", "17")
	authz.decision == {"allow": false, "reasons": ["role_missing"]} with input as request(["root"], "GET", "17")
}

test_a_pattern_with_another_parameter_is_no_collection if {
	not authz.decision.allow with input as request(["admin"], "GET", "/orders/{number}")
}

test_anonymous_is_denied_even_with_roles if {
	not authz.decision.allow with input as patched(["admin"], "GET", "17", [{"op": "replace", "path": "/subject/type", "value": "anonymous"}])
}

test_nonsense_is_denied if {
	every nonsense in [{}, null, [], "x", {"subject": {}, "resource": {}, "action": {}, "context": {}}] {
		authz.decision.allow == false with input as nonsense
	}
	not authz.decision.allow with input as request("admin", "GET", "17")
	not authz.decision.allow with input as request([["admin"]], "GET", "17")
	not authz.decision.allow with input as request(["customer"], "GET", "")
}

test_a_misspelt_condition_is_denied_and_told if {
	grants := {"order": {"read": {"customer": ["ownr"]}}}
	authz.decision == {"allow": false, "reasons": ["condition_unknown"]} with input as request(["customer"], "GET", "17")
		with data.gatehouse.grants as grants
}

test_a_grant_without_its_list_of_conditions_is_denied if {
	every nothing in [null, "", false, true, 1, {}] {
		authz.decision.allow == false with input as request(["customer"], "GET", "17")
			with data.gatehouse.grants as {"order": {"read": {"customer": nothing}}}
	}
}

test_without_data_all_is_denied if {
	authz.decision.allow == false with input as request(["admin"], "GET", "17") with data.gatehouse.grants as {}
	authz.decision.allow == false with input as request(["admin"], "GET", "17") with data.gatehouse.inherits as {}
}

# A grant for what is not there says nothing of what is, and gives no reason that a caller could do something about.
test_no_rule_is_the_last_word if {
	authz.decision == {"allow": false, "reasons": ["no_rule"]} with input as request(["clerk"], "GET", "17")
		with data.gatehouse.grants as {"order": {"read": {"clerk": ["missing"]}}}
}

test_a_role_without_this_grant_is_missing if {
	authz.decision == {"allow": false, "reasons": ["role_missing"]} with input as request(["customer"], "GET", "17")
		with data.gatehouse.grants as {"order": {"read": {"admin": []}}}
}
