// Package testenv gives a test a PostgreSQL database and a Redis database of its own, on the real servers that
// internal/testenv/run starts before the tests.
package testenv

import (
	"context"
	"database/sql"
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
	server := os.Getenv(PostgresVariable)
	if server == "" {
		t.Fatal(PostgresVariable, hint)
	}
	admin, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatalf("open PostgreSQL: %v", err)
	}
	name := "t_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		admin.Close()
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		defer admin.Close()
		if _, err := admin.ExecContext(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop database: %v", err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("parse %s: %v", PostgresVariable, err)
	}
	u.Path = "/" + name
	return u.String()
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
