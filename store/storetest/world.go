package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/storetest/invariant"
)

// world is a database under test and the store on it.
type world struct {
	Database
	db  *store.DB
	mac tink.MAC
	// edited says that the test has written to the database behind the store's
	// back, after which nothing can be promised of it.
	edited atomic.Bool
}

var someone = store.Actor{Name: "cli/tester", RequestID: "request-1"}

func newWorld(t testing.TB, h Harness) *world {
	t.Helper()
	w := &world{Database: h.Open(t), mac: newMAC(t)}
	db, err := store.Open(t.Context(), w.Engine, w.mac)
	if err != nil {
		t.Fatal(err)
	}
	w.db = db
	if _, ok := t.(*testing.T); ok {
		t.Cleanup(func() { w.wantInvariants(t) })
	}
	return w
}

// wantInvariants checks what holds of every database, at any moment.
func (w *world) wantInvariants(t testing.TB) {
	t.Helper()
	if w.edited.Load() {
		return
	}
	if err := invariant.Check(context.WithoutCancel(t.Context()), w.SQL); err != nil {
		t.Errorf("invariants: %v", err)
	}
}

func newMAC(t testing.TB) tink.MAC {
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

// replicas returns n stores on the database, on as many engines as it allows.
func (w *world) replicas(t testing.TB, n int) []*store.DB {
	t.Helper()
	dbs := []*store.DB{w.db}
	for len(dbs) < n {
		if w.Second == nil {
			dbs = append(dbs, w.db)
			continue
		}
		db, err := store.Open(t.Context(), w.Second(t), w.mac)
		if err != nil {
			t.Fatal(err)
		}
		dbs = append(dbs, db)
	}
	return dbs
}

// keyset creates a keyset whose keys have the given roles.
func (w *world) keyset(t testing.TB, name string, roles ...store.Role) (store.Keyset, []store.SigningKey) {
	t.Helper()
	keys := make([]store.NewKey, len(roles))
	for i, role := range roles {
		keys[i] = store.NewKey{Role: role, Label: rand.Text()}
	}
	ks, made, err := w.db.CreateKeyset(t.Context(), zoneKeyset(name), keys, someone)
	if err != nil {
		t.Fatal(err)
	}
	return ks, made
}

func zoneKeyset(name string) store.Keyset {
	return store.Keyset{
		Name: name, Profile: store.ProfileZone, Algorithm: "ES256", Backend: "local", Distribution: store.DistributionJWKS,
		Policy: store.Policy{
			MaxValidFor: store.Duration(720 * time.Hour), DefaultValidFor: store.Duration(time.Hour),
			Backdate: store.Duration(time.Minute), Standby: "other",
		},
	}
}

// madeKey is what a backend would say of a key, which is unlike any other.
func madeKey(label string) store.Made {
	sum := sha256.Sum256([]byte(label))
	thumbprint := hex.EncodeToString(sum[:])
	return store.Made{
		Ref: []byte("ref of " + label), KID: "zone-1-" + thumbprint[:8], Thumbprint: thumbprint, PublicKey: sum[:],
	}
}

// replica returns a replica that is alive for ttl.
func (w *world) replica(t testing.TB, ttl time.Duration) uuid.UUID {
	t.Helper()
	id := uuid.New()
	if _, err := w.db.Heartbeat(t.Context(), store.Replica{ID: id, Name: "replica"}, ttl); err != nil {
		t.Fatal(err)
	}
	return id
}

func (w *world) claim(t testing.TB, key uuid.UUID) int64 {
	t.Helper()
	fence, err := w.db.ClaimSigningKey(t.Context(), key, uuid.New(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return fence
}

func (w *world) publish(t testing.TB, k store.SigningKey) store.SigningKey {
	t.Helper()
	k, err := w.db.PublishSigningKey(t.Context(), k.ID, w.claim(t, k.ID), madeKey(k.Label), someone)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) activate(t testing.TB, k store.SigningKey) store.SigningKey {
	t.Helper()
	k, err := Move(t.Context(), w.db, k, store.StateActive, "")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// activeKey creates a keyset and makes its one key sign.
func (w *world) activeKey(t testing.TB, name string) store.SigningKey {
	t.Helper()
	_, keys := w.keyset(t, name, store.RolePrimary)
	return w.activate(t, w.publish(t, keys[0]))
}

// retire takes an active key out of use.
func (w *world) retire(t testing.TB, k store.SigningKey) {
	t.Helper()
	_, err := Move(t.Context(), w.db, k, store.StateRetiring, "")
	noErr(t, err)
}

// apiToken creates an API token.
func (w *world) apiToken(t testing.TB, name string, validFor time.Duration) store.APIToken {
	t.Helper()
	secret := sha256.Sum256([]byte(rand.Text()))
	token, err := w.db.CreateAPIToken(t.Context(), store.APIToken{
		Name: name, Hash: secret[:], Roles: []string{"issuer", "auditor"}, Keysets: []string{"zone"},
		Zones: []string{"east", "west"}, Scopes: nil, Dataplanes: []string{"web-1", "db-*"}, MaxValidFor: 90 * time.Minute,
	}, validFor, someone)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// ring loads the ring and wants no faults.
func (w *world) ring(t testing.TB) store.Ring {
	t.Helper()
	r, err := w.db.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Faults) > 0 {
		t.Fatalf("the ring has faults: %v", r.Faults)
	}
	return r
}

func (w *world) key(t testing.TB, id uuid.UUID) store.SigningKey {
	t.Helper()
	keys := w.ring(t).Keys
	i := slices.IndexFunc(keys, func(k store.SigningKey) bool { return k.ID == id })
	if i < 0 {
		t.Fatalf("key %s is not in the ring", id)
	}
	return keys[i]
}

// actions returns what the audit says was done, oldest first.
func (w *world) actions(t testing.TB) []string {
	t.Helper()
	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{}, uuid.Max, math.MaxInt32)
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range slices.Backward(events) {
		actions = append(actions, e.Action)
	}
	return actions
}

// exec runs SQL behind the store's back and returns how many rows it changed.
func (w *world) exec(t testing.TB, format string, args ...any) int64 {
	t.Helper()
	w.edited.Store(true)
	statement := fmt.Sprintf(format, args...)
	result, err := w.SQL.ExecContext(t.Context(), statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) count(t testing.TB, from string) (n int) {
	t.Helper()
	if err := w.SQL.QueryRowContext(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	return n
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want one that is %q", err, want)
	}
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is for waiting on what must happen.
const patience = time.Minute

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
