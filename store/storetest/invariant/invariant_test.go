package invariant_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/zonemint/zonemint/store/sqlite"
	"github.com/zonemint/zonemint/store/storetest/invariant"
)

// sound is a database in which all is well: two keysets, with a key in every
// state. @60 is a time, see exec.
const sound = `
INSERT INTO keysets (id, name, profile, algorithm, backend, distribution, policy, created_at, updated_at, version, mac)
	VALUES ('Z', 'zone', 'zone', 'ES256', 'local', 'jwks', '{}', 1, 1, 1, x''), ('U', 'user/a', 'user', 'ES256', 'local', 'jwks', '{}', 1, 1, 1, x'');
INSERT INTO revocation_feeds (keyset_id, epoch) VALUES ('Z', 'e'), ('U', 'f');
INSERT INTO signing_keys (id, keyset_id, serial, role, state, algorithm, backend, label, created_at, version, mac) VALUES
	('z1', 'Z', 1, 'primary', 'creating', 'ES256', 'local', 'lz1', @0, 1, x''), ('z2', 'Z', 2, 'primary', 'creating', 'ES256', 'local', 'lz2', @0, 1, x''),
	('z3', 'Z', 3, 'primary', 'creating', 'ES256', 'local', 'lz3', @0, 1, x''), ('z4', 'Z', 4, 'primary', 'creating', 'ES256', 'local', 'lz4', @0, 1, x''),
	('z5', 'Z', 5, 'primary', 'creating', 'ES256', 'local', 'lz5', @0, 1, x''), ('z6', 'Z', 6, 'primary', 'creating', 'ES256', 'local', 'lz6', @0, 1, x''),
	('z7', 'Z', 7, 'primary', 'creating', 'ES256', 'local', 'lz7', @0, 1, x''), ('z8', 'Z', 8, 'primary', 'creating', 'ES256', '', 'lz8', @0, 1, x''),
	('u1', 'U', 1, 'primary', 'creating', 'ES256', 'local', 'lu1', @0, 1, x''), ('u2', 'U', 2, 'primary', 'creating', 'ES256', 'local', 'lu2', @0, 1, x'');
UPDATE signing_keys SET thumbprint = hex(id) || '0123456789', public_key = CAST('p' || id AS blob), ref = x'01', published_at = @1;
UPDATE signing_keys SET kid = (SELECT replace(name, '/', '-') FROM keysets k WHERE k.id = keyset_id) || '-' || serial || '-' || substr(thumbprint, 1, 8);
UPDATE signing_keys SET state = 'published';
UPDATE signing_keys SET state = 'removed', activated_at = @2, retired_at = @3, last_expiry = @4, removed_at = @5, destroyed_at = @6, ref = NULL WHERE id = 'z1';
UPDATE signing_keys SET state = 'distrusted', activated_at = @3, removed_at = @4 WHERE id = 'z2';
UPDATE signing_keys SET state = 'abandoned', removed_at = @5 WHERE id = 'z3';
UPDATE signing_keys SET state = 'failed', kid = NULL, thumbprint = NULL, public_key = NULL, ref = NULL, published_at = NULL WHERE id = 'z4';
UPDATE signing_keys SET state = 'retiring', activated_at = @4, retired_at = @5, last_expiry = @1000 WHERE id = 'z5';
UPDATE signing_keys SET state = 'active', activated_at = @5, last_expiry = @2000 WHERE id = 'z6';
UPDATE signing_keys SET state = 'retiring', imported = 1, ref = NULL, retired_at = @1, trusted_until = @3000 WHERE id = 'z8';
UPDATE signing_keys SET state = 'active', activated_at = @2 WHERE id = 'u1';
INSERT INTO ledger (jti, keyset_id, serial, subject, scopes, issued_at, expires_at, caller, writer, batch) VALUES
	('j1', 'Z', 1, 's', '[]', @2, @3, 'c', 'w', 1), ('j2', 'Z', 2, 's', '[]', @3, @1500, 'c', 'w', 2),
	('j5', 'Z', 5, 's', '[]', @5, @900, 'c', 'w', 3), ('j6', 'Z', 6, 's', '[]', @6, @2000, 'c', 'w', 4);
INSERT INTO audit_events (id, at, actor, action, target, detail, request_id) VALUES
	('a1', 1, 'replica/1', 'signing-key.removed', 'zone/1', '{}', ''), ('a2', 1, 'api-token/1', 'signing-key.distrusted', 'zone/2', '{}', '');
UPDATE signing_keys SET last_expiry = @1500 WHERE id = 'z2';
`

