package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/storetest"
)

// TestFullDatabase has no space left for the database by its own limit.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	e := openAt(t, filepath.Join(t.TempDir(), "zonemint.db"))
	l := openLedger(t, e)
	limit := func(pages int) {
		t.Helper()
		if _, err := e.write.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(200)
	l.fill(t)
	limit(100000)
	l.recover(t)
}

// TestFullDisk has no space left on the file system.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mountSmall(t, dir)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLedger(t, openAt(t, filepath.Join(dir, "zonemint.db")))
	l.fill(t)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	l.recover(t)
}

// ledger is a store with a key that signs, and what it has acknowledged.
type ledger struct {
	db   *store.DB
	key  store.SigningKey
	link store.Link
	acks []uuid.UUID
}

func openLedger(t *testing.T, e *Engine) *ledger {
	t.Helper()
	l := &ledger{}
	handle, err := keyset.NewHandle(mac.HMACSHA256Tag256KeyTemplate())
	check(t, err)
	m, err := mac.New(handle)
	check(t, err)
	_, err = e.Migrate(t.Context())
	check(t, err)
	l.db, err = store.Open(t.Context(), e, m)
	check(t, err)
	by := store.Actor{Name: "cli/tester"}
	_, keys, err := l.db.CreateKeyset(t.Context(), store.Keyset{Name: "zone", Distribution: store.DistributionJWKS},
		[]store.NewKey{{Role: store.RolePrimary, Label: "label"}}, by)
	check(t, err)
	made := store.Made{KID: "zone-1-00000000", Thumbprint: "00", PublicKey: []byte("public")}
	_, err = l.db.PublishSigningKey(t.Context(), keys[0].ID, 0, made, by)
	check(t, err)
	l.key, err = storetest.Move(t.Context(), l.db, keys[0], store.StateActive, "")
	check(t, err)
	l.link, err = store.NewChain()
	check(t, err)
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// record records a batch and remembers it if that was acknowledged.
func (l *ledger) record(t *testing.T, n int) error {
	t.Helper()
	rows := make([]store.Issuance, n)
	now := time.Now().UTC()
	for i := range rows {
		jti, err := uuid.NewV7()
		check(t, err)
		rows[i] = store.Issuance{
			JTI: jti, KeysetID: l.key.KeysetID, Serial: 1, KeyID: l.key.ID, Subject: strings.Repeat("east", 50), Scopes: "[]",
			IssuedAt: now, ExpiresAt: now.Add(time.Hour), Caller: "cli/tester",
		}
	}
	next, refused, err := l.db.Record(t.Context(), l.link, rows)
	if err != nil {
		return err
	}
	if !refused.Empty() {
		t.Fatalf("refused: %+v", refused)
	}
	l.link = next
	for _, r := range rows {
		l.acks = append(l.acks, r.JTI)
	}
	return nil
}

// fill records until there is no space, and then a little more.
func (l *ledger) fill(t *testing.T) {
	t.Helper()
	var err error
	for range 1000 {
		if err = l.record(t, 20); err != nil {
			break
		}
	}
	for range 3 {
		if !errors.Is(err, store.ErrFull) {
			t.Fatalf("without space: got %v after %d rows, want that it is full", err, len(l.acks))
		}
		err = l.record(t, 20)
	}
	if len(l.acks) == 0 {
		t.Fatal("there was no space from the start")
	}
	l.complete(t) // it can be read all along
}

func (l *ledger) recover(t *testing.T) {
	t.Helper()
	for range 3 {
		check(t, l.record(t, 20))
	}
	l.complete(t)
}

// complete wants exactly what was acknowledged to be there.
func (l *ledger) complete(t *testing.T) {
	t.Helper()
	for _, jti := range l.acks {
		_, err := l.db.Issuance(t.Context(), jti)
		check(t, err)
	}
	c, err := l.db.CheckLedger(t.Context(), time.Hour, func(store.LedgerCheck) {})
	check(t, err)
	if c.Rows != int64(len(l.acks)) || len(c.Faults) > 0 {
		t.Errorf("the ledger has %d rows and the faults %q, acknowledged were %d", c.Rows, c.Faults, len(l.acks))
	}
}
