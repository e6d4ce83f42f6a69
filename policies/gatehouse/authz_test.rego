package gatehouse.authz_test

import data.gatehouse.authz

# Tables of these tests' own: what is tested here are the rules. roles.yaml is tested by cases and matrices, and can change.
inherits := {"customer": [], "clerk": ["customer"], "support": ["clerk"], "admin": ["support"]}

actions := {"collection": {"GET": "list", "POST": "create"}, "object": {"GET": "read", "DELETE": "delete"}}

grants := {"order": {
	"list": {"customer": []},
	"create": {"customer": []},
	"read": {"customer": ["owner"], "clerk": ["department"], "admin": ["missing"]},
	"delete": {"customer": ["owner"], "admin": ["office_hours", "trusted_network"]},
}}

by(table, asks) := decided if {
	decided := authz.decision with input as asks
		with data.gatehouse.inherits as inherits
		with data.gatehouse.actions as actions
		with data.gatehouse.grants as table
}

decision(asks) := by(grants, asks)

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
	decision(request(["customer"], "GET", "/orders")) == {"allow": true, "reasons": ["granted_to_customer"]}
	decision(request(["customer"], "POST", "/orders")).allow
}

test_owner_reads_and_deletes if {
	decision(request(["customer"], "GET", "17")).allow
	decision(request(["customer"], "DELETE", "17")).allow
}

test_another_s_order_is_denied if {
	denied := {"allow": false, "reasons": ["not_owner"]}
	decision(patched(["customer"], "GET", "17", others)) == denied
	decision(patched(["customer"], "DELETE", "17", others)) == denied
}

test_roles_are_inherited if {
	every role in ["customer", "clerk", "support", "admin"] {
		decision(request([role], "GET", "17")).allow
	}
}

test_department_reads_but_does_not_delete if {
	same := array.concat(others, [{"op": "replace", "path": "/resource/properties/department", "value": "support"}])
	decision(patched(["support"], "GET", "17", same)) == {"allow": true, "reasons": ["granted_to_clerk"]}
	not decision(patched(["customer"], "GET", "17", same)).allow
	not decision(patched(["support"], "DELETE", "17", same)).allow
}

test_other_department_is_denied if {
	decision(patched(["support"], "GET", "17", others)) == {"allow": false, "reasons": ["not_in_department", "not_owner"]}
}

test_null_and_empty_attributes_match_nothing if {
	every nothing in [null, "", false, [], {}] {
		p := [
			{"op": "replace", "path": "/resource/properties/owner", "value": nothing},
			{"op": "replace", "path": "/resource/properties/department", "value": nothing},
			{"op": "replace", "path": "/subject/attributes/department", "value": nothing},
			{"op": "replace", "path": "/subject/id", "value": nothing},
		]
		not decision(patched(["support"], "GET", "17", p)).allow
	}
}

# The first and the last second of the office hours, and the seconds around them.
office_hours := {
	"2026-03-03T05:59:59Z": false,
	"2026-03-03T06:00:00Z": true,
	"2026-03-03T19:59:59Z": true,
	"2026-03-03T20:00:00Z": false,
	"2026-03-02T12:00:00Z": true, # Monday
	"2026-03-04T12:00:00Z": true,
	"2026-03-05T12:00:00Z": true,
	"2026-03-06T12:00:00Z": true,
	"2026-03-07T12:00:00Z": true, # Saturday
	"2026-03-08T12:00:00Z": false, # Sunday
}

test_admin_deletes_in_office_hours_only if {
	every at, allowed in office_hours {
		p := array.concat(others, [{"op": "replace", "path": "/context/time", "value": at}])
		decision(patched(["admin"], "DELETE", "17", p)).allow == allowed
	}
}

test_outside_office_hours_says_so if {
	p := array.concat(others, [{"op": "replace", "path": "/context/time", "value": "2026-03-08T12:00:00Z"}])
	decision(patched(["admin"], "DELETE", "17", p)).reasons == ["not_owner", "outside_office_hours"]
}

networks := {
	"127.0.0.1": true, "10.255.255.255": true, "172.31.0.1": true, "192.168.1.1": true, "::1": true, "fd00::1": true,
	"11.0.0.1": false, "172.32.0.1": false, "203.0.113.9": false, "2001:db8::1": false,
}

test_admin_deletes_from_trusted_networks_only if {
	every ip, allowed in networks {
		p := array.concat(others, [{"op": "replace", "path": "/context/ip", "value": ip}])
		decision(patched(["admin"], "DELETE", "17", p)).allow == allowed
	}
}