// template is the sound database's file. None of the schema's own constraints is
// in the way of what tests plant in it.
var template = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "invariant")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, path := context.Background(), filepath.Join(dir, "zonemint.db")
	e, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return nil, err
	}
	_, err = e.Migrate(ctx)
	if err := errors.Join(err, e.Close()); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return nil, err
	}
	statements := sound
	for _, table := range []string{"signing_keys", "keysets", "revocation_feeds"} {
		statements += fmt.Sprintf("CREATE TABLE loose AS SELECT * FROM %s; DROP TABLE %s; ALTER TABLE loose RENAME TO %s;", table, table, table)
	}
	if err := errors.Join(exec(ctx, db, statements), exec(ctx, db, "PRAGMA wal_checkpoint(TRUNCATE)"), db.Close()); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// plant returns the sound database with something changed.
func plant(t *testing.T, change string) *sql.DB {
	t.Helper()
	file, err := template()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "zonemint.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := exec(t.Context(), db, change); err != nil {
		t.Fatalf("%v in %s", err, change)
	}
	return db
}

// start is the time @0. Of the tokens in the ledger some have expired since.
var start = time.Now().Add(-10 * time.Second).Truncate(time.Second)

// exec runs statements in which @60 is a minute after the start.
func exec(ctx context.Context, db *sql.DB, statements string) error {
	statements = regexp.MustCompile(`@[0-9]+`).ReplaceAllStringFunc(statements, func(at string) string {
		seconds, _ := strconv.Atoi(at[1:])
		return strconv.FormatInt(start.Add(time.Duration(seconds)*time.Second).UnixMicro(), 10)
	})
	_, err := db.ExecContext(ctx, statements)
	return err
}

