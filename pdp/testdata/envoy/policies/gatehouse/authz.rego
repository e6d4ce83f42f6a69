package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}
