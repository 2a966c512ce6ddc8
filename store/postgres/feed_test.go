package postgres_test

import (
	"crypto/rand"
	"net/url"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/postgres"
	"github.com/zonemint/zonemint/store/postgres/postgrestest"
)

// incarnation asks twice in one transaction, which must survive what it is refused.
func incarnation(t *testing.T, e *postgres.Engine) (is string) {
	t.Helper()
	err := e.View(t.Context(), func(tx store.Tx) (err error) {
		if _, err = tx.Incarnation(t.Context()); err != nil {
			return err
		}
		is, err = tx.Incarnation(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// TestIncarnation asks as a role that may do everything, as one that may do what
// every role may, and as one that is refused a part.
func TestIncarnation(t *testing.T) {
	t.Parallel()
	base := postgrestest.New(t)
	is := incarnation(t, open(t, base))
	parts := strings.Split(is, "/")
	if len(parts) != 3 || parts[0] == "" || len(parts[1]) != 8 || parts[2] == "" {
		t.Fatalf("the incarnation is %q", is)
	}
	if other := incarnation(t, open(t, postgrestest.New(t))); other == is || !strings.HasPrefix(other, parts[0]+"/"+parts[1]+"/") {
		t.Errorf("another database is %q, this one %q", other, is)
	}

	role := "plain_" + strings.ToLower(rand.Text())
	db := openSQL(t, base)
	exec(t, db, "CREATE ROLE "+role+" LOGIN PASSWORD 'plain'")
	t.Cleanup(func() {
		if _, err := openSQL(t, postgrestest.New(t)).Exec("DROP ROLE " + role); err != nil {
			t.Error(err)
		}
	})
	plain, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	plain.User = url.UserPassword(role, "plain")
	e := open(t, plain.String())
	if got := incarnation(t, e); got != is {
		t.Errorf("for a plain role it is %q, for the owner %q", got, is)
	}
	exec(t, db, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
	if got, want := incarnation(t, e), "/"+parts[1]+"/"+parts[2]; got != want {
		t.Errorf("for a role that is refused a part it is %q, want %q", got, want)
	}
}
