package main

import (
	"fmt"
	"strings"
)

// The styles in which the same policy is written. Bindings, roles and permissions are data in the shape that each reads.
const (
	naive   = "naive"   // arrays, as a database dumps them
	typical = "typical" // as public examples are written: maps, iteration, glob
	indexed = "indexed" // objects under what is looked up
	ruled   = "rules"   // a rule per permission
)

const conditions = `
condition_ok("none")

condition_ok("owner") if input.resource.owner == input.subject.id

condition_ok("department") if input.resource.department == input.subject.department

condition_ok("business_hours") if {
	ns := time.parse_rfc3339_ns(input.context.time)
	not time.weekday(ns) in {"Saturday", "Sunday"}
	[hour, _, _] := time.clock(ns)
	hour >= 9
	hour < 18
}

condition_ok("network") if {
	some cidr in data.rbac.networks
	net.cidr_contains(cidr, input.context.ip)
}
`

// entry is what gatehouse-pdp needs beside a policy of another package: its own entry point.
const entry = `package gatehouse.authz

default decision := {"allow": false}

decision := {"allow": true} if data.authz.allow
`

// asAuthZEN are the names that the scenario's input has in an access evaluation request. The clock there is the decision
// point's own, so that the scenario's has another name.
var asAuthZEN = strings.NewReplacer("input.method", "input.action.name", "input.path", "input.resource.path", "input.segments", "input.resource.segments",
	"input.subject.department", "input.subject.attributes.department", "input.resource.owner", "input.resource.properties.owner",
	"input.resource.department", "input.resource.properties.department", "input.context.time", "input.context.asked_at")

// policyOf is the text in a style, for the scenario's own input.
func policyOf(style string) string {
	var b strings.Builder
	b.WriteString("package authz\n\ndefault allow := false\n")
	segments := func(p permission) string {
		rest := ""
		if p.onItem {
			rest = ", _"
		}
		return fmt.Sprintf(`["api", %q, "items"%s]`, p.service, rest)
	}
	switch style {
	case naive:
		b.WriteString(`
allow if {
	some binding in data.rbac.bindings
	binding.user == input.subject.id
	some role in data.rbac.roles
	role.name == binding.role
	some id in role.permissions
	some permission in data.rbac.permissions
	permission.id == id
	permission.method == input.method
	glob.match(permission.path, ["/"], input.path)
	condition_ok(permission.condition)
}
`)
	case typical:
		b.WriteString(`
allow if {
	some role in data.rbac.user_roles[input.subject.id]
	some permission in data.rbac.role_permissions[role]
	permission.method == input.method
	glob.match(permission.path, ["/"], input.path)
	condition_ok(permission.condition)
}
`)
	case indexed:
		b.WriteString(`
allow if {
	p := permission
	some role in data.rbac.user_roles[input.subject.id]
	data.rbac.permission_roles[p.id][role]
	condition_ok(p.condition)
}
`)
		for _, p := range permissions {
			fmt.Fprintf(&b, "\npermission := {\"id\": %q, \"condition\": %q} if {\n\tinput.method == %q\n\tinput.segments = %s\n}\n", p.id, p.condition, p.method, segments(p))
		}
	case ruled:
		for _, p := range permissions {
			fmt.Fprintf(&b, "\nallow if {\n\tinput.method == %q\n\tinput.segments = %s\n\tsome role in data.rbac.user_roles[input.subject.id]\n\tdata.rbac.permission_roles.%s[role]\n\tcondition_ok(%q)\n}\n",
				p.method, segments(p), p.id, p.condition)
		}
	}
	b.WriteString(conditions)
	return b.String()
}

// object is a JSON object.
type object = map[string]any

// dataOf is what stands below data.rbac for a style.
func dataOf(style string, users int) object {
	bound := func(u int) []string {
		var names []string
		for _, r := range rolesOf(u) {
			names = append(names, roleName(r))
		}
		return names
	}
	granted := func(r int, describe func(permission) any) []any {
		var all []any
		for _, p := range permissionsOf(r) {
			all = append(all, describe(permissions[p]))
		}
		return all
	}
	whole := func(p permission) any {
		return object{"id": p.id, "method": p.method, "path": p.pattern(), "condition": p.condition}
	}
	all := object{"networks": networks}
	if style == naive {
		var bindings, named, list []any
		for u := range users {
			for _, role := range bound(u) {
				bindings = append(bindings, object{"user": userName(u), "role": role})
			}
		}
		for r := range roles {
			named = append(named, object{"name": roleName(r), "permissions": granted(r, func(p permission) any { return p.id })})
		}
		for _, p := range permissions {
			list = append(list, whole(p))
		}
		all["bindings"], all["roles"], all["permissions"] = bindings, named, list
		return all
	}
	byUser := object{}
	for u := range users {
		byUser[userName(u)] = bound(u)
	}
	all["user_roles"] = byUser
	if style == typical {
		byRole := object{}
		for r := range roles {
			byRole[roleName(r)] = granted(r, whole)
		}
		all["role_permissions"] = byRole
		return all
	}
	byPermission := map[string]map[string]bool{}
	for _, p := range permissions {
		byPermission[p.id] = map[string]bool{}
	}
	for r := range roles {
		for _, p := range permissionsOf(r) {
			byPermission[permissions[p].id][roleName(r)] = true
		}
	}
	all["permission_roles"] = byPermission
	return all
}
