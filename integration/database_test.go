package integration

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"
)

// database is where an installation keeps its state, as a test sees it from
// outside, past any server.
type database struct {
	driver, dsn string
	setting     string // the field of the configuration that names it
	value       string
}

// onBothStores runs a test on an empty database of each kind.
func onBothStores(t *testing.T, test func(t *testing.T, db database)) {
	t.Run("sqlite", func(t *testing.T) { test(t, newSQLite(t, t.TempDir())) })
	t.Run("postgres", func(t *testing.T) { test(t, newPostgres(t)) })
}

func newSQLite(t *testing.T, dir string) database {
	t.Helper()
	path := filepath.Join(dir, "zonemint.db")
	return database{
		driver: "sqlite", dsn: (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "mode=ro"}).String(),
		setting: "sqlite", value: path,
	}
}

// newPostgres creates a database on the server that the environment names, and
// drops it when the test ends.
func newPostgres(t *testing.T) database {
	t.Helper()
	server := os.Getenv("ZONEMINT_TEST_POSTGRES")
	if server == "" {
		missing(t, "this test needs a Postgres server: run `make test`, or `scripts/with-postgres go test ./...`")
	}
	u, err := url.Parse(server)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		t.Fatal("ZONEMINT_TEST_POSTGRES is not a postgres:// URL")
	}
	name := "integration_" + strings.ToLower(rand.Text())
	execute(t, server, "CREATE DATABASE "+name+" ENCODING 'UTF8' TEMPLATE template0")
	t.Cleanup(func() { execute(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return database{driver: "pgx", dsn: u.String()}.at(t, u.String())
}

// at returns the same Postgres database as servers reach it by another URL. It
// holds a password, so it is given to them in a file.
func (d database) at(t *testing.T, url string) database {
	t.Helper()
	d.setting, d.value = "postgres_file", filepath.Join(t.TempDir(), "postgres.url")
	if err := os.WriteFile(d.value, []byte(url), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func execute(t *testing.T, server, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(db)
	if _, err := db.ExecContext(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// each calls scan for every row of a query.
func (d database) each(t *testing.T, query string, scan func(*sql.Rows) error) {
	t.Helper()
	db, err := sql.Open(d.driver, d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(db)
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(rows)
	for rows.Next() {
		if err := scan(rows); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// ledger returns the zone of every row of the ledger, by jti.
func (d database) ledger(t *testing.T) map[string]string {
	t.Helper()
	ledger := map[string]string{}
	d.each(t, "SELECT jti, subject FROM ledger", func(r *sql.Rows) error {
		var jti, subject string
		err := r.Scan(&jti, &subject)
		ledger[jti] = subject
		return err
	})
	return ledger
}

// wantRows fails the test for every token without its row, and returns how many
// rows there are.
func (d database) wantRows(t *testing.T, tokens []issued) int {
	t.Helper()
	ledger, lost := d.ledger(t), 0
	for _, k := range tokens {
		zone, ok := ledger[k.jti]
		switch {
		case !ok:
			if lost++; lost <= 5 {
				t.Errorf("a client has the token %s of round %d, and the ledger no row for it", k.jti, k.round)
			}
		case zone != k.zone:
			t.Errorf("the ledger says that the token %s is for %q, it is for %q", k.jti, zone, k.zone)
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d tokens have no row", lost, len(tokens))
	}
	return len(ledger)
}
