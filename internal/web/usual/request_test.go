package usual

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const ask = "POST /access/v1/evaluation HTTP/1.1\r\nHost: pdp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

// with is ask with a line more.
func with(line string) string { return strings.Replace(ask, "\r\n\r\n", "\r\n"+line+"\r\n\r\n", 1) }

func TestWhatIsUsual(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]verdict{
		ask:                                     whole,
		ask + ask:                               whole,
		with("X-Request-ID: 1"):                 whole,
		with("connection: Keep-Alive"):          whole,
		with("X: \t a \t"):                      whole,
		with("Authorization: Bearer a.b"):       whole,
		strings.Replace(ask, "Host", "hOST", 1): whole,

		"":               incomplete,
		"PO":             incomplete,
		ask[:20]:         incomplete,
		ask[:len(ask)-1]: incomplete,

		"GET" + ask[4:]:  unusual,
		"P0":             unusual,
		"post" + ask[4:]: unusual,
		"\r\n" + ask:     unusual,
		strings.Replace(ask, "HTTP/1.1", "HTTP/1.0", 1):      unusual,
		strings.Replace(ask, "HTTP/1.1", "HTTP/1.1 ", 1):     unusual,
		strings.Replace(ask, "/access", "/access?a", 1):      unusual,
		strings.Replace(ask, "/access", "/%61ccess", 1):      unusual,
		strings.Replace(ask, "/access", "//access", 1):       unusual,
		strings.Replace(ask, "/access", "http://a/", 1):      unusual,
		strings.Replace(ask, "/access", "/ access", 1):       unusual,
		strings.Replace(ask, "/access", "/\xc3\xa4", 1):      unusual,
		strings.Replace(ask, "\r\nHost", "\nHost", 1):        unusual,
		strings.Replace(ask, "Host: pdp\r\n", "", 1):         unusual,
		strings.Replace(ask, "Host: pdp", "Host:", 1):        unusual,
		strings.Replace(ask, "Host: pdp", "Host: a/b", 1):    unusual,
		strings.Replace(ask, "Host:", "Host :", 1):           unusual,
		strings.Replace(ask, "Host:", "Ho st:", 1):           unusual,
		strings.Replace(ask, "Host:", " Host:", 1):           unusual,
		strings.Replace(ask, "pdp", "p\rdp", 1):              unusual,
		strings.Replace(ask, ": 2", ": 02", 1):               whole,
		strings.Replace(ask, ": 2", ": +2", 1):               unusual,
		strings.Replace(ask, ": 2", ": 2, 2", 1):             unusual,
		strings.Replace(ask, ": 2", ": 2_0", 1):              unusual,
		strings.Replace(ask, ": 2", ": 0", 1):                unusual,
		strings.Replace(ask, ": 2", ": -1", 1):               unusual,
		strings.Replace(ask, ": 2", ": 16385", 1):            unusual,
		strings.Replace(ask, ": 2", ": 16384", 1):            incomplete,
		strings.Replace(ask, "Content-Length: 2", "A: 2", 1): unusual,
		with("Host: pdp"):                    unusual,
		with("Content-Length: 2"):            unusual,
		with("content-length: 2"):            unusual,
		with("Content-Length : 2"):           unusual,
		with("Transfer-Encoding: chunked"):   unusual,
		with("transfer-encoding: identity"):  unusual,
		with("Transfer-Encoding\t: chunked"): unusual,
		with("Expect: 100-continue"):         unusual,
		with("Connection: close"):            unusual,
		with("Connection: Host"):             unusual,
		with("Upgrade: h2c"):                 unusual,
		with("Trailer: X"):                   unusual,
		with("TE: trailers"):                 unusual,
		with("Pragma: no-cache"):             unusual,
		with(" folded: x"):                   unusual,
		with("X: a\r\n b"):                   unusual,
		with("X: a\nY: b"):                   unusual,
		with("X: a\rb"):                      unusual,
		with("X: \x00"):                      unusual,
		with("X: \x7f"):                      unusual,
		with("X: \xe4"):                      unusual,
		with(": x"):                          unusual,
		with("X"):                            unusual,
		"POST /" + strings.Repeat("a", 2048) + ask[len("POST /access/v1/evaluation"):]: unusual,
		"POST /a HTTP/1.1\r\n" + strings.Repeat("X: a\r\n", 800):                       unusual,
	} {
		if _, v := read([]byte(text)); v != want {
			t.Errorf("%q is %d, want %d", text, v, want)
		}
	}
}

// FuzzRead holds what is taken for usual to what net/http reads of the same bytes: where a request ends, and all that it says.
func FuzzRead(f *testing.F) {
	for _, s := range []string{ask, ask + ask, with("X: a\r\nX: b"), with("Transfer-Encoding: chunked"), with("X: a\r\n b"), with("Cookie: a=b; c=d"), strings.Replace(ask, ": 2", ":02", 1)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, come []byte) {
		given := bytes.Clone(come)
		r, v := read(come)
		if !bytes.Equal(come, given) {
			t.Fatal("what came was changed")
		}
		if v != whole {
			return
		}
		in := bufio.NewReader(bytes.NewReader(come))
		theirs, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", come, err)
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(in)
		u := r.url()
		switch {
		case theirs.Method != http.MethodPost, theirs.Proto != "HTTP/1.1", theirs.Close, len(theirs.TransferEncoding) > 0, len(theirs.Trailer) > 0:
			t.Errorf("net/http reads something else in %q", come)
		case theirs.RequestURI != r.target, *theirs.URL != *u, theirs.Host != r.host:
			t.Errorf("%q: target %q, URL %+v, host %q", come, theirs.RequestURI, theirs.URL, theirs.Host)
		case !maps.EqualFunc(theirs.Header, r.header, slices.Equal):
			t.Errorf("%q: %v, want %v", come, r.header, theirs.Header)
		case string(body) != r.body, theirs.ContentLength != int64(len(r.body)), string(rest) != string(come[r.size:]):
			t.Errorf("%q: the body is %q, want %q", come, r.body, body)
		}
		for end := range r.size {
			if _, v := read(come[:end]); v != incomplete {
				t.Fatalf("the first %d bytes of %q are %d", end, come, v)
			}
		}
	})
}
