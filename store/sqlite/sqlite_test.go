package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/zonemint/zonemint/store/sqlite"
	"github.com/zonemint/zonemint/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: openMigrated})
}

func BenchmarkRecord(b *testing.B) {
	storetest.BenchmarkRecord(b, storetest.Harness{Open: openMigrated})
}

func BenchmarkRevokeMatching(b *testing.B) {
	storetest.BenchmarkRevokeMatching(b, storetest.Harness{Open: openMigrated})
}

func openMigrated(t testing.TB) storetest.Database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zonemint.db")
	return storetest.Database{
		Engine:  open(t, path),
		SQL:     openSQL(t, path),
		Columns: "SELECT name, type FROM pragma_table_info($1)",
		Edits: map[string]string{
			"TEXT":    "coalesce({column}, '') || 'x'",
			"INTEGER": "coalesce({column}, 0) + 1000000",
			"BLOB":    "CAST(coalesce({column}, '') || x'00' AS blob)",
		},
	}
}

func open(t testing.TB, path string) *sqlite.Engine {
	t.Helper()
	e, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := e.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// openSQL connects past the engine. SQLite does not enforce foreign keys unless
// it is told to.
func openSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}
