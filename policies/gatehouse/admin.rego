# METADATA
# title: May an administrator do this to that user?
# description: |
#   That nobody changes their own roles. The rest of what administrators must show, a second factor, a recent login and a trusted
#   network, are conditions of others, which the grants in roles.yaml ask for beside this one.
package gatehouse.admin

# METADATA
# title: The user in question is somebody else; who does not say who they are may be anybody
another if {
	is_string(input.subject.id)
	input.subject.id != ""
	input.resource.id != input.subject.id
}
