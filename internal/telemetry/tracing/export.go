package tracing

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// counts is what became of spans.
type counts struct {
	waiting                   atomic.Int64 // that the exporter has not been done with
	exported, failed, dropped atomic.Uint64
}

// bounded lets as many spans wait as there is room for, so that next never has to drop one, which it would not tell.
type bounded struct {
	next   sdk.SpanProcessor
	most   int64
	counts *counts
}

var _ sdk.SpanProcessor = (*bounded)(nil)

// OnStart implements sdk.SpanProcessor.
func (b *bounded) OnStart(ctx context.Context, s sdk.ReadWriteSpan) { b.next.OnStart(ctx, s) }

// OnEnd implements sdk.SpanProcessor.
func (b *bounded) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if b.counts.waiting.Add(1) > b.most {
		b.counts.waiting.Add(-1)
		b.counts.dropped.Add(1)
		return
	}
	b.next.OnEnd(s)
}

// Shutdown implements sdk.SpanProcessor.
func (b *bounded) Shutdown(ctx context.Context) error { return b.next.Shutdown(ctx) }

// ForceFlush implements sdk.SpanProcessor.
func (b *bounded) ForceFlush(ctx context.Context) error { return b.next.ForceFlush(ctx) }

// say is how often a tracer says that spans are lost.
const say = 30 * time.Second

// counting counts what is exported, and lets nothing of an export go on once it is cut.
type counting struct {
	counts

	next sdk.SpanExporter
	log  *slog.Logger
	now  func() time.Time
	said time.Time // by the one goroutine that exports

	alive context.Context //nolint:containedctx // ends every export at Close
	cut   context.CancelFunc
	end   sync.Once
	ended chan struct{}
}

var _ sdk.SpanExporter = (*counting)(nil)

func newCounting(next sdk.SpanExporter, log *slog.Logger, now func() time.Time) *counting {
	c := &counting{next: next, log: log, now: now, ended: make(chan struct{})}
	c.alive, c.cut = context.WithCancel(context.Background())
	return c
}

// ExportSpans implements sdk.SpanExporter. What fails is told here, and not to the SDK, which would write it as lines of its own.
func (c *counting) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(c.alive, cancel)
	defer stop()
	err := c.next.ExportSpans(ctx, spans)
	n := len(spans)
	c.waiting.Add(int64(-n))
	if err == nil {
		c.exported.Add(uint64(n))
		return nil
	}
	c.failed.Add(uint64(n))
	if now := c.now(); now.Sub(c.said) >= say {
		c.said = now
		c.log.WarnContext(ctx, "spans are lost: they cannot be exported", "spans", n, "error", err)
	}
	return nil
}

// Shutdown implements sdk.SpanExporter. It comes after the last export.
func (c *counting) Shutdown(ctx context.Context) error {
	defer c.end.Do(func() { close(c.ended) })
	if err := c.next.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

var (
	spansTotal = prometheus.NewDesc("gatehouse_spans_total", "Spans by result: exported, failed (the receiver was away or refused them) or dropped (there was no room to wait).", []string{"result"}, nil)
	spansWait  = prometheus.NewDesc("gatehouse_spans_waiting", "Spans that wait to be exported.", nil, nil)
)

// Describe implements prometheus.Collector.
func (t *Tracer) Describe(to chan<- *prometheus.Desc) {
	to <- spansTotal
	to <- spansWait
}

// Collect implements prometheus.Collector.
func (t *Tracer) Collect(to chan<- prometheus.Metric) {
	c := &t.export.counts
	for result, n := range map[string]*atomic.Uint64{"exported": &c.exported, "failed": &c.failed, "dropped": &c.dropped} {
		to <- prometheus.MustNewConstMetric(spansTotal, prometheus.CounterValue, float64(n.Load()), result)
	}
	to <- prometheus.MustNewConstMetric(spansWait, prometheus.GaugeValue, float64(c.waiting.Load()))
}
