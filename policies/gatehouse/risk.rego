# METADATA
# title: Has the subject logged in well enough for what it asks for?
# description: |
#   Some things are worth a stronger login, or one of a few minutes ago. Where only that is lacking, the decision says what it
#   needs, and the edge asks for it (a step-up, RFC 9470).
package gatehouse.risk

# METADATA
# title: The login was one of those that modules.yaml calls strong
strong if input.context.acr in data.gatehouse.login.strong

# METADATA
# title: The login was no longer ago than modules.yaml says, nor in the future, but for the issuer's clock
recent if {
	now := time.parse_rfc3339_ns(input.context.time) / 1000000000
	input.context.auth_time >= now - data.gatehouse.login.max_age
	input.context.auth_time <= now + data.gatehouse.login.skew
}

# METADATA
# title: What to ask for where a condition is lacking
need := {
	"strong_login": {"acr": data.gatehouse.login.acr},
	"recent_login": {"max_age": data.gatehouse.login.max_age},
}
