// Package decisionlog writes down every denial and every failure to decide, so that staff find by its id why somebody was
// stopped. Of OPA's Data API it also writes down which documents were told that are neither true nor false. It writes who, what,
// when and why; never claims, attributes, properties or tokens (S67). Recording never waits: a
// log that cannot keep up loses records, counts them, and says so.
package decisionlog

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// Entry is one decision that was not an allow.
type Entry struct {
	Time         time.Time
	DecisionID   string
	Revision     string
	TraceID      string
	Caller       string // the enforcement point, if it has a name
	Outcome      string // deny, not_applicable, indeterminate, or document for what OPA's Data API told
	Path         string // of a document, for OPA's Data API, which has none of the next six
	SubjectType  string
	SubjectID    string
	Action       string
	ResourceType string
	ResourceID   string
	Address      string // of the client, as the enforcement point saw it
	Reasons      []string
	Rules        []string // ids of those that a denial came to be by
	Duration     time.Duration
	Err          error // set when no decision could be made
}

// Log takes entries and writes them from a goroutine of its own, Run.
type Log struct {
	out     *slog.Logger
	entries chan Entry
	lost    atomic.Int64
}

// buffer is how many entries may wait; some 2 MB.
const buffer = 4096

// New makes a log that writes to out.
func New(out *slog.Logger) *Log {
	return &Log{out: out, entries: make(chan Entry, buffer)}
}

// Record takes e without ever waiting.
func (l *Log) Record(e Entry) {
	if e.Err == nil && !l.out.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	select {
	case l.entries <- e:
	default:
		l.lost.Add(1)
	}
}

// Lost is how many entries were lost since the last line that said so.
func (l *Log) Lost() int64 { return l.lost.Load() }

// Run writes entries until ctx ends, and then those that still wait.
func (l *Log) Run(ctx context.Context) error {
	for {
		select {
		case e := <-l.entries:
			l.write(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-l.entries:
					l.write(e)
				default:
					return nil
				}
			}
		}
	}
}

func (l *Log) write(e Entry) {
	ctx := context.Background()
	if n := l.lost.Swap(0); n > 0 {
		l.out.ErrorContext(ctx, "decisions not logged", "count", n)
	}
	level, message := slog.LevelInfo, "denied"
	attrs := []slog.Attr{
		slog.String("decision_id", e.DecisionID), slog.Time("decided_at", e.Time.UTC()), slog.String("revision", e.Revision),
		slog.String("trace_id", e.TraceID), slog.String("caller", cut(e.Caller)), slog.String("outcome", e.Outcome),
		slog.Duration("duration", e.Duration),
	}
	if e.Path != "" {
		attrs = append(attrs, slog.String("path", cut(e.Path)))
	} else {
		attrs = append(attrs, slog.String("subject_type", cut(e.SubjectType)), slog.String("subject", cut(e.SubjectID)),
			slog.String("action", cut(e.Action)), slog.String("resource_type", cut(e.ResourceType)),
			slog.String("resource", cut(e.ResourceID)), slog.String("address", cut(e.Address)), slog.Any("reasons", e.Reasons))
	}
	attrs = append(attrs, slog.Any("rules", e.Rules))
	if e.Outcome == "document" {
		message = "document told"
	}
	if e.Err != nil {
		level, message = slog.LevelError, "not decided"
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	l.out.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // one of three constants, chosen above
}

// cut bounds what a caller can make us write.
func cut(s string) string {
	const most = 256 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
