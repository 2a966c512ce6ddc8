// Package postgrestest gives each test a Postgres database of its own.
package postgrestest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const patience = 2 * time.Minute

// New creates an empty database on the server that ZONEMINT_TEST_POSTGRES names
// and returns its URL. The database is dropped when the test ends, whoever is
// still connected. Without a server the test is skipped, or fails if
// ZONEMINT_TEST_REQUIRE is 1, so that a continuous build cannot pass by skipping.
func New(t testing.TB) string {
	t.Helper()
	server := os.Getenv("ZONEMINT_TEST_POSTGRES")
	if server == "" {
		const how = "this test needs a Postgres server: run `make test`, or `scripts/with-postgres go test ./...`"
		if os.Getenv("ZONEMINT_TEST_REQUIRE") == "1" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	u, err := url.Parse(server)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		t.Fatal("ZONEMINT_TEST_POSTGRES is not a postgres:// URL")
	}
	name := "test_" + strings.ToLower(rand.Text())
	// With this template the encoding does not depend on how the server was set up.
	execute(t, server, "CREATE DATABASE "+name+" ENCODING 'UTF8' TEMPLATE template0")
	t.Cleanup(func() { execute(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	// The engine's own 3 seconds are less than what a busy machine may pause for in the
	// middle of a transaction.
	q := u.Query()
	q.Set("idle_in_transaction_session_timeout", "1min")
	u.RawQuery = q.Encode()
	return u.String()
}

// execute runs a statement on a connection of its own. It has its own time limit
// too, since the test's context has ended when the database is dropped.
func execute(t testing.TB, server, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatalf("connecting to ZONEMINT_TEST_POSTGRES: %v", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // the statement's outcome is known by then
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
