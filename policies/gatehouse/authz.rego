# METADATA
# title: May this subject do this to that resource?
# description: |
#   Deny by default. A decision is allowed when one of the subject's roles, its own or inherited, is granted the action
#   (roles.yaml) and every condition of that grant holds. The input is described in docs/policies.md.
# entrypoint: true
package gatehouse.authz

# METADATA
# title: The decision and its reasons
# scope: document
default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": true, "reasons": sort({concat("", ["granted_to_", role]) | some role in satisfied})} if permitted

decision := {"allow": false, "reasons": sort(misses)} if {
	not open
	count(misses) > 0
}

# METADATA
# title: Some role is enough, and the object is not of another tenant
permitted if {
	count(satisfied) > 0
	not other_tenant
}

# METADATA
# title: What is asked, in the words of roles.yaml
action := data.gatehouse.actions[shape][input.action.name]

# METADATA
# title: Whether a collection is asked for or one object
# scope: document
# description: |
#   The edge names a collection by its path pattern and an object by its id. A pattern with a parameter that is not the
#   object's id is neither: nothing is known about the object.
shape := "collection" if {
	startswith(input.resource.id, "/")
	not contains(input.resource.id, "{")
}

shape := "object" if {
	input.resource.id != ""
	not startswith(input.resource.id, "/")
}

# METADATA
# title: Every role that the subject holds, inherited ones included; only users hold roles
held := graph.reachable(data.gatehouse.inherits, {role |
	input.subject.type == "user"
	some role in input.subject.roles
})

# METADATA
# title: Which roles may do what is asked, and under which conditions
grants := data.gatehouse.grants[input.resource.type][action]

# METADATA
# title: Roles that are granted the action, and all of whose conditions hold
satisfied contains role if {
	some role in held
	is_array(grants[role])
	every condition in grants[role] {
		condition in holding
	}
}

# The conditions. A new one needs a rule here, a reason at the end, and tests.

# METADATA
# title: The object is the subject's
holding contains "owner" if {
	is_string(input.subject.id)
	input.subject.id != ""
	input.resource.properties.owner == input.subject.id
}

# METADATA
# title: The object is of the subject's department
holding contains "department" if {
	is_string(input.subject.attributes.department)
	input.subject.attributes.department != ""
	input.resource.properties.department == input.subject.attributes.department
}

# METADATA
# title: There is no such object
holding contains "missing" if input.resource.properties.missing == true

# METADATA
# title: It is between the first and the last hour of a working day, UTC
holding contains "office_hours" if {
	now := time.parse_rfc3339_ns(input.context.time)
	time.weekday(now) in data.gatehouse.office_hours.days
	[hour, _, _] := time.clock(now)
	hour >= data.gatehouse.office_hours.first_hour
	hour < data.gatehouse.office_hours.last_hour
}

# METADATA
# title: The request comes from a trusted network
holding contains "trusted_network" if {
	some network in data.gatehouse.trusted_networks
	net.cidr_contains(network, input.context.ip)
}

# METADATA
# title: An object of a tenant is for subjects of that tenant alone, whatever their role
other_tenant if {
	object.get(input.resource.properties, "tenant", null) != null
	not same_tenant
}

# METADATA
# title: The object is of the subject's tenant
same_tenant if input.resource.properties.tenant == input.subject.tenant

# Why not: every way that was nearly open says what it lacked.

# METADATA
# title: The object is of another tenant
misses contains "other_tenant" if other_tenant

# METADATA
# title: A role would be enough if this condition held
misses contains reason if {
	not other_tenant
	some role in held
	some condition in grants[role]
	not condition in holding
	condition != "missing" # not something that a caller could come to fulfil
	reason := reason_for(condition)
}

# METADATA
# title: No grant speaks of this type of resource
misses contains "resource_unknown" if not data.gatehouse.grants[input.resource.type]

# METADATA
# title: No grant speaks of this action on it
misses contains "action_unknown" if {
	data.gatehouse.grants[input.resource.type]
	not grants
}

# METADATA
# title: No role of the subject's is granted the action
misses contains "role_missing" if {
	grants
	count([role | some role in held; grants[role]]) == 0
}

# METADATA
# title: The reason that stands for a condition
reason_of := {
	"owner": "not_owner",
	"department": "not_in_department",
	"office_hours": "outside_office_hours",
	"trusted_network": "untrusted_network",
}

# METADATA
# title: More can be said than no
# scope: document
open if permitted

# METADATA
# title: The reason that stands for a condition, wherever that is written
# scope: document
default reason_for(_) := "condition_unknown"

reason_for(condition) := reason_of[condition]
