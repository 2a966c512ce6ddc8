package sqlite_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite"
)

func newMAC(t *testing.T) tink.MAC {
	t.Helper()
	handle, err := keyset.NewHandle(mac.HMACSHA256Tag256KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := mac.New(handle)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// headAt opens the database at path, as a start does, and returns the head of its
// one feed, after do.
func headAt(t *testing.T, path string, m tink.MAC, do func(*store.DB)) (head store.FeedPosition) {
	t.Helper()
	e, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close() //nolint:errcheck // nothing was left to write
	if _, err := e.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), e, m)
	if err != nil {
		t.Fatal(err)
	}
	do(db)
	heads, err := db.FeedHeads(t.Context())
	if err != nil || len(heads) != 1 {
		t.Fatalf("%d feeds (%v)", len(heads), err)
	}
	for _, head = range heads {
	}
	return head
}

func nothing(*store.DB) {}

// newZone makes a database with a keyset and returns its head and how to revoke.
func newZone(t *testing.T, path string, m tink.MAC) (first store.FeedPosition, revoke func(*store.DB)) {
	t.Helper()
	by := store.Actor{Name: "cli/tester"}
	var id uuid.UUID
	first = headAt(t, path, m, func(db *store.DB) {
		ks, _, err := db.CreateKeyset(t.Context(), store.Keyset{Name: "zone", Distribution: store.DistributionJWKS},
			[]store.NewKey{{Role: store.RolePrimary, Label: rand.Text()}}, by)
		if err != nil {
			t.Fatal(err)
		}
		id = ks.ID
	})
	return first, func(db *store.DB) {
		items := []store.Revoke{{JTI: rand.Text(), ExpiresAt: time.Now().Add(time.Hour)}}
		if _, err := db.Revoke(t.Context(), id, items, "", by); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCopyHasNewEpoch restores a copy, in another place and in the place of the
// database.
func TestCopyHasNewEpoch(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), newMAC(t)
	path, backup := filepath.Join(dir, "zonemint.db"), filepath.Join(dir, "backup.db")
	first, revoke := newZone(t, path, m)
	copyFile(t, path, backup)
	later := headAt(t, path, m, revoke)
	if later.Epoch != first.Epoch || later.Seq != 1 {
		t.Errorf("started again the feed is at %+v, before at %+v", later, first)
	}

	elsewhere := filepath.Join(dir, "elsewhere.db")
	copyFile(t, backup, elsewhere)
	other := headAt(t, elsewhere, m, nothing)
	if other.Epoch == first.Epoch || other.Seq != 0 {
		t.Errorf("the copy's feed is at %+v, the database's at %+v", other, first)
	}
	if again := headAt(t, elsewhere, m, nothing); again != other {
		t.Errorf("started again the copy's feed is at %+v, before at %+v", again, other)
	}
	if err := os.Rename(backup, path); err != nil {
		t.Fatal(err)
	}
	if restored := headAt(t, path, m, nothing); restored.Epoch == first.Epoch || restored.Epoch == other.Epoch {
		t.Errorf("restored the feed is at %+v, before it was at %+v", restored, later)
	}
}

// TestRestoredInPlace writes a backup over the database, which keeps its inode.
func TestRestoredInPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		revoke  bool // after the backup
		sidecar func(t *testing.T, path string, before []byte)
		same    bool
	}{
		"older":              {true, func(*testing.T, string, []byte) {}, false},
		"as new":             {false, func(*testing.T, string, []byte) {}, true},
		"as new, no sidecar": {false, func(t *testing.T, path string, _ []byte) { noErr(t, os.Remove(path)) }, false},
		"as new, sidecar cut off": {false, func(t *testing.T, path string, b []byte) {
			noErr(t, os.WriteFile(path, b[:len(b)-2], 0o600))
		}, false},
		// What cannot be told.
		"older, with its sidecar": {true, func(t *testing.T, path string, b []byte) { noErr(t, os.WriteFile(path, b, 0o600)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, m := t.TempDir(), newMAC(t)
			path, backup := filepath.Join(dir, "zonemint.db"), filepath.Join(dir, "backup.db")
			first, revoke := newZone(t, path, m)
			copyFile(t, path, backup)
			before, err := os.ReadFile(filepath.Clean(path + ".id"))
			noErr(t, err)
			if c.revoke {
				headAt(t, path, m, revoke)
			}
			copyFile(t, backup, path)
			c.sidecar(t, path+".id", before)
			restored := headAt(t, path, m, nothing)
			if same := restored.Epoch == first.Epoch; same != c.same {
				t.Errorf("the same epoch: %t, want %t", same, c.same)
			}
			if again := headAt(t, path, m, nothing); again != restored {
				t.Errorf("started again the feed is at %+v, before at %+v", again, restored)
			}
		})
	}
}

// TestRestoredAfterCrash has nothing but maintenance to remember how far the
// database had come.
func TestRestoredAfterCrash(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), newMAC(t)
	path, backup := filepath.Join(dir, "zonemint.db"), filepath.Join(dir, "backup.db")
	first, revoke := newZone(t, path, m)
	copyFile(t, path, backup)
	var maintained []byte
	headAt(t, path, m, func(db *store.DB) {
		revoke(db)
		_, err := db.Maintain(t.Context(), time.Hour)
		noErr(t, err)
		maintained, err = os.ReadFile(filepath.Clean(path + ".id"))
		noErr(t, err)
		revoke(db)
	})
	noErr(t, os.WriteFile(path+".id", maintained, 0o600)) // as if it had not been closed
	copyFile(t, backup, path)
	if restored := headAt(t, path, m, nothing); restored.Epoch == first.Epoch {
		t.Errorf("restored the feed is at %+v", restored)
	}
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Clean(from))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
