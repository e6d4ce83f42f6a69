// Package work does the jobs of package job, by River, in the database that holds the data: a job is inserted in the
// transaction that caused it, so that both commit or neither does. Only this package knows River. A job runs at least
// once; one that fails is tried again until it succeeds, is refused for good, or would be of no use any more.
package work

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
)

// Revocations have a queue of their own, so that no slow mail server keeps them waiting.
const (
	urgent  = "urgent"
	ordered = "default"
)

// Queue is the place of the jobs in one database.
type Queue struct {
	driver riverdriver.Driver[*sql.Tx]
	client *river.Client[*sql.Tx] // only inserts
}

// OnPostgres answers the queue in a PostgreSQL database. A worker takes one connection of its own from listener, by which
// it learns of a job as soon as that is committed.
func OnPostgres(db *sql.DB, listener *pgxpool.Pool) (*Queue, error) {
	return newQueue(riverdatabasesql.NewWithPgxListener(db, listener))
}

// OnSQLite answers the queue in an SQLite database.
func OnSQLite(db *sql.DB) (*Queue, error) { return newQueue(riversqlite.New(db)) }

func newQueue(driver riverdriver.Driver[*sql.Tx]) (*Queue, error) {
	client, err := river.NewClient(driver, &river.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("job queue: %w", err)
	}
	return &Queue{driver: driver, client: client}, nil
}

// Migrate brings River's tables to the version that this program needs.
func (q *Queue) Migrate(ctx context.Context) error {
	m, err := rivermigrate.New(q.driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("job queue: %w", err)
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate job queue: %w", err)
	}
	return nil
}

// Insert adds jobs within tx. They are done once tx has been committed.
func (q *Queue) Insert(ctx context.Context, tx *sql.Tx, jobs ...job.Job) error {
	if len(jobs) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(jobs))
	for i, j := range jobs {
		opts, err := optionsOf(j.Kind)
		if err != nil {
			return err
		}
		opts.ScheduledAt = j.At
		params[i] = river.InsertManyParams{Args: args{j}, InsertOpts: opts}
	}
	if _, err := q.client.InsertManyTx(ctx, tx, params); err != nil {
		return fmt.Errorf("insert jobs: %w", err)
	}
	return nil
}

// optionsOf refuses a kind that no worker knows: it would wait for ever.
func optionsOf(kind string) (*river.InsertOpts, error) {
	switch kind {
	case job.KindRevocation:
		return &river.InsertOpts{Queue: urgent, MaxAttempts: 500}, nil
	case job.KindMail, job.KindProfile, job.KindExpiry:
		return &river.InsertOpts{Queue: ordered, MaxAttempts: 25}, nil
	}
	return nil, fmt.Errorf("job of unknown kind %q", kind)
}

// args gives a job the form that River inserts.
type args struct{ job.Job }

func (a args) Kind() string                 { return a.Job.Kind }
func (a args) MarshalJSON() ([]byte, error) { return json.Marshal(a.Job.Args) }
