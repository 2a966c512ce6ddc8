package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// sealedTable is a table whose rows carry a MAC.
type sealedTable struct {
	name    string
	row     string // which row is edited, as a condition
	special map[string]string
	// uncovered are the columns that the MAC does not cover. A column that is
	// neither covered nor named here fails the test.
	uncovered []string
	// refused says whether the row is left out, and as tampered with.
	refused func(t *testing.T) bool
}

// testTampering edits each column of each row that decides who can sign or
// call. The columns come from the schema, so a column that is added later and
// forgotten in the MAC is found here.
func testTampering(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	w.activeKey(t, "user")
	token := w.apiToken(t, "ci", time.Hour)
	w.apiToken(t, "other", time.Hour)
	w.legacyKey(t, store.LegacyControlPlane, newLegacyKey(1, store.LegacyActive))
	w.legacyKey(t, store.LegacyControlPlane, newLegacyKey(2, store.LegacyRetiring))

	lists := map[string]string{}
	for _, name := range []string{"roles", "keysets", "zones", "scopes"} {
		lists[name] = `'["planted"]'`
	}
	for _, table := range []sealedTable{
		{
			name: "keysets", row: "name LIKE 'zone%'", refused: w.ringLeavesOut(1, 2),
			special: map[string]string{"distribution": "'manual'"},
		}, {
			name: "signing_keys", row: fmt.Sprintf("label LIKE '%s%%'", key.Label), refused: w.ringLeavesOut(2, 1),
			special:   map[string]string{"role": "'standby'", "state": "'retiring'"},
			uncovered: []string{"last_expiry", "issue_barrier", "lease_owner", "lease_fence", "lease_until"},
		}, {
			name: "api_tokens", row: "name LIKE 'ci%'", refused: w.tokenIsRefused(token), special: lists,
		}, {
			name: "legacy_keys", row: "state = 'active'", refused: w.legacyIsRefused,
			special: map[string]string{"kind": "'zone-ingress'", "state": "'retiring'"},
		},
	} {
		edits := w.edits(t, table.name, table.special)
		for _, column := range slices.Sorted(maps.Keys(edits)) {
			restore := w.backup(t, table.name)
			if n := w.exec(t, "UPDATE %s SET %s = %s WHERE %s", table.name, column, edits[column], table.row); n != 1 {
				t.Fatalf("%s: %d rows edited, want 1", table.name, n)
			}
			if got, want := table.refused(t), !slices.Contains(table.uncovered, column); got != want {
				t.Errorf("%s.%s was edited; the row was refused: %t, want %t", table.name, column, got, want)
			}
			restore()
		}
		if table.refused(t) {
			t.Errorf("%s: a row is refused that was restored", table.name)
		}
	}
}

// ringLeavesOut checks that the ring has lost one row to tampering and is
// otherwise whole.
func (w *world) ringLeavesOut(keysets, keys int) func(*testing.T) bool {
	return func(t *testing.T) bool {
		t.Helper()
		r, err := w.db.LoadRing(t.Context())
		noErr(t, err)
		if len(r.Faults) == 0 {
			return false
		}
		if len(r.Faults) != 1 || !errors.Is(r.Faults[0], store.ErrTampered) || len(r.Keysets) != keysets || len(r.Keys) != keys {
			t.Errorf("the ring has %d keysets, %d keys and the faults %v", len(r.Keysets), len(r.Keys), r.Faults)
		}
		return true
	}
}

// tokenIsRefused checks that an edited token is neither listed nor found, under
// its old hash or its new one.
func (w *world) tokenIsRefused(token store.APIToken) func(*testing.T) bool {
	return func(t *testing.T) bool {
		t.Helper()
		listed, err := w.db.APITokens(t.Context(), uuid.Max, 10)
		if err == nil {
			return false
		}
		if !errors.Is(err, store.ErrTampered) || len(listed) != 1 || listed[0].Name != "other" {
			t.Errorf("the list has %d tokens and the error %v", len(listed), err)
		}
		var hash []byte
		noErr(t, w.SQL.QueryRowContext(t.Context(), "SELECT hash FROM api_tokens WHERE name LIKE 'ci%'").Scan(&hash))
		if _, err := w.db.APITokenByHash(t.Context(), hash); !errors.Is(err, store.ErrTampered) {
			t.Errorf("by its hash the token was found with %v", err)
		}
		_, err = w.db.RevokeAPIToken(t.Context(), token.ID, someone)
		if !errors.Is(err, store.ErrTampered) && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("revoking the edited token: %v", err)
		}
		return true
	}
}

