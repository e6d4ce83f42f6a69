// Package recording puts a decision log around an engine: it reads the file that says how decisions are recorded, opens its sinks, and
// records what the engine decides, so that no interface of the decision point knows of it.
package recording

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/metrics"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// Log is where decisions are recorded: in a journal if there is a file that says how, else as lines of the program's own log, and
// denials alone.
type Log struct {
	Lines   *decisionlog.Log     // for server.Options
	journal *decisionlog.Journal // nil without a file
	files   []*sink.File
}

// Open reads the file, if path is not "". With a journal the program's log has failures to decide only. app is the program's name
// among the labels.
func Open(app, path string, log *slog.Logger) (*Log, error) {
	if path == "" {
		return &Log{Lines: decisionlog.New(log)}, nil
	}
	opts, err := ReadConfig(path)
	if err != nil {
		return nil, fmt.Errorf("decision log: %w", err)
	}
	opts.Log = log
	opts.Labels = withLabels(app, opts.Labels)
	d := &Log{Lines: decisionlog.New(slog.New(warnings{log.Handler()}))}
	for _, s := range opts.Sinks {
		if f, ok := s.(*sink.File); ok {
			d.files = append(d.files, f)
		}
	}
	if d.journal, err = decisionlog.Open(opts); err != nil {
		for _, s := range opts.Sinks {
			err = errors.Join(err, s.Close())
		}
		return nil, err
	}
	log.InfoContext(context.Background(), "recording decisions", "spool", opts.Dir, "when_full", string(opts.WhenFull), "sinks", slices.Sorted(maps.Keys(opts.Sinks)))
	return d, nil
}

// In records in a journal that somebody else opened, and runs.
func In(journal *decisionlog.Journal) *Log { return &Log{journal: journal} }

// Masks answers what the journal hides of a decision; nil where there is no journal.
func (d *Log) Masks() func(context.Context, decisionlog.Event) *decisionlog.Masks {
	if d.journal == nil {
		return nil
	}
	return d.journal.MasksOf
}

// withLabels adds those that OPA has as well.
func withLabels(app string, labels map[string]string) map[string]string {
	all := map[string]string{"app": app, "id": uuid.NewString()}
	if info, ok := debug.ReadBuildInfo(); ok {
		all["version"] = info.Main.Version
	}
	maps.Copy(all, labels)
	return all
}

// warnings leaves out what is less than a warning.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

// Run writes until ctx ends, and then what is left. SIGHUP makes it open its files anew.
func (d *Log) Run(ctx context.Context) error {
	if d.journal == nil {
		return d.Lines.Run(ctx)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for {
			select {
			case <-hangup:
				for _, f := range d.files {
					f.Reopen()
				}
			case <-ctx.Done():
				return
			}
		}
	})
	failed := make(chan error, 1)
	all.Go(func() { failed <- d.journal.Run(ctx) })
	return errors.Join(d.Lines.Run(ctx), <-failed)
}

// Engine records what e decides.
func (d *Log) Engine(e server.Engine) server.Engine {
	if d.journal == nil {
		return e
	}
	return &recorded{e, d.journal, time.Now}
}

// Searcher records what is found.
func (d *Log) Searcher(s server.Searcher) server.Searcher {
	if d.journal == nil {
		return s
	}
	return &recordedSearch{s, &recorded{journal: d.journal, now: time.Now}}
}

// Measure adds the journal's metrics to those of the program.
func (d *Log) Measure(meter *metrics.Registry) {
	if d.journal != nil {
		meter.Register(d.journal.Collector())
	}
}

// Checks says for /readyz how the journal is.
func (d *Log) Checks() map[string]web.Check {
	if d.journal == nil {
		return nil
	}
	return map[string]web.Check{"decision_log": func(context.Context) error { return d.journal.Ready() }}
}

// recorded is an engine whose decisions are answered once they are recorded.
type recorded struct {
	server.Engine
	journal *decisionlog.Journal
	now     func() time.Time
}

