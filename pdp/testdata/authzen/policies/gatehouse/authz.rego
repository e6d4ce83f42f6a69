# The rules of AuthZEN's todo application: everybody reads, editors keep their own todos, admins delete all, and who is an
# evil genius changes all.
package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": true} if permitted

user := data.gatehouse.users[input.subject.id]

permitted if {
	input.action.name in {"can_read_user", "can_read_todos"}
	user
}

permitted if {
	input.action.name == "can_create_todo"
	some role in user.roles
	role in {"admin", "editor"}
}

permitted if {
	input.action.name in {"can_update_todo", "can_delete_todo"}
	"editor" in user.roles
	input.resource.properties.ownerID == user.email
}

permitted if {
	input.action.name == "can_update_todo"
	"evil_genius" in user.roles
}

permitted if {
	input.action.name == "can_delete_todo"
	"admin" in user.roles
}
