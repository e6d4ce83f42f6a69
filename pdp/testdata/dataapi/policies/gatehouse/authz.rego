# What AuthZEN asks for; the Data API asks for the packages beside it.
package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}
