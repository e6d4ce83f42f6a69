// Package telemetry holds what every program does alike to be observed: how it logs, and how a secret keeps out of the log.
package telemetry

import (
	"io"
	"log/slog"
	"time"
)

// Secret is a configured value that cannot print itself by fmt, slog or encoding/json.
type Secret string

const hidden = "[secret]"

// Reveal answers the value, for the one place that needs it.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string { return hidden }

// GoString keeps %#v from printing the value.
func (s Secret) GoString() string { return hidden }

// MarshalText keeps encoders from printing the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue keeps slog from printing the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// Logger writes one JSON object per line with RFC 3339 UTC times. JSON escapes CR, LF and control characters, so that no
// value can forge a line.
func Logger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
				a.Value = slog.StringValue(a.Value.Time().UTC().Format(time.RFC3339Nano))
			}
			return a
		},
	}))
}