test_untrusted_network_says_so if {
	p := array.concat(others, [{"op": "replace", "path": "/context/ip", "value": "203.0.113.9"}])
	decision(patched(["admin"], "DELETE", "17", p)).reasons == ["not_owner", "untrusted_network"]
}

test_admin_passes_for_a_missing_order if {
	gone := [{"op": "replace", "path": "/resource/properties", "value": {"missing": true}}]
	decision(patched(["admin"], "GET", "17", gone)).allow
	decision(patched(["admin"], "DELETE", "17", gone)).allow
	not decision(patched(["customer"], "GET", "17", gone)).allow
	not decision(patched(["support"], "DELETE", "17", gone)).allow
}

# S59: whatever the role, another tenant's object is out of reach.
test_other_tenant_is_denied if {
	every tenant in ["t2", "", false] {
		p := [
			{"op": "add", "path": "/resource/properties/tenant", "value": tenant},
			{"op": "add", "path": "/subject/tenant", "value": "t1"},
		]
		decision(patched(["admin"], "DELETE", "17", p)) == {"allow": false, "reasons": ["other_tenant"]}
		decision(patched(["customer"], "DELETE", "17", array.concat(others, p))) == {"allow": false, "reasons": ["other_tenant"]}
	}
	no_tenant := [{"op": "add", "path": "/resource/properties/tenant", "value": "t2"}]
	not decision(patched(["admin"], "DELETE", "17", no_tenant)).allow
}

test_own_tenant_is_allowed if {
	p := [
		{"op": "add", "path": "/resource/properties/tenant", "value": "t1"},
		{"op": "add", "path": "/subject/tenant", "value": "t1"},
	]
	decision(patched(["customer"], "DELETE", "17", p)).allow
}

# S53: what no rule covers is denied.
test_unknown_is_denied if {
	decision(patched(["admin"], "GET", "17", [{"op": "replace", "path": "/resource/type", "value": "invoice"}])) == {"allow": false, "reasons": ["resource_unknown"]}
	decision(request(["admin"], "PATCH", "17")) == {"allow": false, "reasons": ["action_unknown"]}
	decision(request(["admin"], "DELETE", "/orders")) == {"allow": false, "reasons": ["action_unknown"]}
	decision(request([], "GET", "17")) == {"allow": false, "reasons": ["role_missing"]}
	decision(request(["root"], "GET", "17")) == {"allow": false, "reasons": ["role_missing"]}
}

test_a_pattern_with_another_parameter_is_no_collection if {
	not decision(request(["admin"], "GET", "/orders/{number}")).allow
}

test_anonymous_is_denied_even_with_roles if {
	not decision(patched(["admin"], "GET", "17", [{"op": "replace", "path": "/subject/type", "value": "anonymous"}])).allow
}

test_nonsense_is_denied if {
	every nonsense in [{}, null, [], "x", {"subject": {}, "resource": {}, "action": {}, "context": {}}] {
		decision(nonsense).allow == false
	}
	not decision(request("admin", "GET", "17")).allow
	not decision(request([["admin"]], "GET", "17")).allow
	not decision(request(["customer"], "GET", "")).allow
}

test_a_misspelt_condition_is_denied_and_told if {
	by({"order": {"read": {"customer": ["ownr"]}}}, request(["customer"], "GET", "17")) == {"allow": false, "reasons": ["condition_unknown"]}
}

test_a_grant_without_its_list_of_conditions_is_denied if {
	every nothing in [null, "", false, true, 1, {}] {
		by({"order": {"read": {"customer": nothing}}}, request(["customer"], "GET", "17")).allow == false
	}
}

test_without_data_all_is_denied if {
	authz.decision.allow == false with input as request(["admin"], "GET", "17") with data.gatehouse.grants as {}
	authz.decision.allow == false with input as request(["admin"], "GET", "17") with data.gatehouse.inherits as {}
}

# A grant for what is not there says nothing of what is, and gives no reason that a caller could do something about.
test_no_rule_is_the_last_word if {
	by({"order": {"read": {"clerk": ["missing"]}}}, request(["clerk"], "GET", "17")) == {"allow": false, "reasons": ["no_rule"]}
}

test_a_role_without_this_grant_is_missing if {
	by({"order": {"read": {"admin": []}}}, request(["customer"], "GET", "17")) == {"allow": false, "reasons": ["role_missing"]}
}
