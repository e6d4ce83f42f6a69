package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
)

// What is known of a subject is one line for decision points. A thousand grants one by one would take their time, so that this is no
// clause of storetest.
func TestASubjectHoldsNoMoreThanALineCanSay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *store.DB, raw *sql.DB) {
		cause := role.Cause{Actor: "boss", At: noon()}
		if _, _, err := db.Roles().CreateRole(t.Context(), cause, role.Role{Name: "a", CreatedAt: noon(), UpdatedAt: noon()}, nil); err != nil {
			t.Fatal(err)
		}
		tx, err := raw.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }() // after a commit this does nothing
		const insert = `INSERT INTO role_bindings (id, subject, role, tenant, reason, ticket, break_glass, granted_by, granted_at)
			VALUES ($1, 'ada', 'a', $1, '', '', $2, '', $3)`
		for i := range role.MaxBindings {
			if _, err := tx.ExecContext(t.Context(), insert, fmt.Sprint("b", i), false, noon()); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		grant := func(id, subject string) error {
			_, err := db.Roles().Grant(t.Context(), cause, role.Binding{ID: id, Subject: subject, Role: "a", GrantedAt: noon()}, nil)
			return err
		}
		if err := grant("more", "ada"); !errors.Is(err, role.ErrTooManyBindings) {
			t.Errorf("one more: %v", err)
		}
		if err := grant("other", "bob"); err != nil {
			t.Errorf("somebody else: %v", err)
		}
	})
}