// Evaluate implements server.Engine. A decision that cannot be recorded is none.
func (r *recorded) Evaluate(ctx context.Context, req authzen.Request) (authzen.Response, error) {
	start := r.now()
	res, err := r.Engine.Evaluate(ctx, req)
	about := res.Context
	if about == nil {
		about = &authzen.ResponseContext{}
	}
	outcome := string(server.OutcomeOf(res, err))
	route, _ := req.Resource.Properties["route"].(string)
	if !r.journal.Records(outcome, route, about.DecisionID) {
		return res, err
	}
	e := EventOf(ctx, start, req, res, err)
	if lost := r.record(ctx, start, &e); lost != nil {
		return authzen.Response{Context: &authzen.ResponseContext{Outcome: authzen.Indeterminate, DecisionID: e.DecisionID, Revision: e.Revision, DirectoryRevision: e.Directory}}, lost
	}
	return res, err
}

// EventOf is what the record of an evaluation says, but for how long it took.
func EventOf(ctx context.Context, start time.Time, req authzen.Request, res authzen.Response, err error) decisionlog.Event {
	about := res.Context
	if about == nil {
		about = &authzen.ResponseContext{}
	}
	if about.Subject != nil {
		req.Subject.Properties = about.Subject // what decided, not what was said
	}
	route, _ := req.Resource.Properties["route"].(string)
	e := decisionlog.Event{
		DecisionID: about.DecisionID, Route: route, Outcome: string(server.OutcomeOf(res, err)), Revision: about.Revision, Directory: about.DirectoryRevision,
		EvaluatedBy: about.EvaluatedBy, Input: req, Result: res, LookedUp: about.LookedUp, Rules: about.Rules, Err: err,
	}
	told(ctx, start, &e)
	return e
}

// told adds what the context says.
func told(ctx context.Context, start time.Time, e *decisionlog.Event) {
	e.Time, e.TraceID, e.RequestedBy, e.PEP = start, web.TraceID(ctx), web.RemoteAddr(ctx), server.CallerOf(ctx)
}

// Document implements server.Engine. A document's path stands for the route, where rates are chosen.
func (r *recorded) Document(ctx context.Context, q dataapi.Question) (dataapi.Document, error) {
	start := r.now()
	doc, err := r.Engine.Document(ctx, q)
	outcome, path := server.Meaning(doc, err), strings.Join(q.Path, "/")
	if path == "" {
		path = "/" // all of data
	}
	if !r.journal.Records(outcome, path, doc.DecisionID) {
		return doc, err
	}
	e := decisionlog.Event{
		DecisionID: doc.DecisionID, Route: path, Path: path, Outcome: outcome, Revision: doc.Revision, Directory: doc.DirectoryRevision, EvaluatedBy: doc.EvaluatedBy, Input: q.Input, Result: doc.Value, Rules: doc.Rules, Err: err,
	}
	if lost := r.record(ctx, start, &e); lost != nil {
		return dataapi.Document{DecisionID: doc.DecisionID, Revision: doc.Revision}, lost
	}
	return doc, err
}

// recordedSearch is a searcher whose answers are given once they are recorded, each search as one record.
type recordedSearch struct {
	server.Searcher
	recorded *recorded
}

// Search implements server.Searcher.
func (s *recordedSearch) Search(ctx context.Context, q authzen.Search) (authzen.Found, error) {
	start := s.recorded.now()
	found, err := s.Searcher.Search(ctx, q)
	path := "access/v1/search/" + string(q.For)
	e := decisionlog.Event{DecisionID: found.DecisionID, Route: path, Path: path, Outcome: decisionlog.Document, Revision: found.Revision, Input: q.Request, Err: err}
	if err != nil {
		e.Outcome = decisionlog.Indeterminate
	} else {
		results := make([]any, len(found.Results))
		for i, r := range found.Results {
			results[i] = map[string]any{"type": r.Type, "id": r.ID, "name": r.Name}
		}
		e.Result = map[string]any{"results": results, "complete": found.Complete, "more": found.More}
	}
	// Where a page ended because the search's time was over, its record has some of its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), server.DefaultBatchTime)
	defer cancel()
	if lost := s.recorded.record(ctx, start, &e); lost != nil {
		return authzen.Found{DecisionID: found.DecisionID, Revision: found.Revision}, lost
	}
	return found, err
}

func (r *recorded) record(ctx context.Context, start time.Time, e *decisionlog.Event) error {
	told(ctx, start, e)
	e.Duration = r.now().Sub(start)
	return r.journal.Record(ctx, e)
}
