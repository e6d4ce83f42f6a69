package sink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	_ "embed"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// Schema makes the table that Postgres writes to. The program itself never does: its role may insert, and nothing else (S68).
//
//go:embed schema.sql
var Schema string

// Postgres copies records into the table decision_log. A record that is there already, by its id and time, is left as it is.
type Postgres struct {
	config *pgx.ConnConfig
	conn   *pgx.Conn
	closed bool
}

// OpenPostgres reads the URL; it connects when there is something to write.
func OpenPostgres(url telemetry.Secret) (*Postgres, error) {
	config, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return nil, errors.New("postgres: not a postgres:// URL")
	}
	config.ConnectTimeout = 5 * time.Second
	return &Postgres{config: config}, nil
}

const (
	makeIncoming = `
	CREATE TEMPORARY TABLE IF NOT EXISTS incoming_decisions (decision_id text, decided_at timestamptz, outcome text, record jsonb)
	ON COMMIT DELETE ROWS`
	insertIncoming = `
	INSERT INTO decision_log (decision_id, decided_at, outcome, record)
	SELECT decision_id, decided_at, outcome, record FROM incoming_decisions
	ON CONFLICT DO NOTHING`
)

// Write implements decisionlog.Sink.
func (p *Postgres) Write(ctx context.Context, records [][]byte) error {
	switch {
	case p.closed:
		return errClosed
	case len(records) == 0:
		return nil
	}
	rows, err := rowsOf(records)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if p.conn == nil {
		if p.conn, err = pgx.ConnectConfig(ctx, p.config); err != nil {
			p.conn = nil
			return described("connect", err)
		}
	}
	if err = p.write(ctx, rows); err == nil {
		return nil
	}
	if p.conn.IsClosed() || ctx.Err() != nil {
		p.drop()
	}
	return described("write", err)
}

func (p *Postgres) write(ctx context.Context, rows [][]any) error {
	return pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, makeIncoming); err != nil {
			return err
		}
		columns := []string{"decision_id", "decided_at", "outcome", "record"}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"incoming_decisions"}, columns, pgx.CopyFromRows(rows)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insertIncoming)
		return err
	})
}

// rowsOf reads of each record what has a column of its own.
func rowsOf(records [][]byte) ([][]any, error) {
	rows := make([][]any, len(records))
	for i, text := range records {
		var r struct {
			ID        string    `json:"decision_id"`
			Time      time.Time `json:"timestamp"`
			Gatehouse struct {
				Outcome string `json:"outcome"`
			} `json:"gatehouse"`
		}
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("postgres: not a record: %w", decisionlog.ErrRejected)
		}
		if r.ID == "" { // only where ids could not be made
			sum := sha256.Sum256(text)
			r.ID = hex.EncodeToString(sum[:])
		}
		rows[i] = []any{r.ID, r.Time, r.Gatehouse.Outcome, json.RawMessage(withoutNUL(text))}
	}
	return rows, nil
}

// withoutNUL writes U+FFFD for each NUL, which jsonb cannot hold.
func withoutNUL(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u0000`)) {
		return text
	}
	out := bytes.Clone(text)
	for i := 0; i+1 < len(out); i++ {
		if out[i] != '\\' {
			continue
		}
		if bytes.HasPrefix(out[i:], []byte(`\u0000`)) {
			copy(out[i+2:], "fffd")
		}
		i++ // the escaped character is none that escapes
	}
	return out
}

// described keeps of an error what the operator needs: PostgreSQL's own texts may hold values of a record.
func described(what string, err error) error {
	var of *pgconn.PgError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case !errors.As(err, &of):
		return fmt.Errorf("postgres: cannot %s: the server cannot be reached, or went away", what)
	}
	told := fmt.Errorf("postgres: cannot %s: SQLSTATE %s", what, of.Code)
	switch {
	case of.Code == "42P01":
		return errors.New("postgres: there is no table decision_log, or no right to see it: SQLSTATE 42P01")
	case of.Code == "42501":
		return errors.New("postgres: the role may not insert into decision_log, or make a temporary table: SQLSTATE 42501")
	case len(of.Code) == 5 && (of.Code[:2] == "22" || of.Code[:2] == "23"): // data that the table cannot take
		return fmt.Errorf("%w: %w", told, decisionlog.ErrRejected)
	}
	return told
}

func (p *Postgres) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx) // it is of no use any more
	p.conn = nil
}

// Close implements decisionlog.Sink.
func (p *Postgres) Close() error {
	p.closed = true
	if p.conn != nil {
		p.drop()
	}
	return nil
}
