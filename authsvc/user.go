package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// words collects a flag that may be given several times.
type words []string

func (w *words) String() string { return strings.Join(*w, ",") }

func (w *words) Set(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	*w = append(*w, s)
	return nil
}

// createUser makes an account as the operator says; it is how the first admin comes about, for there is no default account.
func createUser(ctx context.Context, cfg app.Config, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("gatehouse-authsvc user create", flag.ContinueOnError)
	email := flags.String("email", "", "address (needed)")
	name := flags.String("name", "", "name in the profile")
	fromStdin := flags.Bool("password-stdin", false, "read the password from the first line of standard input; otherwise one is made and printed")
	var roles, attributes words
	flags.Var(&roles, "role", "role, such as admin; may be given several times (default "+login.DefaultRole+")")
	flags.Var(&attributes, "attribute", "name=value that policies may look at, such as department=sales; may be given several times")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if *email == "" {
		return errors.New("user create: --email is needed")
	}
	if err := cfg.ValidateStore(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	u := login.NewUser{Email: *email, Name: *name, Roles: roles, Attributes: map[string]string{}}
	if len(u.Roles) == 0 {
		u.Roles = []string{login.DefaultRole}
	}
	for _, a := range attributes {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" {
			return errors.New("user create: --attribute expects name=value")
		}
		u.Attributes[key] = value
	}
	var err error
	if u.Password, err = readPassword(*fromStdin, stdin); err != nil {
		return err
	}
	db, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	logins, _, err := app.Accounts(cfg, app.Parts{DB: db, Now: time.Now, Log: telemetry.Logger(stderr, slog.LevelWarn)})
	if err != nil {
		return err
	}
	id, err := logins.Add(ctx, u)
	if err != nil {
		return fmt.Errorf("user create: %w", err)
	}
	fmt.Fprintf(stdout, "id: %s\n", id)
	if !*fromStdin {
		fmt.Fprintf(stdout, "password: %s\n", u.Password)
	}
	return nil
}

// readPassword answers 26 random letters and digits, over 128 bits, unless the operator brings a password.
func readPassword(fromStdin bool, stdin io.Reader) (string, error) {
	if !fromStdin {
		return rand.Text(), nil
	}
	line, err := bufio.NewReader(io.LimitReader(stdin, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}
