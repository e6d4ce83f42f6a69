# METADATA
# title: What AuthZEN's searches may find
# description: |
#   Each rule answers candidates, and whether they are all that there are; the decision point asks authz.rego about each. There is
#   none for subjects and resources: users are known to who issues their tokens, orders to their service, and neither to a policy.
package gatehouse.search

import data.gatehouse.authz

# METADATA
# title: Every action that roles.yaml knows, of a collection or of one object; others are denied
actions := {"complete": true, "candidates": sort([{"name": name} | some name, _ in data.gatehouse.actions[authz.shape]])}
