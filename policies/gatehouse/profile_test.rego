package gatehouse.profile_test

import data.gatehouse.profile

# Tables of these tests' own.
actions := {"collection": {}, "object": {"GET": "read", "PATCH": "change"}}

fields := {"nickname": {"read": ["owner", "support"], "change": ["owner"]}, "secret": {"read": [], "change": []}}

open_to(method, field) := who if {
	who := profile.open_to with input as {"action": {"name": method}, "resource": {"id": field}}
		with data.gatehouse.actions as actions
		with data.gatehouse.profile_fields as fields
}

test_a_field_is_open_to_whom_the_table_names if {
	open_to("GET", "nickname") == {"owner", "support"}
	open_to("PATCH", "nickname") == {"owner"}
}

test_a_field_may_be_open_to_nobody if {
	open_to("GET", "secret") == set()
	open_to("PATCH", "secret") == set()
}

test_a_field_or_an_action_that_is_not_in_the_table_is_nobody_s if {
	open_to("GET", "password") == set()
	open_to("DELETE", "nickname") == set()
	open_to("GET", "/profiles") == set()
}
