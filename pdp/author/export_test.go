package author

// Said is how a change is put into words: changed and all are requests by condition.
func Said(changed, all map[string]int) (when, unless []string) {
	c := Change{changed: changed}
	c.say(all)
	return c.When, c.Unless
}
