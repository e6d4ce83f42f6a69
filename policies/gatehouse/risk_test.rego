package gatehouse.risk_test

import data.gatehouse.risk

# A table of these tests' own.
login := {"strong": ["strong", "stronger"], "acr": "strong", "max_age": 60, "skew": 5}

# 10:00:00 UTC
now := 1772532000

context := {"time": "2026-03-03T10:00:00Z", "acr": "strong", "auth_time": now}

strong(acr) if risk.strong with input.context as {"acr": acr} with data.gatehouse.login as login

recent(auth_time) if {
	risk.recent with input.context as {"time": "2026-03-03T10:00:00Z", "auth_time": auth_time}
		with data.gatehouse.login as login
}

test_a_login_is_strong_where_the_table_says_so if {
	strong("strong")
	strong("stronger")
	not strong("weak")
}

test_an_acr_that_nobody_defined_is_not_strong if {
	every acr in ["", "strongest", null, 3, false] {
		not strong(acr)
	}
	not risk.strong with input.context as {} with data.gatehouse.login as login
}

# The first and the last second, and those around them.
test_a_login_is_recent_for_max_age if {
	every ago in [60, 59, 0, -5] {
		recent(now - ago)
	}
	every ago in [3600, 61, -6, -3600] {
		not recent(now - ago)
	}
}

test_a_login_at_no_time_is_not_recent if {
	every auth_time in [null, "", "1772532000", false, [], 0] {
		not recent(auth_time)
	}
	not risk.recent with input.context as {"time": "2026-03-03T10:00:00Z"} with data.gatehouse.login as login
	not risk.recent with input.context as {"auth_time": now} with data.gatehouse.login as login
}

test_what_is_needed_is_what_the_table_says if {
	risk.need == {"strong_login": {"acr": "strong"}, "recent_login": {"max_age": 60}} with data.gatehouse.login as login
}

test_without_a_table_no_login_is_enough if {
	not risk.strong with input.context as context with data.gatehouse.login as {}
	not risk.recent with input.context as context with data.gatehouse.login as {}
}

# modules.yaml as it is shipped, to the second.
test_five_minutes_and_half_a_minute_of_the_issuer_s_clock if {
	every auth_time, is_recent in {now - 301: false, now - 300: true, now + 30: true, now + 31: false} {
		asked := {"time": "2026-03-03T10:00:00Z", "auth_time": auth_time}
		{true | risk.recent with input.context as asked} == {true | is_recent}
	}
}

# A step-up that asks for less than it needs would never end.
test_what_is_asked_for_is_enough if {
	risk.need.strong_login == {"acr": "aal2"}
	risk.strong with input.context.acr as risk.need.strong_login.acr
}
