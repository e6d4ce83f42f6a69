package jose

// For tests of what comes in from outside.
var (
	ReadObject   = readObject
	ReadMetadata = readMetadata
	WellKnown    = wellKnown
)

// In is Path's look-up.
func (p Path) In(c map[string]any) any { return p.in(c) }
