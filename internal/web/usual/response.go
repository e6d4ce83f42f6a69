package usual

import (
	"net/http"
	"strconv"
	"time"
)

// mostKept is up to how many bytes of an answer are kept to be written at once, and of a connection's memory between two requests.
const mostKept = 16 << 10

// response is the http.ResponseWriter of one request. It writes the answer with its length when the handler returns or, where that has
// said the length, when there is more than it keeps.
type response struct {
	conn   *conn
	header http.Header
	status int // 0: none yet
	body   []byte

	declared int64 // bytes that are to follow those that were sent; -1 where nothing was
	err      error // of the connection
}

func (w *response) reset() {
	clear(w.header)
	if cap(w.body) > mostKept {
		w.body = nil
	}
	w.status, w.body, w.declared, w.err = 0, w.body[:0], -1, nil
}

// Header implements http.ResponseWriter. It is not to be kept.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Of several the first counts; those of 1xx are not sent.
func (w *response) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic("invalid status " + strconv.Itoa(status)) // as net/http does
	}
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case !hasBody(w.status):
		return 0, http.ErrBodyNotAllowed
	case w.err != nil:
		return 0, w.err
	case w.declared < 0 && len(w.body)+len(b) > mostKept:
		if n, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64); err == nil && n >= int64(len(w.body)+len(b)) {
			w.declared = n - int64(len(w.body))
			w.send(n)
		}
	}
	if w.declared < 0 {
		w.body = append(w.body, b...)
		return len(b), nil
	}
	if int64(len(b)) > w.declared {
		return 0, http.ErrContentLength
	}
	w.declared -= int64(len(b))
	if w.err == nil {
		_, w.err = w.conn.Write(b)
	}
	return len(b), w.err
}

// finish writes what is left. It answers whether the connection can go on.
func (w *response) finish() bool {
	w.WriteHeader(http.StatusOK)
	if w.declared < 0 {
		w.declared = 0
		w.send(int64(len(w.body)))
	}
	return w.err == nil && w.declared == 0 && !w.conn.last
}

func hasBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// send writes the head, and the beginning of the body.
func (w *response) send(length int64) {
	c := w.conn
	now := time.Now()
	c.renew(now)
	c.last = c.last || c.server.ending() || w.header.Get("Connection") == "close"
	out := append(c.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(w.status), 10)
	out = append(append(append(out, ' '), http.StatusText(w.status)...), "\r\n"...)
	for name, values := range w.header {
		switch name {
		case "Connection", "Content-Length", "Date", "Transfer-Encoding", "Trailer":
			continue
		}
		for _, v := range values {
			out = appendField(out, name, v)
		}
	}
	if len(w.header["Content-Type"]) == 0 && len(w.body) > 0 {
		out = appendField(out, "Content-Type", http.DetectContentType(w.body))
	}
	if hasBody(w.status) {
		out = strconv.AppendInt(append(out, "Content-Length: "...), length, 10)
		out = append(out, "\r\n"...)
	}
	out = appendField(out, "Date", c.server.date(now))
	if c.last {
		out = appendField(out, "Connection", "close")
	}
	out = append(append(out, "\r\n"...), w.body...)
	_, w.err = c.Write(out)
	if c.out = out; cap(out) > 2*mostKept {
		c.out = nil
	}
}

// appendField writes a field. What would end its line becomes a space.
func appendField(out []byte, name, value string) []byte {
	if !consists(name, &token) {
		return out
	}
	out = append(append(out, name...), ": "...)
	for i := range len(value) {
		c := value[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		out = append(out, c)
	}
	return append(out, "\r\n"...)
}
