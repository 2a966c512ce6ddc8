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

// TestCopyHasNewEpoch restores a copy, in another place and in the place of the
// database.
func TestCopyHasNewEpoch(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), newMAC(t)
	path, backup := filepath.Join(dir, "zonemint.db"), filepath.Join(dir, "backup.db")
	nothing := func(*store.DB) {}
	var id uuid.UUID
	first := headAt(t, path, m, func(db *store.DB) {
		ks, _, err := db.CreateKeyset(t.Context(), store.Keyset{Name: "zone", Distribution: store.DistributionJWKS},
			[]store.NewKey{{Role: store.RolePrimary, Label: rand.Text()}}, store.Actor{Name: "cli/tester"})
		if err != nil {
			t.Fatal(err)
		}
		id = ks.ID
	})
	copyFile(t, path, backup)
	later := headAt(t, path, m, func(db *store.DB) {
		items := []store.Revoke{{JTI: "lost", ExpiresAt: time.Now().Add(time.Hour)}}
		if _, err := db.Revoke(t.Context(), id, items, "", store.Actor{Name: "cli/tester"}); err != nil {
			t.Fatal(err)
		}
	})
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
