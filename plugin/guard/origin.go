package guard

import (
	"fmt"
	"net/url"
	"strings"
)

// validateOrigins refuses what no browser would send as Origin, and so could never match.
func validateOrigins(wrong reject, path string, origins []string) {
	for i, o := range origins {
		if !isOrigin(o) {
			wrong(fmt.Sprintf("%s[%d]", path, i+1), "expected an origin as browsers write it, such as https://app.example.com")
		}
	}
}

// isOrigin reports whether s is a serialized origin (RFC 6454 section 6.2): scheme, host in lower case, and a port that is not
// the scheme's own.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Scheme+"://"+u.Host != s || strings.ToLower(s) != s || !plain(s) {
		return false
	}
	ownPort := map[string]string{"https": "443", "http": "80"}[u.Scheme]
	return !strings.HasSuffix(u.Host, ":") && u.Port() != ownPort && !strings.Contains(s, "*")
}
