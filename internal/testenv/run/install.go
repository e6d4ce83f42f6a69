package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

// binaries is where the servers are, and the user to run them as: PostgreSQL refuses root.
type binaries struct {
	initdb, postgres, redis, nginx string
	as                             *syscall.Credential // nil: whoever we are
}

// find looks for the servers, installing Debian's packages where they are missing and that is possible. A browser and
// a message broker are tried for as well, but only some tests need them, and say so themselves.
func find(ctx context.Context) (binaries, error) {
	b, err := look()
	if err != nil {
		if err = install(ctx, errMissing, "postgresql", "redis-server", "nginx"); err != nil {
			return b, err
		}
		if b, err = look(); err != nil {
			return b, err
		}
	}
	if testenv.FindChromium() == "" {
		if err := install(ctx, errNoBrowser, "chromium"); err != nil {
			fmt.Fprintln(os.Stderr, "testenv: tests in a browser will fail:", err)
		}
	}
	if testenv.FindRabbitMQ() == "" {
		if err := install(ctx, errNoRabbit, "rabbitmq-server"); err != nil {
			fmt.Fprintln(os.Stderr, "testenv: tests of RabbitMQ will fail:", err)
		}
	}
	if os.Geteuid() == 0 {
		b.as, err = nobody()
	}
	return b, err
}

func look() (b binaries, err error) {
	b.initdb, b.postgres = newest("initdb"), newest("postgres")
	b.redis, _ = exec.LookPath("redis-server")
	if b.nginx, _ = exec.LookPath("nginx"); b.nginx == "" {
		b.nginx, _ = exec.LookPath("/usr/sbin/nginx") // on root's PATH only
	}
	if b.initdb == "" || b.postgres == "" || b.redis == "" || b.nginx == "" {
		return b, errMissing
	}
	return b, nil
}

var (
	errMissing   = errors.New("PostgreSQL (initdb, postgres), Redis (redis-server) and NGINX (nginx) are needed, and one of them was not found")
	errNoBrowser = errors.New("a browser, Chromium, was not found")
	errNoRabbit  = errors.New("RabbitMQ (rabbitmq-server) was not found")
)

// newest finds a PostgreSQL program on the PATH or where Debian keeps its versions.
func newest(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	path, _ := exec.LookPath(name)
	return path
}

// install installs Debian's packages, for the reason that is given.
func install(ctx context.Context, why error, packages ...string) error {
	names := strings.Join(packages, ", ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%w: install it, then run this again", why)
	}
	var sudo []string
	if os.Geteuid() != 0 {
		if exec.CommandContext(ctx, "sudo", "-n", "true").Run() != nil {
			return fmt.Errorf("%w: install %s, or run this as root", why, names)
		}
		sudo = []string{"sudo", "-n"}
	}
	fmt.Fprintln(os.Stderr, "testenv: installing", names)
	line := append(append(sudo, "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", installScript, "install"), packages...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get: %w", err)
	}
	return nil
}

// installScript installs the packages without starting their system services: policy-rc.d is Debian's way to say so
// (invoke-rc.d(8)). One that is there already is left alone.
const installScript = `
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f '$policy EXIT
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 755 $policy
fi
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"`

// nobody is an unprivileged user that every Debian has.
func nobody() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("running as root, and there is no user to run PostgreSQL as")
}
