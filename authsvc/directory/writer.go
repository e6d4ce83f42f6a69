package directory

import (
	"bufio"
	"encoding/json"
	"net/http"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// bufferSize is how much goes out at once; each such part has a deadline of its own, so that a long answer is no slow one.
const bufferSize = 64 << 10

// writer writes lines. Its first line sends the status.
type writer struct {
	begun bool
	buf   *bufio.Writer
	enc   *json.Encoder
}

func (h *handler) writer(w http.ResponseWriter) *writer {
	out := &writer{}
	out.buf = bufio.NewWriterSize(timely{w, http.NewResponseController(w)}, bufferSize)
	out.enc = json.NewEncoder(out.buf)
	out.enc.SetEscapeHTML(false)
	w.Header().Set("Content-Type", feed.MediaType)
	return out
}

func (o *writer) line(l feed.Line) error {
	o.begun = true
	return o.enc.Encode(l)
}

// raw writes what is a line already.
func (o *writer) raw(l json.RawMessage) error {
	if _, err := o.buf.Write(l); err != nil {
		return err
	}
	return o.buf.WriteByte('\n')
}

func (o *writer) end(lines int) error {
	if err := o.line(feed.Line{End: &feed.End{Lines: lines}}); err != nil {
		return err
	}
	return o.buf.Flush()
}

// timely gives each write a deadline.
type timely struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (t timely) Write(p []byte) (int, error) {
	if err := t.rc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return t.w.Write(p)
}
