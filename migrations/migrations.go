// Package migrations holds the database schema as numbered steps for goose, one set for each database. Steps only go
// forward: one that has been released is never changed, a mistake is mended by the next. The queue's tables are River's
// own and are migrated by River.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Postgres answers the steps for PostgreSQL.
func Postgres() (fs.FS, error) { return fs.Sub(files, "postgres") }

// SQLite answers the steps for SQLite; they make the same tables, columns and constraints.
func SQLite() (fs.FS, error) { return fs.Sub(files, "sqlite") }
