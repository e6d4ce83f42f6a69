package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

type roleCommand func(ctx context.Context, cfg app.Config, args []string, stdout, stderr io.Writer) error

func roleCommands() map[string]roleCommand {
	return map[string]roleCommand{
		"role set": setRole, "role grant": grantRole, "role revoke": revokeRole, "role list": listRoles, "directory new-epoch": newEpoch,
	}
}

// operator is whoever has the database's credentials. Nothing that admins may not do is kept from them.
func operator() role.Actor { return role.Actor{Subject: role.Operator} }

// roleFlags are flags that several commands share.
type roleFlags struct {
	*flag.FlagSet
	subject, email, role, tenant, reason, ticket string
}

func newRoleFlags(name string) *roleFlags {
	return &roleFlags{FlagSet: flag.NewFlagSet("gatehouse-authsvc "+name, flag.ContinueOnError)}
}

func (f *roleFlags) who() {
	f.StringVar(&f.subject, "subject", "", "whose: an account's id, or what another issuer calls its subject")
	f.StringVar(&f.email, "email", "", "whose: the address of an account")
}

func (f *roleFlags) what() {
	f.StringVar(&f.role, "role", "", "role (needed)")
	f.StringVar(&f.reason, "reason", "", "why, for the audit")
	f.StringVar(&f.ticket, "ticket", "", "ticket, for the audit")
}

func (f *roleFlags) where() { f.StringVar(&f.tenant, "tenant", "", "tenant (default everywhere)") }

// find answers the subject that the flags name, or "" if they name none.
func (f *roleFlags) find(ctx context.Context, db *store.DB) (string, error) {
	switch {
	case f.subject != "" && f.email != "":
		return "", errors.New("give --subject or --email, not both")
	case f.email == "":
		return f.subject, nil
	}
	email, err := account.NormalizeEmail(f.email)
	if err != nil {
		return "", err
	}
	u, err := db.Accounts().ByEmail(ctx, email)
	return u.ID, err
}

// holder is find where both a subject and a role are needed.
func (f *roleFlags) holder(ctx context.Context, db *store.DB) (string, error) {
	subject, err := f.find(ctx, db)
	if err == nil && (subject == "" || f.role == "") {
		err = errors.New("--role is needed, and --subject or --email")
	}
	return subject, err
}

