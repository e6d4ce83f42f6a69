# METADATA
# title: Has the subject logged in well enough for what it asks for?
# description: |
#   Some things are worth a stronger login, or one of a few minutes ago. Where only that is lacking, the decision says what it
#   needs, and the edge asks for it (a step-up, RFC 9470).
package gatehouse.risk

# METADATA
# title: The login was at least as strong as modules.yaml asks
strong if data.gatehouse.login.strength[input.context.acr] >= data.gatehouse.login.strength[data.gatehouse.login.acr]

# METADATA
# title: The login was no longer ago than modules.yaml asks
recent if {
	age <= data.gatehouse.login.max_age * 1000000000
	age >= data.gatehouse.login.skew * -1000000000
}

# METADATA
# title: How long ago the login was, in nanoseconds; less than nothing where the issuer's clock is ahead
age := time.parse_rfc3339_ns(input.context.time) - (input.context.auth_time * 1000000000) if is_number(input.context.auth_time)

# METADATA
# title: What to ask for where a condition is lacking
need := {
	"strong_login": {"acr": data.gatehouse.login.acr},
	"recent_login": {"max_age": data.gatehouse.login.max_age},
}
