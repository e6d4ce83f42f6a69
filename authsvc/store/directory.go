package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/authsvc/directory"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// The changes that are kept for readers who have been away: whoever has missed more begins again with a snapshot.
const (
	keptChanges = 100_000
	keptFor     = 7 * 24 * time.Hour
)

// changed is what one revision has done.
type changed struct {
	action, target string
	before, after  any // nil if there was or is nothing
	line           feed.Line
}

// change runs fn as the next revision, and commits what it has done with that revision and its line of the audit. The revision is
// taken first: it is the lock by which changes have an order, so that what fn reads stands still until it commits.
func (s Roles) change(ctx context.Context, what string, c role.Cause, fn func(ctx context.Context, tx *sql.Tx, revision uint64) (changed, error)) (uint64, error) {
	var revision uint64
	err := s.step(ctx, what, func(ctx context.Context, tx *sql.Tx) (err error) {
		if revision, err = nextRevision(ctx, tx); err != nil {
			return err
		}
		done, err := fn(ctx, tx, revision)
		if err != nil {
			return err
		}
		return s.record(ctx, tx, revision, c, done)
	})
	if err != nil {
		return 0, err
	}
	s.announce()
	return revision, nil
}

const countRevision = `UPDATE directory_state SET revision = revision + 1 WHERE id = 1 RETURNING revision`

func nextRevision(ctx context.Context, tx *sql.Tx) (revision uint64, err error) {
	return revision, tx.QueryRowContext(ctx, countRevision).Scan(&revision)
}

