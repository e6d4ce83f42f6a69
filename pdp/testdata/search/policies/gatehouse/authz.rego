# The rules of AuthZEN's search scenario: owners do everything, departments and managers see, managers edit what is their department's.
package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": true} if permitted

user := data.gatehouse.users[input.subject.id]

record := data.gatehouse.records[input.resource.id]

permitted if {
	input.action.name in data.gatehouse.verbs
	record.owner == input.subject.id
	user
}

permitted if {
	input.action.name == "view"
	user.department == record.department
}

permitted if {
	input.action.name == "view"
	user.role == "manager"
	record
}

permitted if {
	input.action.name == "edit"
	user.role == "manager"
	user.department == record.department
}
