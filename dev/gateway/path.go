package gateway

import (
	"fmt"
	"strconv"
	"strings"
)

// reserved are the characters that stay encoded where the client sent them encoded.
const reserved = "!*'();:@&=+$,/?%#[]"

// normalize answers the path by which Kong looks for a route and from which it makes the upstream's: all triplets decoded but
// those of reserved characters, dot segments resolved, slashes merged. It is false where nginx itself answers 400: for half a
// triplet and for a zero byte.
func normalize(path string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			b.WriteByte(path[i])
			continue
		}
		if i+2 >= len(path) {
			return "", false
		}
		c, err := strconv.ParseUint(path[i+1:i+3], 16, 8)
		if err != nil || c == 0 {
			return "", false
		}
		if strings.IndexByte(reserved, byte(c)) < 0 {
			b.WriteByte(byte(c))
		} else {
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	segments := strings.Split(strings.TrimPrefix(b.String(), "/"), "/")
	var out []string
	for i, s := range segments {
		if s != "" && s != "." && s != ".." {
			out = append(out, s)
			continue
		}
		if s == ".." && len(out) > 0 {
			out = out[:len(out)-1]
		}
		if i == len(segments)-1 {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/"), true
}

// escape makes a normalised path fit for a request line, as Kong does.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(reserved+"-_.~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
