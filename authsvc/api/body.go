package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	// maxBody is the largest body in bytes; one of this size is already refused.
	maxBody = 64 << 10
	// bodyTimeout is how long a body may take to arrive.
	bodyTimeout = 5 * time.Second
)

// whole hands on a body when it is there to its last byte. huma would take one that breaks off for a failure of ours, and
// would leave the connection its deadline, which then ends a request that takes longer than its body.
func whole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		conn := http.NewResponseController(w)
		_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout)) // without one, that of the whole request holds
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.Header().Set("Connection", "close") // where the next request begins is not known
			web.WriteProblem(w, unread(r, err))
			return
		}
		_ = conn.SetReadDeadline(time.Time{})
		if !oneMedia(r) {
			web.WriteProblem(w, problemOf(r.Context(), http.StatusUnsupportedMediaType))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

func unread(r *http.Request, err error) *web.ProblemDocument {
	status := http.StatusBadRequest
	tooLarge := new(http.MaxBytesError)
	switch {
	case errors.As(err, &tooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		status = http.StatusRequestTimeout
	}
	return problemOf(r.Context(), status)
}

// oneMedia writes the media type as huma looks it up: in lower case, without parameters.
func oneMedia(r *http.Request) bool {
	value := r.Header.Get("Content-Type")
	if value == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(value)
	if err != nil {
		return false
	}
	r.Header.Set("Content-Type", media)
	return true
}

// format is JSON of which there is one reading: of a name given twice encoding/json would take the last.
func format() huma.Format {
	return huma.Format{
		Marshal: huma.DefaultJSONFormat.Marshal,
		Unmarshal: func(data []byte, v any) error {
			if err := onejson.Check(data); err != nil {
				return err
			}
			return json.Unmarshal(data, v)
		},
	}
}
