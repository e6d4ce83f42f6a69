package usual

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
)

// Bounds of a request of the usual form, in bytes.
const (
	maxTarget = 2048
	maxBody   = 16 << 10
	maxWhole  = maxBody + 4<<10 // head and body
)

// What may be in front of a request's end.
type verdict int

const (
	incomplete verdict = iota // it is of the usual form as far as it has come
	whole
	unusual
)

// request is what was read of one.
type request struct {
	target string
	host   string
	header http.Header
	body   string
	size   int // of all in bytes
}

const (
	method  = "POST "
	version = " HTTP/1.1\r\n"
)

// read reads a request at the beginning of what has come. It takes one form only, of which there are no two readings: POST of a plain
// path by HTTP/1.1, lines that end with CRLF, names and values of visible ASCII, one Host, one Content-Length, and nothing that is
// about the connection or the body's encoding. FuzzRead holds it to what net/http reads of the same bytes.
func read(come []byte) (request, verdict) {
	if n := min(len(come), len(method)); string(come[:n]) != method[:n] {
		return request{}, unusual
	}
	end := bytes.Index(come, []byte("\r\n\r\n"))
	if end < 0 {
		if len(come) >= maxWhole-maxBody {
			return request{}, unusual
		}
		return request{}, incomplete
	}
	length, lines, ok := lengthOf(come[len(method) : end+2])
	if !ok {
		return request{}, unusual
	}
	size := end + 4 + length
	if len(come) < size {
		return request{}, incomplete
	}
	text := string(come[:size])
	r := request{body: text[end+4:], size: size}
	if !r.head(text[len(method):end+2], lines) {
		return request{}, unusual
	}
	return r, whole
}

// lengthOf finds Content-Length in what follows the method, and counts the lines.
func lengthOf(head []byte) (length, lines int, ok bool) {
	const name = "content-length:"
	found := false
	for len(head) > 0 {
		n := bytes.IndexByte(head, '\n')
		line := head[:n]
		head = head[n+1:]
		lines++
		if len(line) < len(name) || line[0]|0x20 != 'c' || !strings.EqualFold(string(line[:len(name)]), name) {
			continue
		}
		value := strings.Trim(strings.TrimSuffix(string(line[len(name):]), "\r"), " \t")
		if found || value == "" || len(value) > 5 {
			return 0, 0, false
		}
		for _, c := range []byte(value) {
			if c < '0' || c > '9' {
				return 0, 0, false
			}
			length = 10*length + int(c-'0')
		}
		found = true
	}
	return length, lines, found && length > 0 && length <= maxBody
}

// head reads the request line behind the method, and the fields, all of which end with CRLF.
func (r *request) head(text string, lines int) bool {
	n := strings.IndexByte(text, ' ')
	if n <= 0 || n > maxTarget || !strings.HasPrefix(text[n:], version) || !plainPath(text[:n]) {
		return false
	}
	r.target, text = text[:n], text[n+len(version):]
	r.header = make(http.Header, lines)
	values := make([]string, lines) // of all fields, as textproto has it
	for text != "" {
		name, rest, ok := cutName(text)
		if !ok {
			return false
		}
		value, rest, ok := cutValue(rest)
		if !ok {
			return false
		}
		text = rest
		switch name = http.CanonicalHeaderKey(name); name {
		case "Host":
			if r.host != "" || !plainHost(value) {
				return false
			}
			r.host = value
			continue
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Expect", "Keep-Alive", "Proxy-Connection", "Http2-Settings", "Pragma":
			return false
		}
		if given := r.header[name]; given != nil {
			r.header[name] = append(given, value)
			continue
		}
		values[0] = value
		r.header[name], values = values[:1:1], values[1:]
	}
	return r.host != ""
}

// cutName reads a field's name (RFC 9110 section 5.6.2) up to its colon.
func cutName(text string) (name, rest string, ok bool) {
	for i := range len(text) {
		switch c := text[i]; {
		case c == ':':
			return text[:i], text[i+1:], i > 0
		case c >= 128 || !token[c]:
			return "", "", false
		}
	}
	return "", "", false
}

// cutValue reads a field's value up to the end of its line, without the white space around it.
func cutValue(text string) (value, rest string, ok bool) {
	n := strings.IndexByte(text, '\n')
	if n < 1 || text[n-1] != '\r' {
		return "", "", false
	}
	value = strings.Trim(text[:n-1], " \t")
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c > '~' {
			return "", "", false
		}
	}
	return value, text[n+1:], true
}

var token = tableOf("!#$%&'*+-.^_`|~" + digits + letters)

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func tableOf(chars string) (t [128]bool) {
	for _, c := range []byte(chars) {
		t[c] = true
	}
	return t
}

var inPath, inHost = tableOf("/-._~" + digits + letters), tableOf(".:-[]" + digits + letters)

// plainPath reports whether a target is a path that means itself: no query, nothing escaped.
func plainPath(s string) bool {
	return s[0] == '/' && !strings.HasPrefix(s, "//") && consists(s, &inPath)
}

func plainHost(s string) bool { return s != "" && consists(s, &inHost) }

func consists(s string, of *[128]bool) bool {
	for i := range len(s) {
		if c := s[i]; c >= 128 || !of[c] {
			return false
		}
	}
	return true
}

// url is what url.ParseRequestURI makes of a plain path.
func (r *request) url() *url.URL { return &url.URL{Path: r.target} }
