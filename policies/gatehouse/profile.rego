# METADATA
# title: Who may read or change a field of a profile?
# description: |
#   The resource's id is the field's name, and its property owner whose profile it is. modules.yaml says for each field who may.
package gatehouse.profile

import data.gatehouse.authz

# METADATA
# title: Those who may do with the field what is asked, among owner, support and admin
open_to contains who if some who in data.gatehouse.profile_fields[input.resource.id][authz.action]
