package remember

import (
	"unsafe"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// SizeOf answers how many bytes a principal takes at most: its claims are what encoding/json makes of a payload, each text
// and each number in memory of its own.
func SizeOf(p *principal.Principal) int {
	size := int(unsafe.Sizeof(*p))
	for _, s := range []string{p.Issuer, p.Subject, p.ClientID, p.SessionID, p.Tenant, p.TokenID, p.KeyID, p.ACR, p.Thumbprint} {
		size += textSize(s)
	}
	for _, list := range [][]string{p.Roles, p.Groups, p.Scope, p.AMR} {
		size += 16 + 16*cap(list)
		for _, s := range list {
			size += textSize(s)
		}
	}
	return size + valueSize(p.Claims) + valueSize(p.Attributes)
}

// textSize is the size class that holds the bytes, roughly.
func textSize(s string) int { return (len(s) + 31) &^ 15 }

func valueSize(v any) int {
	switch v := v.(type) {
	case string:
		return 16 + textSize(v)
	case []any:
		size := 24 + 32*cap(v)
		for _, e := range v {
			size += valueSize(e)
		}
		return size
	case map[string]any:
		if v == nil {
			return 0
		}
		size := 48 + 320 // a map has room for eight at least, and doubles
		if len(v) > 7 {
			size = 112 + 96*len(v)
		}
		for name, e := range v {
			size += textSize(name) + valueSize(e)
		}
		return size
	default:
		return 16
	}
}