// testPlanting writes rows that copy all they can from good ones.
func testPlanting(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, keys := w.keyset(t, "zone", store.RolePrimary, store.RolePrimary)
	target, _ := w.keyset(t, "user")
	published := w.publish(t, keys[0])
	restore := w.backup(t, "signing_keys")

	// The same key, in another keyset.
	w.plant(t, "signing_keys", fmt.Sprintf("id = '%s'", published.ID), map[string]string{
		"id": quote(uuid.New()), "keyset_id": quote(target.ID), "label": "'planted'", "thumbprint": "'planted'",
	})
	if !w.ringLeavesOut(2, 2)(t) {
		t.Error("a key was planted in another keyset")
	}
	restore()

	// Another serial of the same keyset.
	w.plant(t, "signing_keys", fmt.Sprintf("id = '%s'", published.ID), map[string]string{
		"id": quote(uuid.New()), "serial": "3", "kid": "'planted'", "label": "'planted'", "thumbprint": "'planted'",
	})
	if listed, err := w.db.SigningKeys(t.Context(), ks.ID); !errors.Is(err, store.ErrTampered) || len(listed) != 2 {
		t.Errorf("with a planted serial the keyset lists %d keys and the error %v", len(listed), err)
	}
	restore()

	// A MAC that is genuine, but another row's.
	w.exec(t, "UPDATE signing_keys SET mac = (SELECT mac FROM signing_keys WHERE serial = 2) WHERE serial = 1")
	_, err := Move(t.Context(), w.db, published, store.StateActive, "")
	wantErr(t, err, store.ErrTampered)
	restore()
	w.activate(t, published)

	token := w.apiToken(t, "ci", time.Hour)
	w.plant(t, "api_tokens", "name = 'ci'", map[string]string{"id": quote(uuid.New()), "hash": w.editOf(t, "api_tokens", "hash")})
	listed, err := w.db.APITokens(t.Context(), uuid.Max, 10)
	if !errors.Is(err, store.ErrTampered) || len(listed) != 1 || listed[0].ID != token.ID {
		t.Errorf("with a planted API token %d are listed, with the error %v", len(listed), err)
	}
	w.exec(t, "UPDATE api_tokens SET roles = 'not JSON' WHERE id = '%s'", token.ID)
	_, err = w.db.APITokenByHash(t.Context(), token.Hash)
	wantErr(t, err, store.ErrTampered)
}

func quote(id uuid.UUID) string { return "'" + id.String() + "'" }

// plant inserts a copy of a row, with other values in some columns.
func (w *world) plant(t *testing.T, table, row string, values map[string]string) {
	t.Helper()
	columns := slices.Sorted(maps.Keys(w.edits(t, table, nil)))
	list := slices.Clone(columns)
	for i, c := range list {
		if v, ok := values[c]; ok {
			list[i] = v
		}
	}
	w.exec(t, "INSERT INTO %s (%s) SELECT %s FROM %s WHERE %s",
		table, strings.Join(columns, ", "), strings.Join(list, ", "), table, row)
}

// edits returns for each column of a table an expression for a value that the
// column does not have.
func (w *world) edits(t testing.TB, table string, special map[string]string) map[string]string {
	t.Helper()
	rows, err := w.SQL.QueryContext(t.Context(), w.Columns, table)
	noErr(t, err)
	defer rows.Close() //nolint:errcheck // its error is that of rows.Err
	edits := map[string]string{}
	for rows.Next() {
		var name, kind string
		noErr(t, rows.Scan(&name, &kind))
		edit, ok := w.Edits[kind]
		if !ok {
			t.Fatalf("%s.%s is of type %s, of which the harness knows no edit", table, name, kind)
		}
		edits[name] = strings.ReplaceAll(edit, "{column}", name)
	}
	noErr(t, rows.Err())
	if len(edits) == 0 {
		t.Fatalf("the schema has no columns of %s", table)
	}
	maps.Copy(edits, special)
	return edits
}

func (w *world) editOf(t testing.TB, table, column string) string {
	t.Helper()
	return w.edits(t, table, nil)[column]
}

// backup keeps a copy of a table and returns how to restore it.
func (w *world) backup(t testing.TB, table string) (restore func()) {
	t.Helper()
	w.exec(t, "DROP TABLE IF EXISTS %s_backup", table)
	w.exec(t, "CREATE TABLE %s_backup AS SELECT * FROM %s", table, table)
	return func() {
		t.Helper()
		w.exec(t, "DELETE FROM %s", table)
		w.exec(t, "INSERT INTO %s SELECT * FROM %s_backup", table, table)
	}
}
