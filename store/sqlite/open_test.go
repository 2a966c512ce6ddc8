package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/store/sqlite"
)

func TestSecondProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "zonemint.db")
	first, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// A lock belongs to an open file, so a second one in this process is as
	// good as one in another.
	second, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err == nil {
		_ = second.Close()
		t.Fatal("the database was opened twice")
	}
	for _, part := range []string{"another zonemint has this database open", path, "Postgres"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if _, err := first.Migrate(t.Context()); err != nil {
		t.Errorf("the first engine was disturbed: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestMigrateAgain(t *testing.T) {
	t.Parallel()
	e, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "zonemint.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close() //nolint:errcheck // nothing was left to write
	for _, want := range []bool{true, false} {
		pending, err := e.Pending(t.Context())
		if err != nil || len(pending) > 0 != want {
			t.Errorf("pending are %v (%v), want some: %t", pending, err, want)
		}
		applied, err := e.Migrate(t.Context())
		if err != nil || strings.Join(applied, " ") != strings.Join(pending, " ") {
			t.Errorf("applied %v (%v), pending were %v", applied, err, pending)
		}
	}
}

// TestFilesArePrivate: the database holds encrypted private keys.
func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, filepath.Join(dir, "zonemint.db"))
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 4 { // database, lock, log and its index
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if perm := info.Mode().Perm(); perm != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", f.Name(), perm)
		}
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing", "zonemint.db"), filepath.Join(dir, "text"), dir} {
		e, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		if err == nil {
			_ = e.Close()
			t.Errorf("%s was opened", path)
			continue
		}
		if !strings.Contains(err.Error(), dir) {
			t.Errorf("the error does not name the file: %v", err)
		}
	}
}
