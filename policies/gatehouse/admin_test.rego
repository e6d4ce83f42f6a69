package gatehouse.admin_test

import data.gatehouse.admin

another(subject, resource) if admin.another with input as {"subject": {"id": subject}, "resource": {"id": resource}}

test_another_is_whoever_is_not_oneself if {
	another("root", "alice")
	not another("root", "root")
}

test_nobody_in_particular_may_be_anybody if {
	every nothing in [null, "", false, 1, [], {}] {
		not another(nothing, "alice")
	}
	not admin.another with input as {"subject": {}, "resource": {"id": "alice"}}
	not admin.another with input as {"subject": {"id": "root"}, "resource": {}}
}