func want(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("in a sound database it finds: %v", err)
	case text != "" && (err == nil || !strings.Contains(err.Error(), text)):
		t.Errorf("it finds %v, want %q", err, text)
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct{ change, want string }{
		"nothing": {},
		"two active": {
			"UPDATE signing_keys SET state = 'active' WHERE id = 'z5'",
			"zone/5 and zone/6 are both active",
		},
		"gap":                      {"DELETE FROM signing_keys WHERE id = 'z3'", "serial 4 in place of 3"},
		"serial twice":             {"UPDATE signing_keys SET serial = 3 WHERE id = 'z4'", "serial 3 in place of 4"},
		"not from one":             {"DELETE FROM signing_keys WHERE id = 'z1'", "serial 2 in place of 1"},
		"label twice":              {"UPDATE signing_keys SET label = 'lz1' WHERE id = 'u2'", "the same label"},
		"kid twice":                {"UPDATE signing_keys SET kid = (SELECT kid FROM signing_keys WHERE id = 'z6') WHERE id = 'z7'", "the same kid"},
		"thumbprint twice":         {"UPDATE signing_keys SET thumbprint = (SELECT thumbprint FROM signing_keys WHERE id = 'z6') WHERE id = 'u2'", "the same thumbprint"},
		"no state":                 {"UPDATE signing_keys SET state = 'asleep' WHERE id = 'z7'", "no state"},
		"published never":          {"UPDATE signing_keys SET published_at = NULL WHERE id = 'z7'", "has been published"},
		"published and activated":  {"UPDATE signing_keys SET activated_at = @5 WHERE id = 'z7'", "has never signed"},
		"active never activated":   {"UPDATE signing_keys SET activated_at = NULL WHERE id = 'u1'", "published and activated"},
		"imported and active":      {"UPDATE signing_keys SET imported = 1 WHERE id = 'u1'", "not imported"},
		"retiring never retired":   {"UPDATE signing_keys SET retired_at = NULL WHERE id = 'z5'", "published and retired"},
		"retiring never signed":    {"UPDATE signing_keys SET activated_at = NULL WHERE id = 'z5'", "either signed or imported"},
		"creating and published":   {"UPDATE signing_keys SET state = 'creating' WHERE id = 'z7'", "was never published"},
		"failed and published":     {"UPDATE signing_keys SET state = 'failed' WHERE id = 'z7'", "was never published"},
		"abandoned and activated":  {"UPDATE signing_keys SET activated_at = @5 WHERE id = 'z3'", "has never signed"},
		"removed without its time": {"UPDATE signing_keys SET removed_at = NULL WHERE id = 'z1'", "time of its removal"},
		"active with an end":       {"UPDATE signing_keys SET removed_at = @6 WHERE id = 'z6'", "time of its removal"},
		"destroyed and active":     {"UPDATE signing_keys SET destroyed_at = @6 WHERE id = 'z6'", "has ended if it is destroyed"},
		"destroyed with reference": {"UPDATE signing_keys SET ref = x'01' WHERE id = 'z1'", "has a reference exactly"},
		"no kid":                   {"UPDATE signing_keys SET kid = NULL WHERE id = 'z7'", "has a kid"},
		"no reference":             {"UPDATE signing_keys SET ref = NULL WHERE id = 'z7'", "has a reference exactly"},
		"imported with backend":    {"UPDATE signing_keys SET backend = 'local' WHERE id = 'z8'", "has a backend exactly"},
		"trusted until":            {"UPDATE signing_keys SET trusted_until = @6 WHERE id = 'z7'", "has no trusted_until"},
		"times out of order":       {"UPDATE signing_keys SET published_at = @6 WHERE id = 'z6'", "times in order"},
		"retired before activated": {"UPDATE signing_keys SET retired_at = @3 WHERE id = 'z5'", "activated before it was retired"},
		"removed early":            {"UPDATE signing_keys SET last_expiry = @6 WHERE id = 'z1'", "after the expiry of its last token"},
		"removed early by a person": {
			"UPDATE signing_keys SET last_expiry = @6 WHERE id = 'z1'; UPDATE audit_events SET actor = 'api-token/1'", "",
		},
		"import removed early": {
			"UPDATE signing_keys SET state = 'removed', removed_at = @6 WHERE id = 'z8'", "trusted for as long as was asked for",
		},
		"nobody signs": {
			"UPDATE signing_keys SET state = 'retiring', retired_at = @6 WHERE id = 'z6'", "nobody has retired or distrusted zone/6",
		},
		"retired by a replica": {
			`UPDATE signing_keys SET state = 'retiring', retired_at = @6 WHERE id = 'z6';
				INSERT INTO audit_events (id, at, actor, action, target, detail, request_id) VALUES ('x', 1, 'replica/1', 'signing-key.retiring', 'zone/6', '', '')`,
			"nobody has retired or distrusted zone/6",
		},
		"retired by a person": {
			`UPDATE signing_keys SET state = 'retiring', retired_at = @6 WHERE id = 'z6';
				INSERT INTO audit_events (id, at, actor, action, target, detail, request_id) VALUES ('x', 1, 'cli/x', 'signing-key.retiring', 'zone/6', '', '')`, "",
		},
		"distrusted":          {"UPDATE signing_keys SET state = 'distrusted', removed_at = @6 WHERE id = 'z6'", ""},
		"no feed":             {"DELETE FROM revocation_feeds WHERE keyset_id = 'U'", "0 revocation feeds"},
		"no keyset":           {"DELETE FROM keysets WHERE id = 'U'", "belongs to no keyset"},
		"token of nobody":     {"UPDATE ledger SET serial = 9 WHERE jti = 'j6'", "which does not exist"},
		"token of successor":  {"UPDATE ledger SET serial = 7 WHERE jti = 'j6'", "has never signed"},
		"last_expiry too low": {"UPDATE ledger SET expires_at = expires_at + 1 WHERE jti = 'j6'", "after its last_expiry"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, invariant.Check(t.Context(), plant(t, c.change)), c.want)
		})
	}
}

