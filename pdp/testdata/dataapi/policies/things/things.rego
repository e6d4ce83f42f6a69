# Every kind of document.
package things

number := 12345678901234567890.5

list := ["a", {"b": null}]

unique := {"y", "x"}

named["with/slash"] := true

maybe if input.yes == true

echo := input

broken := x if {
	some y in [1, 2]
	x := y
}

html := "<a> & \u2028"
