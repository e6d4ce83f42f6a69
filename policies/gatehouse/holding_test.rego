package gatehouse.holding_test

import data.gatehouse.authz

# A table of these tests' own; each condition alone.
grants(conditions) := {"thing": {"read": {"reader": conditions}}}

base := {
	"subject": {"type": "user", "id": "alice", "roles": ["reader"], "attributes": {"clearance": "low"}},
	"action": {"name": "GET"},
	"resource": {"type": "thing", "id": "17", "properties": {"classification": "low"}},
	"context": {"time": "2026-03-03T10:00:00Z", "ip": "10.1.2.3", "acr": "strong", "auth_time": 1772532000},
}

decided(asks, table) := decision if {
	decision := authz.decision with input as asks
		with data.gatehouse.inherits as {"reader": [], "writer": []}
		with data.gatehouse.actions as {"collection": {}, "object": {"GET": "read"}}
		with data.gatehouse.grants as table
		with data.gatehouse.clearance_levels as ["low", "high"]
		with data.gatehouse.login as {"strong": ["strong"], "acr": "strong", "max_age": 60, "skew": 5}
		with data.gatehouse.profile_fields as {"17": {"read": ["owner", "support", "admin"]}}
}

but(path, value) := json.patch(base, [{"op": "replace", "path": path, "value": value}])

allowed := {"allow": true, "reasons": ["granted_to_reader"]}

test_each_condition_holds if {
	every condition in ["clearance", "strong_login", "recent_login", "not_oneself", "field_for_owner", "field_for_support", "field_for_admin"] {
		decided(base, grants([condition])) == allowed
	}
}

test_each_condition_has_its_reason if {
	every condition, lacking in {
		"clearance": {"but": but("/resource/properties/classification", "high"), "reason": "clearance_too_low"},
		"not_oneself": {"but": but("/subject/id", "17"), "reason": "own_roles"},
		"field_for_owner": {"but": but("/resource/id", "18"), "reason": "field_not_for_owner"},
		"field_for_support": {"but": but("/resource/id", "18"), "reason": "field_not_for_support"},
		"field_for_admin": {"but": but("/resource/id", "18"), "reason": "field_not_for_admin"},
	} {
		decided(lacking.but, grants([condition])) == {"allow": false, "reasons": [lacking.reason]}
	}
}

weak := but("/context/acr", "weak")

old := but("/context/auth_time", 1772530000)

test_a_weak_login_needs_a_stronger_one if {
	decided(weak, grants(["strong_login"])) == {"allow": false, "reasons": ["login_too_weak"], "need": {"acr": "strong"}}
}

test_an_old_login_needs_a_fresh_one if {
	decided(old, grants(["recent_login"])) == {"allow": false, "reasons": ["login_too_old"], "need": {"max_age": 60}}
}

test_one_login_is_asked_to_be_both if {
	both := object.union(weak, {"context": {"auth_time": 1772530000}})
	decided(both, grants(["strong_login", "recent_login"])) == {
		"allow": false, "reasons": ["login_too_old", "login_too_weak"],
		"need": {"acr": "strong", "max_age": 60},
	}
}

test_only_what_is_lacking_is_needed if {
	decided(old, grants(["strong_login", "recent_login"])).need == {"max_age": 60}
	decided(weak, grants(["strong_login", "recent_login", "clearance"])).need == {"acr": "strong"}
	decided(json.patch(weak, [{"op": "remove", "path": "/context/auth_time"}]), grants(["strong_login"])).need == {"acr": "strong"}
}

# A login that would not be enough is not asked for.
test_nothing_is_needed_where_a_login_does_not_help if {
	decided(weak, grants(["strong_login", "owner"])) == {"allow": false, "reasons": ["login_too_weak", "not_owner"]}
	decided(weak, {"thing": {"read": {"writer": ["strong_login"]}}}) == {"allow": false, "reasons": ["role_missing"]}
	decided(weak, grants({"x": "strong_login"})) == {"allow": false, "reasons": ["login_too_weak"]}
	decided(but("/resource/properties", {"tenant": "acme"}), grants(["strong_login"])) == {"allow": false, "reasons": ["other_tenant"]}
	elsewhere := json.patch(weak, [{"op": "add", "path": "/resource/properties/tenant", "value": "acme"}])
	decided(elsewhere, grants(["strong_login"])) == {"allow": false, "reasons": ["other_tenant"]}
}

test_nothing_is_needed_where_another_role_is_enough if {
	asks := json.patch(weak, [{"op": "add", "path": "/subject/roles/-", "value": "writer"}])
	decided(asks, {"thing": {"read": {"reader": ["strong_login"], "writer": []}}}) == {"allow": true, "reasons": ["granted_to_writer"]}
}