func TestCheckSettled(t *testing.T) {
	for name, c := range map[string]struct{ change, want string }{
		"nothing":          {},
		"no successor":     {"UPDATE signing_keys SET state = 'abandoned', removed_at = @6 WHERE id = 'z7'", "keyset zone has 0 published"},
		"nobody signs":     {"UPDATE signing_keys SET state = 'distrusted', removed_at = @6 WHERE id = 'z6'", "keyset zone has 0 active"},
		"second published": {"UPDATE signing_keys SET state = 'published', removed_at = NULL WHERE id = 'z3'", "keyset zone has 2 published"},
		"half made":        {"UPDATE signing_keys SET state = 'creating' WHERE id = 'z4'", "keyset zone has 1 creating"},
		"other backend":    {"UPDATE keysets SET backend = 'hsm'", `the keyset wants ES256 in "hsm"`},
		"other algorithm":  {"UPDATE keysets SET algorithm = 'EdDSA'", `the keyset wants EdDSA in "local"`},
		"what Check finds": {"DELETE FROM signing_keys WHERE id = 'z1'", "serial 2 in place of 1"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, invariant.CheckSettled(t.Context(), plant(t, c.change)), c.want)
		})
	}
}

func TestJWKS(t *testing.T) {
	const five, six, first = "zone-5-7A350123", "zone-6-7A360123", "user-a-1-75310123"
	good := map[string][]string{"zone": {five, six}}
	for name, c := range map[string]struct {
		change string
		sets   map[string][]string
		want   string
	}{
		"nothing":            {"", good, ""},
		"active is missing":  {"", map[string][]string{"zone": {five}}, "zone/6"},
		"retired is missing": {"", map[string][]string{"zone": {six}}, "zone/5"},
		"in another set":     {"", map[string][]string{"zone": {five}, "user/a": {six}}, "zone/6"},
		"with a slash": {
			"INSERT INTO ledger VALUES ('jx', 'U', 1, 's', '[]', @3, @1000, 'c', 'w', 9)", map[string][]string{"zone": good["zone"], "user/a": {first}}, "",
		},
		"expired":             {"UPDATE ledger SET expires_at = @5 WHERE jti = 'j5'", map[string][]string{"zone": {six}}, ""},
		"removed by a person": {removedBy("cli/x"), map[string][]string{"zone": {six}}, ""},
		"removed too early":   {removedBy("replica/1"), map[string][]string{"zone": {six}}, "zone/5"},
		"no sets":             {"", nil, "zone/5"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, invariant.JWKS(t.Context(), plant(t, c.change), c.sets), c.want)
		})
	}
	db := plant(t, "")
	want(t, invariant.JWKSAt(t.Context(), db, nil, time.Now().Add(time.Hour)), "")
	want(t, invariant.JWKSAt(t.Context(), db, nil, time.Now().Add(-time.Minute)), "zone/6")
}

func removedBy(actor string) string {
	return `UPDATE signing_keys SET state = 'removed', removed_at = @6 WHERE id = 'z5';
		INSERT INTO audit_events (id, at, actor, action, target, detail, request_id)
			VALUES ('x', 1, '` + actor + `', 'signing-key.removed', 'zone/5', '', '')`
}

func TestKIDs(t *testing.T) {
	want(t, invariant.KIDs(t.Context(), plant(t, "")), "")
	want(t, invariant.KIDs(t.Context(), plant(t, "UPDATE signing_keys SET kid = 'anything' WHERE id = 'z8'")), "") // imported
	want(t, invariant.KIDs(t.Context(), plant(t, "UPDATE signing_keys SET kid = 'user-a-2-xxxxxxxx' WHERE id = 'u2'")), `user/a/2 has the kid "user-a-2-xxxxxxxx", want "user-a-2-7532`)
}

func TestBackend(t *testing.T) {
	db := plant(t, "")
	want(t, invariant.Backend(t.Context(), db, []string{"lz1", "lz4", "lu1"}), "")
	want(t, invariant.Backend(t.Context(), db, []string{"lz1", "orphan"}), "orphan, which no row knows")
	want(t, invariant.Backend(t.Context(), db, []string{"lz1", "lz2", "lz1"}), "two keys labelled lz1")
}

// A database that cannot be read is no sound one.
func TestUnreadable(t *testing.T) {
	db := plant(t, "DROP TABLE ledger")
	for name, err := range map[string]error{
		"Check": invariant.Check(t.Context(), db), "CheckSettled": invariant.CheckSettled(t.Context(), db), "KIDs": invariant.KIDs(t.Context(), db),
		"JWKS": invariant.JWKS(t.Context(), db, nil), "Backend": invariant.Backend(t.Context(), db, nil),
	} {
		if err == nil {
			t.Errorf("%s finds nothing", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if invariant.Check(ctx, plant(t, "")) == nil {
		t.Error("with an ended context Check finds nothing")
	}
}
