# METADATA
# title: Is the subject cleared for what it asks for?
# description: |
#   Levels are names; modules.yaml lists them, the lowest first. What has no level, or one that is not there, is for nobody.
package gatehouse.clearance

# METADATA
# title: The subject's level is that of the object, or comes after it
enough if {
	some height, level in data.gatehouse.clearance_levels
	level == input.subject.attributes.clearance
	some wanted, classification in data.gatehouse.clearance_levels
	classification == input.resource.properties.classification
	height >= wanted
}
