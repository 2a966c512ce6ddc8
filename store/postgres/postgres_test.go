package postgres_test

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres"
	"github.com/zonemint/zonemint/store/postgres/postgrestest"
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
	url := postgrestest.New(t)
	e := open(t, url)
	if _, err := e.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return storetest.Database{
		Engine: e,
		Second: func(t testing.TB) store.Engine { return open(t, url) },
		SQL:    openSQL(t, url),
		Columns: `SELECT column_name, data_type FROM information_schema.columns
			WHERE table_schema = 'public' AND table_name = $1`,
		Edits: map[string]string{
			"uuid":                     "gen_random_uuid()",
			"text":                     "coalesce({column}, '') || 'x'",
			"bytea":                    `coalesce({column}, '') || '\x00'`,
			"integer":                  "{column} + 1000",
			"bigint":                   "{column} + 1000",
			"boolean":                  "NOT {column}",
			"timestamp with time zone": "coalesce({column}, now()) + interval '1 second'",
		},
		Cut: `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'zonemint/watch'`,
		Drag: []string{
			`CREATE FUNCTION drag() RETURNS trigger LANGUAGE plpgsql AS
				$$ BEGIN PERFORM pg_sleep(0.003 + 0.01 * random()); RETURN NEW; END $$`,
			`CREATE TRIGGER drag AFTER INSERT ON ledger_batches FOR EACH ROW EXECUTE FUNCTION drag()`,
		},
	}
}

func open(t testing.TB, url string) *postgres.Engine {
	t.Helper()
	e, err := postgres.Open(t.Context(), url, postgres.Options{})
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

// openSQL connects past the engine. Foreign keys are triggers in PostgreSQL, and
// triggers do not fire for who only replicates.
func openSQL(t testing.TB, url string) *sql.DB {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["session_replication_role"] = "replica"
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(2)
	t.Cleanup(func() { _ = db.Close() })
	return db
}
