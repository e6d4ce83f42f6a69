package remember

import (
	"unsafe"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// SizeOf answers how many bytes a principal takes, rather too many than too few. Its claims are what encoding/json makes of a
// payload, each text and number in memory of its own; what else is in it are the same texts in other lists.
func SizeOf(p *principal.Principal) int {
	size := int(unsafe.Sizeof(*p)) + textSize(p.KeyID)
	for _, list := range [][]string{p.Roles, p.Groups, p.Scope, p.AMR} {
		size += 16 * cap(list)
	}
	return size + valueSize(p.Claims) + mapSize(len(p.Attributes))
}

// textSize is the size class that holds the bytes, roughly.
func textSize(s string) int { return (len(s) + 15) &^ 15 }

// mapSize is a map of any values by text, for so many: eight places to begin with, then twice as many whenever it is 7/8 full.
func mapSize(n int) int {
	if n == 0 {
		return 0
	}
	places := 8
	for n > places*7/8 && n > 8 {
		places *= 2
	}
	return 112 + 34*places
}

func valueSize(v any) int {
	switch v := v.(type) {
	case string:
		return 16 + textSize(v)
	case []any:
		size := 24 + 16*cap(v)
		for _, e := range v {
			size += valueSize(e)
		}
		return size
	case map[string]any:
		size := mapSize(len(v))
		for name, e := range v {
			size += textSize(name) + valueSize(e)
		}
		return size
	default:
		return 8
	}
}