// open connects what a command of roles needs. Redis is used if it is configured: then the edge learns of a revocation at once.
func (f *roleFlags) open(ctx context.Context, cfg app.Config, args []string, stderr io.Writer) (*store.DB, *role.Service, func(), error) {
	if err := parse(f.FlagSet, args, stderr); err != nil {
		return nil, nil, nil, err
	}
	if err := cfg.ValidateDatabase(); err != nil {
		return nil, nil, nil, fmt.Errorf("configuration:\n%w", err)
	}
	db, err := open(ctx, cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	p := app.Parts{DB: db, Now: time.Now, Log: telemetry.Logger(stderr, slog.LevelWarn)}
	closing := func() { _ = db.Close() } // what was changed is committed
	if cfg.RedisURL != "" {
		client, err := redisx.Open(cfg.RedisURL.Reveal())
		if err != nil {
			return nil, nil, nil, errors.Join(fmt.Errorf("AUTHSVC_REDIS_URL: %w", err), db.Close())
		}
		p.Redis = client
		closing = func() { _, _ = client.Close(), db.Close() }
	}
	return db, app.Roles(cfg, p), closing, nil
}

func grantRole(ctx context.Context, cfg app.Config, args []string, stdout, stderr io.Writer) error {
	f := newRoleFlags("role grant")
	f.who()
	f.what()
	f.where()
	life := f.Duration("for", 0, "how long, such as 8h (default until it is taken away)")
	db, roles, done, err := f.open(ctx, cfg, args, stderr)
	if err != nil {
		return err
	}
	defer done()
	subject, err := f.holder(ctx, db)
	if err != nil {
		return fmt.Errorf("role grant: %w", err)
	}
	if f.role == role.Admin { // so that nothing has to be made before the first admin
		_, _, err := roles.CreateRole(ctx, operator(), role.Role{Name: role.Admin, Description: "Administers roles.", Protected: true}, role.Why{})
		if err != nil && !errors.Is(err, role.ErrRoleExists) {
			return fmt.Errorf("role grant: %w", err)
		}
	}
	b := role.Binding{Subject: subject, Role: f.role, Tenant: f.tenant, Reason: f.reason, Ticket: f.ticket}
	if *life != 0 {
		until := roles.Now().Add(*life)
		b.Until = &until
	}
	b, revision, err := roles.Grant(ctx, operator(), b)
	if err != nil {
		return fmt.Errorf("role grant: %w", err)
	}
	fmt.Fprintf(stdout, "id: %s\nrevision: %d\n", b.ID, revision)
	return nil
}

func revokeRole(ctx context.Context, cfg app.Config, args []string, stdout, stderr io.Writer) error {
	f := newRoleFlags("role revoke")
	f.who()
	f.what()
	f.where()
	db, roles, done, err := f.open(ctx, cfg, args, stderr)
	if err != nil {
		return err
	}
	defer done()
	subject, err := f.holder(ctx, db)
	if err != nil {
		return fmt.Errorf("role revoke: %w", err)
	}
	revision, err := roles.Revoke(ctx, operator(), subject, f.role, f.tenant, role.Why{Reason: f.reason, Ticket: f.ticket})
	if err != nil {
		return fmt.Errorf("role revoke: %w", err)
	}
	fmt.Fprintf(stdout, "revision: %d\n", revision)
	return nil
}

func setRole(ctx context.Context, cfg app.Config, args []string, stdout, stderr io.Writer) error {
	f := newRoleFlags("role set")
	f.what()
	var r role.Role
	var inherits, permissions words
	f.StringVar(&r.Description, "description", "", "what it is for")
	f.BoolVar(&r.Protected, "protected", false, "granted only by those who hold it, changed only by this command")
	f.Var(&inherits, "inherits", "role that it inherits; may be given several times")
	f.Var(&permissions, "permission", "ACTION=RESOURCE or ACTION=RESOURCE=CONDITION,CONDITION; may be given several times")
	_, roles, done, err := f.open(ctx, cfg, args, stderr)
	if err != nil {
		return err
	}
	defer done()
	r.Name, r.Inherits = f.role, inherits
	for _, p := range permissions {
		parts := strings.SplitN(p, "=", 3)
		if len(parts) < 2 {
			return errors.New("role set: --permission expects ACTION=RESOURCE")
		}
		permission := role.Permission{Action: parts[0], Resource: parts[1]}
		if len(parts) == 3 {
			permission.Conditions = strings.Split(parts[2], ",")
		}
		r.Permissions = append(r.Permissions, permission)
	}
	why := role.Why{Reason: f.reason, Ticket: f.ticket}
	_, revision, err := roles.UpdateRole(ctx, operator(), r, "", why)
	if errors.Is(err, role.ErrRoleNotFound) {
		_, revision, err = roles.CreateRole(ctx, operator(), r, why)
	}
	if err != nil {
		return fmt.Errorf("role set: %w", err)
	}
	fmt.Fprintf(stdout, "revision: %d\n", revision)
	return nil
}

func listRoles(ctx context.Context, cfg app.Config, args []string, stdout, stderr io.Writer) error {
	f := newRoleFlags("role list")
	f.who()
	db, roles, done, err := f.open(ctx, cfg, args, stderr)
	if err != nil {
		return err
	}
	defer done()
	subject, err := f.find(ctx, db)
	if err != nil {
		return fmt.Errorf("role list: %w", err)
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	if subject == "" {
		err = allRoles(ctx, roles, w)
	} else {
		err = rolesOf(ctx, roles, w, subject)
	}
	if err != nil {
		return fmt.Errorf("role list: %w", err)
	}
	return w.Flush()
}

func allRoles(ctx context.Context, roles *role.Service, w io.Writer) error {
	fmt.Fprintln(w, "ROLE\tPROTECTED\tINHERITS\tPERMISSIONS")
	page := role.Page{Limit: 200}
	for {
		found, err := roles.Store.Roles(ctx, page)
		if err != nil {
			return err
		}
		for _, r := range found {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", r.Name, yes(r.Protected), strings.Join(r.Inherits, ","), len(r.Permissions))
		}
		if len(found) < page.Limit {
			return nil
		}
		page.After = found[len(found)-1].Name
	}
}

func rolesOf(ctx context.Context, roles *role.Service, w io.Writer, subject string) error {
	found, err := roles.Effective(ctx, subject, nil)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "ROLE\tVIA\tTENANT\tUNTIL\tIN TOKENS")
	for _, e := range found {
		until := ""
		if e.Until != nil {
			until = e.Until.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Role, e.Via, e.Tenant, until, yes(e.FromAccount))
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func newEpoch(ctx context.Context, cfg app.Config, args []string, stdout, stderr io.Writer) error {
	f := newRoleFlags("directory new-epoch")
	_, roles, done, err := f.open(ctx, cfg, args, stderr)
	if err != nil {
		return err
	}
	defer done()
	epoch, err := roles.Store.NewEpoch(ctx)
	if err != nil {
		return fmt.Errorf("directory new-epoch: %w", err)
	}
	fmt.Fprintf(stdout, "epoch: %s\n", epoch)
	return nil
}
