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
	owner := open(t, base)
	if _, err := owner.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	is := incarnation(t, owner)
	parts := strings.Split(is, "/")
	if len(parts) != 4 || parts[0] == "" || len(parts[1]) != 8 || parts[2] == "" || parts[3] == "" {
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
	// As pg_restore does it.
	exec(t, db, "ALTER TABLE installation RENAME TO lost")
	exec(t, db, "CREATE TABLE installation (LIKE lost)")
	restored := incarnation(t, owner)
	if restored == is || !strings.HasPrefix(restored, strings.Join(parts[:3], "/")+"/") {
		t.Errorf("with a table made anew it is %q, before %q", restored, is)
	}
	parts = strings.Split(restored, "/")
	exec(t, db, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
	if got, want := incarnation(t, e), "/"+strings.Join(parts[1:], "/"); got != want {
		t.Errorf("for a role that is refused a part it is %q, want %q", got, want)
	}
}
