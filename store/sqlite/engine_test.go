package sqlite

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
)

func openAt(t *testing.T, path string) *Engine {
	t.Helper()
	e, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// TestPragmas asks the engine's own connections, all of them, also one that was
// opened in place of another.
func TestPragmas(t *testing.T) {
	t.Parallel()
	e := openAt(t, filepath.Join(t.TempDir(), "a ?b%20c#d.db")) // a name that a URL would hide
	for _, pool := range []struct {
		db    *sql.DB
		conns int
		only  string
	}{{e.write, 1, "0"}, {e.read, readers, "1"}} {
		want := map[string]string{
			"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "trusted_schema": "0", "busy_timeout": "5000",
			"query_only": pool.only,
		}
		var conns []*sql.Conn
		for range pool.conns {
			conn, err := pool.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			for name, value := range want {
				if got := pragma(t, conn, name); got != value {
					t.Errorf("%s is %s, want %s", name, got, value)
				}
			}
			if file := pragma(t, conn, "database_list"); !strings.HasSuffix(file, "a ?b%20c#d.db") {
				t.Errorf("the database is in %s", file)
			}
		}
		for _, conn := range conns {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func pragma(t *testing.T, conn *sql.Conn, name string) (value string) {
	t.Helper()
	query := "PRAGMA " + name
	if name == "database_list" {
		query = "SELECT file FROM pragma_database_list"
	}
	if err := conn.QueryRowContext(t.Context(), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}
