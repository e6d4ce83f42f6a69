package work

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

const (
	jobTimeout  = 30 * time.Second
	stopTimeout = time.Second      // how long jobs under way may take at shutdown; then they are cancelled and run again
	retryEvery  = 2 * time.Second  // between two tries to publish a revocation
	retryMost   = 15 * time.Minute // between two tries of anything else
)

// Profiles is what a worker needs of profile.Service.
type Profiles interface {
	Create(ctx context.Context, userID, name string) error
}

// Options are the parts that do what the jobs say.
type Options struct {
	Queue    *Queue
	Renderer *mail.Renderer
	Sender   mail.Sender
	// Address answers where a user's mail goes, for mails that name the user only.
	Address  func(ctx context.Context, userID string) (string, error)
	Publish  func(ctx context.Context, r job.Revocation) error
	Profiles Profiles
	Expire   func(ctx context.Context) error // takes away the roles that have ended
	Poll     time.Duration                   // how often jobs are looked for where the database cannot tell; 0 for 1 s
	Now      func() time.Time
	Log      *slog.Logger
}

// Worker does the jobs of a queue while Run runs. Several processes may work on one queue.
type Worker struct {
	o      Options
	client *river.Client[*sql.Tx]
}

// NewWorker makes a worker; Run starts it.
func NewWorker(o Options) (*Worker, error) {
	w := &Worker{o: o}
	workers := river.NewWorkers()
	for _, err := range []error{
		river.AddWorkerSafely(workers, &doing[mailArgs]{do: w.sendMail, wait: w.backOff}),
		river.AddWorkerSafely(workers, &doing[revocationArgs]{do: w.publish, wait: w.soon}),
		river.AddWorkerSafely(workers, &doing[profileArgs]{do: w.createProfile, wait: w.backOff}),
		river.AddWorkerSafely(workers, &doing[expiryArgs]{do: w.expire, wait: w.backOff}),
	} {
		if err != nil {
			return nil, fmt.Errorf("workers: %w", err)
		}
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	var err error
	w.client, err = river.NewClient(o.Queue.driver, &river.Config{
		Workers:           workers,
		Queues:            map[string]river.QueueConfig{urgent: {MaxWorkers: 4}, ordered: {MaxWorkers: 8}},
		FetchCooldown:     min(o.Poll, 20*time.Millisecond),
		FetchPollInterval: o.Poll,
		JobTimeout:        jobTimeout,
		SoftStopTimeout:   stopTimeout,
		ErrorHandler:      failures{o.Log},
		Logger:            slog.New(atLeast{o.Log.Handler(), slog.LevelWarn}),
	})
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	return w, nil
}

// Run works until ctx ends, and then lets the jobs under way end for a second.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.client.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop before it began
		}
		return fmt.Errorf("worker: %w", err)
	}
	<-w.client.Stopped()
	return nil
}

// The kinds as River knows them: one type each.
type (
	mailArgs       struct{ job.Mail }
	revocationArgs struct{ job.Revocation }
	profileArgs    struct{ job.Profile }
	expiryArgs     struct{ job.Expiry }
)

func (mailArgs) Kind() string       { return job.KindMail }
func (revocationArgs) Kind() string { return job.KindRevocation }
func (profileArgs) Kind() string    { return job.KindProfile }
func (expiryArgs) Kind() string     { return job.KindExpiry }

// doing makes two functions a River worker.
type doing[T river.JobArgs] struct {
	river.WorkerDefaults[T]
	do   func(ctx context.Context, args T) error
	wait func(attempt int) time.Time
}

func (d *doing[T]) Work(ctx context.Context, j *river.Job[T]) error { return d.do(ctx, j.Args) }

func (d *doing[T]) NextRetry(j *river.Job[T]) time.Time { return d.wait(j.Attempt) }

// backOff is when to try again after so many attempts: 1, 2, 4, … s.
func (w *Worker) backOff(attempt int) time.Time {
	wait := retryMost
	if attempt < 10 {
		wait = time.Second << max(attempt-1, 0)
	}
	return w.o.Now().Add(min(wait, retryMost))
}

// soon suits what the edge waits for.
func (w *Worker) soon(int) time.Time { return w.o.Now().Add(retryEvery) }

// sendMail gives up on a mail that is of no use any more or that the server refuses for good.
func (w *Worker) sendMail(ctx context.Context, a mailArgs) error {
	if !mail.Useful(a.Mail, w.o.Now()) {
		w.o.Log.WarnContext(ctx, "mail not sent: it came too late", "template", a.Template)
		return nil
	}
	if a.To == "" {
		to, err := w.o.Address(ctx, a.UserID)
		if fault.CodeOf(err) == fault.NotFound {
			return river.JobCancel(errors.New("the user is gone"))
		}
		if err != nil {
			return fmt.Errorf("find the address: %w", err)
		}
		a.To = to
	}
	m, err := w.o.Renderer.Render(a.Mail)
	if err != nil {
		return river.JobCancel(err) // it will not render the next time either
	}
	err = w.o.Sender.Send(ctx, m)
	if fault.CodeOf(err) == fault.Invalid {
		return river.JobCancel(err)
	}
	return err
}

// publish leaves out a revocation that nothing alive is left of.
func (w *Worker) publish(ctx context.Context, a revocationArgs) error {
	if !w.o.Now().Before(a.ExpiresAt) {
		return nil
	}
	return w.o.Publish(ctx, a.Revocation)
}

func (w *Worker) createProfile(ctx context.Context, a profileArgs) error {
	return w.o.Profiles.Create(ctx, a.UserID, a.Name)
}

// expire waits for the moment by this clock: the database's, by which the queue goes, may be ahead.
func (w *Worker) expire(ctx context.Context, a expiryArgs) error {
	if early := a.At.Sub(w.o.Now()); early > 0 {
		return river.JobSnooze(early)
	}
	return w.o.Expire(ctx)
}

// failures logs what went wrong with a job; what the job holds stays out of the log, for it may be a secret (S67).
type failures struct{ log *slog.Logger }

func (f failures) HandleError(ctx context.Context, j *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	level, text := slog.LevelWarn, "job failed; it will be tried again"
	if cancelled := new(river.JobCancelError); errors.As(err, &cancelled) || j.Attempt >= j.MaxAttempts {
		level, text = slog.LevelError, "job given up"
	}
	f.log.Log(ctx, level, text, "kind", j.Kind, "job_id", j.ID, "attempt", j.Attempt, "error", err) //nolint:sloglint // one of two constants
	return nil
}

func (f failures) HandlePanic(ctx context.Context, j *rivertype.JobRow, panicked any, stack string) *river.ErrorHandlerResult {
	f.log.ErrorContext(ctx, "job panicked", "kind", j.Kind, "job_id", j.ID, "attempt", j.Attempt, "panic", fmt.Sprint(panicked), "stack", stack)
	return nil
}

// atLeast hands on records from a level upwards: River tells at lower ones what only its authors want to know.
type atLeast struct {
	slog.Handler
	level slog.Level
}

func (h atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

func (h atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{h.Handler.WithAttrs(attrs), h.level}
}

func (h atLeast) WithGroup(name string) slog.Handler {
	return atLeast{h.Handler.WithGroup(name), h.level}
}