const insertAudit = `
	INSERT INTO role_audit (revision, at, actor, action, target, before, after, reason, ticket, request_id)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

const insertChange = `INSERT INTO directory_changes (revision, at, line) VALUES ($1, $2, $3)`

const forgetChanges = `DELETE FROM directory_changes WHERE revision <= $1 OR at < $2`

func (s Roles) record(ctx context.Context, tx *sql.Tx, revision uint64, c role.Cause, done changed) error {
	before, err := document(done.before)
	if err != nil {
		return err
	}
	after, err := document(done.after)
	if err != nil {
		return err
	}
	line, err := document(done.line)
	if err != nil {
		return err
	}
	at := stamp(c.At)
	if _, err := tx.ExecContext(ctx, insertAudit, revision, at, c.Actor, done.action, done.target, before, after, c.Reason, c.Ticket, c.RequestID); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, insertChange, revision, at, line); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, forgetChanges, int64(revision)-keptChanges, at.Add(-keptFor)) //nolint:gosec // far from overflowing
	return err
}

// Audits answers lines of the audit, newest first.
func (s Roles) Audits(ctx context.Context, f role.AuditFilter, before uint64, limit int) (all []role.Audit, err error) {
	query, args := `SELECT revision, at, actor, action, target, before, after, reason, ticket, request_id FROM role_audit WHERE revision > $1`, []any{0}
	also := func(condition string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(` AND %s $%d`, condition, len(args)) // a condition is a constant below
	}
	if before > 0 {
		also("revision <", before)
	}
	if f.Target != "" {
		also("target =", f.Target)
	}
	if f.Actor != "" {
		also("actor =", f.Actor)
	}
	args = append(args, limit)
	query += fmt.Sprintf(` ORDER BY revision DESC LIMIT $%d`, len(args))
	err = s.read(ctx, "list the audit", func(ctx context.Context) error {
		all, err = collect(ctx, s.db, scanAudit, query, args...)
		return err
	})
	return all, err
}

func scanAudit(from row) (a role.Audit, err error) {
	err = from.Scan(&a.Revision, &a.At, &a.Actor, &a.Action, &a.Target, fromJSON{&a.Before}, fromJSON{&a.After}, &a.Reason, &a.Ticket, &a.RequestID)
	a.At = a.At.UTC()
	return a, err
}

const setEpoch = `UPDATE directory_state SET epoch = $1 WHERE id = 1`

const forgetAllChanges = `DELETE FROM directory_changes`

// NewEpoch begins another life of the data.
func (s Roles) NewEpoch(ctx context.Context) (string, error) {
	epoch := uuid.NewString()
	err := s.step(ctx, "begin an epoch", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, setEpoch, epoch); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, forgetAllChanges)
		return err
	})
	if err != nil {
		return "", err
	}
	s.announce()
	return epoch, nil
}

// Directory is the directory.Store: what decision points are told.
type Directory struct{ *DB }

// Changed answers a channel that is closed when this process has committed the next change.
func (d Directory) Changed() <-chan struct{} { return d.changes.next() }

const selectState = `SELECT epoch, revision FROM directory_state WHERE id = 1`

func state(ctx context.Context, q querier) (b feed.Begin, err error) {
	return b, q.QueryRowContext(ctx, selectState).Scan(&b.Epoch, &b.Revision)
}

// At answers where the data is.
func (d Directory) At(ctx context.Context) (b feed.Begin, err error) {
	err = d.read(ctx, "find the revision", func(ctx context.Context) error {
		b, err = state(ctx, d.reader)
		return err
	})
	return b, err
}

// consistent is a transaction that sees one moment, whatever is committed meanwhile, and holds up nobody.
func (d Directory) consistent(ctx context.Context, what string, fn func(tx *sql.Tx) error) error {
	tx, err := d.reader.BeginTx(ctx, &sql.TxOptions{Isolation: d.dialect.snapshot(), ReadOnly: true})
	if err != nil {
		return d.failed(what, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was changed
	return d.failed(what, fn(tx))
}

// One statement sees one moment, and is one round trip: whoever waits for a change waits for this too.
const selectChanges = `
	SELECT s.epoch, s.revision, (SELECT min(revision) FROM directory_changes), c.revision, c.line
	FROM directory_state s LEFT JOIN (
		SELECT revision, line FROM directory_changes WHERE revision > $1 ORDER BY revision LIMIT $2
	) c ON 1 = 1
	ORDER BY c.revision`

// Changes answers at most limit of the changes after since.
func (d Directory) Changes(ctx context.Context, epoch string, since uint64, limit int) (begin feed.Begin, lines []json.RawMessage, err error) {
	var now feed.Begin
	var oldest sql.NullInt64
	err = d.read(ctx, "read changes", func(ctx context.Context) error {
		rows, err := d.reader.QueryContext(ctx, selectChanges, since, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		begin.Revision = since
		for rows.Next() {
			var revision sql.NullInt64
			var line sql.NullString
			if err := rows.Scan(&now.Epoch, &now.Revision, &oldest, &revision, &line); err != nil {
				return err
			}
			if revision.Valid {
				begin.Revision = uint64(revision.Int64) //nolint:gosec // it counts up from 0
				lines = append(lines, json.RawMessage(line.String))
			}
		}
		return rows.Err()
	})
	switch begin.Epoch = now.Epoch; {
	case err != nil:
		return feed.Begin{}, nil, err
	case now.Epoch != epoch, since > now.Revision:
		return feed.Begin{}, nil, directory.ErrGone
	case since < now.Revision && (!oldest.Valid || since+1 < uint64(oldest.Int64)): //nolint:gosec // as above
		return feed.Begin{}, nil, directory.ErrGone
	}
	return begin, lines, nil
}

// What is known of a subject comes in several rows, one after the other: its record (kind 0), its bindings (1), and its account (2).
// An account alone makes nobody a subject: what it knows is in its tokens.
const selectEverybody = `
	SELECT subject, 1 AS kind, role, tenant, until, '' AS names, '' AS attributes FROM role_bindings
	UNION ALL
	SELECT id, 0, '', tenant, NULL, cast(group_names AS text), cast(attributes AS text) FROM subjects
	UNION ALL
	SELECT id, 2, '', '', NULL, cast(roles AS text), cast(attributes AS text) FROM users
	WHERE EXISTS (SELECT 1 FROM role_bindings b WHERE b.subject = users.id) OR EXISTS (SELECT 1 FROM subjects n WHERE n.id = users.id)
	ORDER BY 1, 2, 3, 4`

// Snapshot tells line everything as it is at one moment, roles first, after telling begin which moment that is.
func (d Directory) Snapshot(ctx context.Context, begin func(feed.Begin) error, line func(feed.Line) error) error {
	return d.consistent(ctx, "read a snapshot", func(tx *sql.Tx) error {
		at, err := state(ctx, tx)
		if err != nil {
			return err
		}
		if err := begin(at); err != nil {
			return err
		}
		if err := eachRole(ctx, tx, line); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, selectEverybody)
		if err != nil {
			return err
		}
		defer rows.Close()
		var now feed.Subject
		for rows.Next() {
			id, part, err := scanPart(rows)
			if err != nil {
				return err
			}
			if now.ID != "" && now.ID != id {
				done := now // line may keep it
				if err := line(feed.Line{Subject: &done}); err != nil {
					return err
				}
				now = feed.Subject{}
			}
			now.ID = id
			part(&now)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if now.ID != "" {
			return line(feed.Line{Subject: &now})
		}
		return nil
	})
}

func eachRole(ctx context.Context, tx *sql.Tx, line func(feed.Line) error) error {
	rows, err := tx.QueryContext(ctx, roleFields+`ORDER BY name`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRole(rows)
		if err != nil {
			return err
		}
		if err := line(roleLine(r, 0)); err != nil {
			return err
		}
	}
	return rows.Err()
}

// scanPart answers of whom a row is, and what adds it to what is known of them.
func scanPart(from row) (id string, add func(*feed.Subject), err error) {
	var b feed.Binding
	var until moment
	var kind int
	var names, attributes string
	if err := from.Scan(&id, &kind, &b.Role, &b.Tenant, &until, &names, &attributes); err != nil {
		return "", nil, err
	}
	if kind == 1 {
		b.Until = until.at
		return id, func(n *feed.Subject) { n.Bindings = append(n.Bindings, b) }, nil
	}
	if kind == 0 {
		var record feed.Subject
		err = errors.Join(json.Unmarshal([]byte(names), &record.Groups), json.Unmarshal([]byte(attributes), &record.Attributes))
		return id, func(n *feed.Subject) { n.Tenant, n.Groups, n.Attributes = b.Tenant, record.Groups, record.Attributes }, err
	}
	var roles []string
	var own map[string]string
	err = errors.Join(json.Unmarshal([]byte(names), &roles), json.Unmarshal([]byte(attributes), &own))
	return id, func(n *feed.Subject) { withAccount(n, roles, own) }, err
}

// withAccount adds what somebody's account says. Decision points believe what they are told of a subject, and nothing of its
// tokens: what those carry would be lost by the first grant.
func withAccount(n *feed.Subject, roles []string, attributes map[string]string) {
	for _, name := range roles {
		i := slices.IndexFunc(n.Bindings, func(b feed.Binding) bool { return b.Role == name && b.Tenant == "" })
		if i < 0 {
			n.Bindings = append(n.Bindings, feed.Binding{Role: name})
			continue
		}
		n.Bindings[i].Until = nil
	}
	for key, value := range attributes {
		if _, said := n.Attributes[key]; said {
			continue
		}
		if n.Attributes == nil {
			n.Attributes = map[string]any{}
		}
		n.Attributes[key] = value
	}
}

// moment is a time that may be absent, of a union, of whose columns SQLite does not say that they are times.
type moment struct{ at *time.Time }

func (m *moment) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		m.at = nil
	case time.Time:
		u := v.UTC()
		m.at = &u
	case string:
		t, err := time.Parse("2006-01-02 15:04:05.999999999-07:00", v)
		if err != nil {
			return errors.New("a time is not stored as a time")
		}
		u := t.UTC()
		m.at = &u
	default:
		return fmt.Errorf("a time came as %T", src)
	}
	return nil
}

const selectAccount = `SELECT roles, attributes FROM users WHERE id = $1`

// subjectLine says what is now known of a subject.
func subjectLine(ctx context.Context, tx *sql.Tx, id string, revision uint64) (feed.Line, error) {
	bindings, err := collect(ctx, tx, scanBinding, selectHeld, id)
	if err != nil {
		return feed.Line{}, err
	}
	out := feed.Subject{Revision: revision, ID: id}
	n, err := scanSubject(tx.QueryRowContext(ctx, selectSubject, id))
	switch {
	case errors.Is(err, role.ErrSubjectNotFound):
		out.Gone = len(bindings) == 0
	case err != nil:
		return feed.Line{}, err
	default:
		out.Tenant, out.Groups, out.Attributes = n.Tenant, n.Groups, n.Attributes
	}
	for _, b := range bindings {
		out.Bindings = append(out.Bindings, feed.Binding{Role: b.Role, Tenant: b.Tenant, Until: b.Until})
	}
	if out.Gone {
		return feed.Line{Subject: &out}, nil
	}
	var roles []string
	var attributes map[string]string
	err = tx.QueryRowContext(ctx, selectAccount, id).Scan(fromJSON{&roles}, fromJSON{&attributes})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return feed.Line{}, err
	}
	withAccount(&out, roles, attributes)
	return feed.Line{Subject: &out}, nil
}

func roleLine(r role.Role, revision uint64) feed.Line {
	out := feed.Role{Revision: revision, Name: r.Name, Inherits: r.Inherits}
	for _, p := range r.Permissions {
		out.Permissions = append(out.Permissions, feed.Permission(p))
	}
	return feed.Line{Role: &out}
}

// permissionDoc is a permission as it is stored.
type permissionDoc struct {
	Action     string   `json:"action"`
	Resource   string   `json:"resource"`
	Conditions []string `json:"conditions,omitempty"`
}

func permissionDocs(list []role.Permission) []permissionDoc {
	out := make([]permissionDoc, len(list))
	for i, p := range list {
		out[i] = permissionDoc(p)
	}
	return out
}

// roleDoc is a role in the audit.
type roleDoc struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Protected   bool            `json:"protected"`
	Inherits    []string        `json:"inherits"`
	Permissions []permissionDoc `json:"permissions"`
	Version     int64           `json:"version"`
}

func roleDocument(r role.Role) roleDoc {
	return roleDoc{r.Name, r.Description, r.Protected, orEmpty(r.Inherits), permissionDocs(r.Permissions), r.Version}
}
