package postgres_test

import (
	"database/sql"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zonemint/zonemint/store/postgres"
	"github.com/zonemint/zonemint/store/postgres/postgrestest"
)

func TestOpenRefusesLostCommits(t *testing.T) {
	t.Parallel()
	base := postgrestest.New(t)
	refused := func(url string) {
		t.Helper()
		e, err := postgres.Open(t.Context(), url, postgres.Options{})
		if err == nil {
			_ = e.Close()
			t.Fatal("opened, though commits may be lost")
		}
		if !strings.Contains(err.Error(), "synchronous_commit is off") {
			t.Errorf("the error does not say what is wrong: %v", err)
		}
	}
	for _, setting := range []string{"local", "remote_write", "on", "remote_apply"} {
		open(t, base+"&options=-csynchronous_commit%3D"+setting)
	}
	refused(base + "&options=-csynchronous_commit%3Doff")

	e := open(t, base)
	name := databaseName(t, base)
	exec(t, openSQL(t, base), "ALTER DATABASE "+name+" SET synchronous_commit = off")
	refused(base)
	// The setting reaches the engine that is open with its next connection.
	exec(t, openSQL(t, base), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	for range 3 {
		if _, err := e.Migrate(t.Context()); err == nil {
			t.Fatal("an open engine works on over connections whose commits may be lost")
		}
	}
}

func TestOpenKeepsThePassword(t *testing.T) {
	t.Parallel()
	base, err := url.Parse(postgrestest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	const password = "hunter2"
	base.User = url.UserPassword(base.User.Username(), password)
	for _, u := range []string{
		base.String(), // a wrong password
		"postgres://zonemint:" + password + "@127.0.0.1:1/zonemint?connect_timeout=2", // nobody listens
		"postgres://zonemint:" + password + "@127.0.0.1:port/zonemint",
		"postgres://zonemint:" + password + "%zz@127.0.0.1/zonemint",
		"host=127.0.0.1 port=none password=" + password,
		"password=" + password + " sslmode=perhaps",
	} {
		e, err := postgres.Open(t.Context(), u, postgres.Options{})
		if err == nil {
			_ = e.Close()
			t.Errorf("%s was opened", u)
			continue
		}
		if strings.Contains(err.Error(), password) {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	base := postgrestest.New(t)
	first := open(t, base)
	pending, err := first.Pending(t.Context())
	if err != nil || len(pending) == 0 {
		t.Fatalf("pending on an empty database: %v, %v", pending, err)
	}
	engines := []*postgres.Engine{first, open(t, base), open(t, base), open(t, base)}
	var mu sync.Mutex
	var applied []string
	var wg sync.WaitGroup
	for _, e := range engines {
		wg.Go(func() {
			names, err := e.Migrate(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			applied = append(applied, names...)
		})
	}
	wg.Wait()
	if !slices.Equal(applied, pending) {
		t.Errorf("applied %v, want %v", applied, pending)
	}
	if pending, err := first.Pending(t.Context()); err != nil || len(pending) != 0 {
		t.Errorf("pending after the migration: %v, %v", pending, err)
	}
}

func databaseName(t *testing.T, base string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

func exec(t testing.TB, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
