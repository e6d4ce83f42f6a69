package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/authsvc/store"
)

func TestAnSQLiteFileThatCannotBeMadeIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "no database")
	if err := os.WriteFile(file, []byte(strings.Repeat("this is a letter, not a database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"no such folder":     filepath.Join(dir, "missing", "authsvc.db"),
		"a folder":           dir,
		"below a file":       filepath.Join(file, "authsvc.db"),
		"another kind of it": file,
	} {
		db, err := store.Open(t.Context(), "sqlite:"+path)
		if err == nil {
			db.Close()
			t.Errorf("%s was opened", name)
			continue
		}
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not say which file: %v", name, err)
		}
		t.Log(err)
	}
	if db, err := store.Open(t.Context(), "sqlite:"); err == nil {
		db.Close()
		t.Error("a DSN without a file was taken")
	}
}

func TestAnSQLitePathIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a b.db", "a?mode=memory.db", "a#b.db", "a%20b.db", "a&_pragma=x.db", "a:b.db", "ü.db"} {
		path := filepath.Join(t.TempDir(), name)
		usable(t, migrated(t, "sqlite:"+path))
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// What it holds is worth as much as the accounts themselves: hashes, sealed keys, addresses.
func TestAnSQLiteFileIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	usable(t, migrated(t, "sqlite:"+filepath.Join(dir, "authsvc.db")))
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 { // the database and its log, at least
		t.Fatalf("found %v, error %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
}
