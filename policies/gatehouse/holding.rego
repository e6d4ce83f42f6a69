# The conditions of the modules beside this file, by the names that grants use, and the reasons that stand for them. Leave out what
# you do not need.
package gatehouse.authz

# METADATA
# title: The subject is cleared for the object
holding contains "clearance" if data.gatehouse.clearance.enough

# METADATA
# title: The login was strong
holding contains "strong_login" if data.gatehouse.risk.strong

# METADATA
# title: The login was a short time ago
holding contains "recent_login" if data.gatehouse.risk.recent

# METADATA
# title: It is about somebody else
holding contains "not_oneself" if data.gatehouse.admin.another

# METADATA
# title: The field is one for its owner, for support, or for admins
holding contains concat("", ["field_for_", who]) if some who in data.gatehouse.profile.open_to

# METADATA
# title: The reasons that stand for them
reason_of_module := {
	"clearance": "clearance_too_low",
	"strong_login": "login_too_weak",
	"recent_login": "login_too_old",
	"not_oneself": "own_roles",
	"field_for_owner": "field_not_for_owner",
	"field_for_support": "field_not_for_support",
	"field_for_admin": "field_not_for_admin",
}

# METADATA
# title: The reason that stands for a condition of a module
reason_for(condition) := reason_of_module[condition]

# METADATA
# title: Roles that would be enough after another login
nearly contains role if {
	some role in held
	is_array(grants[role])
	every condition in grants[role] {
		attainable(condition)
	}
}

# METADATA
# title: A condition that holds
attainable(condition) if condition in holding

# METADATA
# title: A condition that another login could fulfil
attainable(condition) if data.gatehouse.risk.need[condition]

# METADATA
# title: What the next login must be like
need := {member: value |
	some role in nearly
	some condition in grants[role]
	not condition in holding
	some member, value in data.gatehouse.risk.need[condition]
}

# METADATA
# title: Another login is enough
step_up if {
	not permitted
	not other_tenant
	count(need) > 0
}

# METADATA
# title: A denial that says what it needs
decision := {"allow": false, "reasons": sort(misses), "need": need} if step_up

# METADATA
# title: Another login opens it
open if step_up
