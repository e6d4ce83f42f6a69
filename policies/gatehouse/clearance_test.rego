package gatehouse.clearance_test

import data.gatehouse.clearance

# Levels of these tests' own.
levels := ["low", "middle", "high"]

cleared(subject, object) if {
	clearance.enough with input as {"subject": {"attributes": {"clearance": subject}}, "resource": {"properties": {"classification": object}}}
		with data.gatehouse.clearance_levels as levels
}

test_one_s_own_level_and_those_below_are_enough if {
	every level in levels {
		cleared(level, level)
	}
	cleared("middle", "low")
	cleared("high", "low")
	cleared("high", "middle")
}

test_a_level_above_is_not if {
	not cleared("low", "middle")
	not cleared("low", "high")
	not cleared("middle", "high")
}

test_what_is_no_level_is_none if {
	every nothing in [null, "", "highest", 2, false, [], {}] {
		not cleared(nothing, "low")
		not cleared("high", nothing)
		not cleared(nothing, nothing)
	}
	not clearance.enough with input as {} with data.gatehouse.clearance_levels as levels
}
