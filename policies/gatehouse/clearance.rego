# METADATA
# title: Is the subject cleared for what it asks for?
# description: |
#   Levels are names; modules.yaml says how high each is. What has no level, or one that nobody defined, is for nobody.
package gatehouse.clearance

# METADATA
# title: The subject's level is at least that of the object
enough if levels[input.subject.attributes.clearance] >= levels[input.resource.properties.classification]

# METADATA
# title: How high each level is
levels := data.gatehouse.clearance_levels
