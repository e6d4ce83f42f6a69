// Package testenv gives a test a PostgreSQL database and a Redis database of its own, on the real servers that
// internal/testenv/run starts before the tests.
package testenv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/redis/go-redis/v9"
)

// The variables by which the runner tells the tests where the servers are.
const (
	PostgresVariable = "GATEHOUSE_TEST_POSTGRES" // postgres:// URL of a role that may create databases
	RedisVariable    = "GATEHOUSE_TEST_REDIS"    // redis:// URL without a database number
)

const hint = "is not set: run the tests by 'make test', or by 'go run ./internal/testenv/run -- go test ./…'"

// Postgres answers the URL of a new, empty database, dropped when the test ends.
func Postgres(t testing.TB) string {
	t.Helper()
	return PostgresLike(t, "template1")
}

// PostgresLike answers the URL of a new database that is a copy of a Template, dropped when the test ends.
func PostgresLike(t testing.TB, template string) string {
	t.Helper()
	name, dsn, err := create(t.Context(), template)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := execute(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop database: %v", err)
		}
	})
	return dsn
}

// Template makes a database, has it filled, and answers its name for PostgresLike: copying is much cheaper than filling. It stays
// until the server ends, and fill must leave no connection to it.
func Template(fill func(ctx context.Context, dsn string) error) (name string, err error) {
	ctx := context.Background() // it outlives the test that is the first to ask
	name, dsn, err := create(ctx, "template1")
	if err != nil {
		return "", err
	}
	return name, fill(ctx, dsn)
}

func create(ctx context.Context, template string) (name, dsn string, err error) {
	name = "t_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if err := execute(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		return "", "", fmt.Errorf("create database: %w", err)
	}
	u, err := url.Parse(os.Getenv(PostgresVariable))
	if err != nil {
		return "", "", fmt.Errorf("parse %s: %w", PostgresVariable, err)
	}
	u.Path = "/" + name
	return name, u.String(), nil
}

// execute runs a statement on the server's own database.
func execute(ctx context.Context, statement string) error {
	server := os.Getenv(PostgresVariable)
	if server == "" {
		return errors.New(PostgresVariable + " " + hint)
	}
	admin, err := sql.Open("pgx", server)
	if err != nil {
		return fmt.Errorf("open PostgreSQL: %w", err)
	}
	defer admin.Close()
	_, err = admin.ExecContext(ctx, statement)
	return err
}

// Redis answers the URL of a database that no other test uses, emptied before and after.
func Redis(t testing.TB) string {
	t.Helper()
	server := os.Getenv(RedisVariable)
	if server == "" {
		t.Fatal(RedisVariable, hint)
	}
	opts, err := redis.ParseURL(server)
	if err != nil {
		t.Fatalf("parse %s: %v", RedisVariable, err)
	}
	counter := redis.NewClient(opts)
	defer counter.Close()
	n, err := counter.Incr(t.Context(), "testenv:databases").Result() // database 0 only counts
	if err != nil {
		t.Fatalf("number a Redis database: %v", err)
	}
	own := *opts
	own.DB = int(n)
	client := redis.NewClient(&own)
	t.Cleanup(func() {
		defer client.Close()
		if err := client.FlushDB(context.Background()).Err(); err != nil {
			t.Errorf("empty the Redis database: %v", err)
		}
	})
	return fmt.Sprintf("%s/%d", strings.TrimRight(server, "/"), n)
}
