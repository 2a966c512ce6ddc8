package keyring_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// world is a database in memory, a backend, and a ring on both.
type world struct {
	*keyring.Ring
	backend *signertest.Fake
	log     *bytes.Buffer

	mu   sync.Mutex
	rows store.Ring
	err  error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{backend: signertest.NewFake(t, signertest.FakeOptions{}), log: &bytes.Buffer{}}
	w.Ring = &keyring.Ring{
		Store: w, Backends: map[string]signer.Backend{"fake": w.backend}, Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	return w
}

// LoadRing implements [keyring.Store].
func (w *world) LoadRing(ctx context.Context) (store.Ring, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rows, errors.Join(w.err, ctx.Err())
}

// keyset adds a keyset with ES256 keys in these states.
func (w *world) keyset(t testing.TB, name string, states ...store.State) store.Keyset {
	t.Helper()
	ks := store.Keyset{ID: uuid.New(), Name: name, Profile: store.ProfileZone, Algorithm: "ES256", Backend: "fake"}
	w.rows.Keysets = append(w.rows.Keysets, ks)
	for i, state := range states {
		w.rows.Keys = append(w.rows.Keys, w.key(t, ks, i+1, state))
	}
	w.rows.Generation++
	return ks
}

func (w *world) key(t testing.TB, ks store.Keyset, serial int, state store.State) store.SigningKey {
	t.Helper()
	k := store.SigningKey{
		ID: uuid.New(), KeysetID: ks.ID, Serial: serial, Role: store.RolePrimary, State: state,
		Algorithm: ks.Algorithm, Backend: ks.Backend, Label: signer.NewLabel(),
	}
	if state == store.StateCreating {
		return k
	}
	spec, err := keyring.Spec(ks.Name, k)
	if err != nil {
		t.Fatal(err)
	}
	if k.Ref, err = signer.Create(t.Context(), w.backend, spec); err != nil {
		t.Fatal(err)
	}
	key, err := signer.Open(t.Context(), w.backend, spec, k.Ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k.PublicKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	k.KID = fmt.Sprintf("%s-%d", strings.ReplaceAll(ks.Name, "/", "-"), serial)
	return k
}

func (w *world) refresh(t testing.TB) *keyring.Snapshot {
	t.Helper()
	if err := w.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.Load()
}

func get(t testing.TB, s *keyring.Snapshot, name string) *keyring.Keyset {
	t.Helper()
	ks, err := s.Keyset(name)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// wantKIDs checks the document as verifiers get it.
func wantKIDs(t testing.TB, ks *keyring.Keyset, want ...string) {
	t.Helper()
	set, err := token.ParseKeySet(ks.Set.Bytes())
	if err != nil || len(set.Skipped()) > 0 {
		t.Fatalf("%s: %v, skipped %v", ks.Name, err, set.Skipped())
	}
	if got := fmt.Sprint(set.IDs()); got != fmt.Sprint(want) {
		t.Errorf("%s publishes %s, want %s", ks.Name, got, want)
	}
}

func wantSigns(t testing.TB, ks *keyring.Keyset, kid string) {
	t.Helper()
	a, err := ks.Active()
	if err != nil {
		t.Fatal(err)
	}
	if a.KID != kid || a.Header != token.EncodeHeader("ES256", kid) {
		t.Errorf("%s signs with %s, header %s", ks.Name, a.KID, a.Header)
	}
	input := []byte(a.Header + ".e30")
	sig, err := a.SignJWS(t.Context(), input)
	if err != nil || len(sig) != 64 {
		t.Errorf("%s: a signature of %d bytes, %v", ks.Name, len(sig), err)
	}
}

func TestSnapshot(t *testing.T) {
	w := newWorld(t)
	w.keyset(t, "zone", store.StateRetiring, store.StateActive, store.StatePublished, store.StateCreating)
	w.keyset(t, "user", store.StatePublished, store.StateCreating)
	w.keyset(t, "dataplane/default", store.StateCreating)
	s := w.refresh(t)
	if s.Generation != 3 || len(s.Unfinished()) != 3 || s.Broken() {
		t.Errorf("generation %d, %d unfinished, broken: %t", s.Generation, len(s.Unfinished()), s.Broken())
	}
	var names []string
	for _, ks := range s.Keysets() {
		names = append(names, ks.Name)
	}
	if fmt.Sprint(names) != "[dataplane/default user zone]" {
		t.Errorf("keysets %s", names)
	}
	wantKIDs(t, get(t, s, "zone"), "zone-1", "zone-2", "zone-3")
	wantSigns(t, get(t, s, "zone"), "zone-2")
	wantKIDs(t, get(t, s, "user"), "user-1")
	wantKIDs(t, get(t, s, "dataplane/default"))
	for _, name := range []string{"user", "dataplane/default"} {
		if err := get(t, s, name).Ready(); !errors.Is(err, keyring.ErrNoActiveKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Keyset("nosuch"); !errors.Is(err, keyring.ErrNoKeyset) {
		t.Error(err)
	}
}

func TestAStandbyKeyDoesNotSign(t *testing.T) {
	w := newWorld(t)
	w.keyset(t, "zone", store.StateActive, store.StateActive)
	w.rows.Keys[0].Role = store.RoleStandby
	ks := get(t, w.refresh(t), "zone")
	wantSigns(t, ks, "zone-2")
	wantKIDs(t, ks, "zone-1", "zone-2")
}

func TestARefreshOpensOnlyWhatIsNew(t *testing.T) {
	w := newWorld(t)
	ks := w.keyset(t, "zone", store.StateActive)
	opens := func() int { return w.backend.Calls(signertest.OpOpen) }
	before := opens()
	w.refresh(t)
	w.refresh(t)
	if n := opens() - before; n != 1 {
		t.Errorf("opened %d times", n)
	}
	// A rotation: readers of the old snapshot go on with the old key.
	old := w.Load()
	w.rows.Keys[0].State = store.StateRetiring
	w.rows.Keys = append(w.rows.Keys, w.key(t, ks, 2, store.StateActive))
	s := w.refresh(t)
	wantSigns(t, get(t, s, "zone"), "zone-2")
	wantSigns(t, get(t, old, "zone"), "zone-1")
}

func TestFaultyRowsAreLeftOut(t *testing.T) {
	w := newWorld(t)
	w.keyset(t, "zone", store.StateActive, store.StatePublished, store.StateRetiring, store.StateRetiring)
	w.keyset(t, "user", store.StateActive)
	w.keyset(t, "gone", store.StateActive, store.StateCreating)
	w.rows.Keysets = w.rows.Keysets[:2] // the third does not match its MAC
	w.rows.Faults = []error{fmt.Errorf("keyset gone: %w", store.ErrTampered)}
	w.rows.Keys[1].Algorithm = "XX999" // of a later version
	w.rows.Keys[2].PublicKey = []byte("not a key")
	w.rows.Keys[3].KID = "zone-1" // taken
	w.rows.Keys[4].PublicKey = w.rows.Keys[0].PublicKey[:20]
	s := w.refresh(t)
	wantKIDs(t, get(t, s, "zone"), "zone-1")
	wantSigns(t, get(t, s, "zone"), "zone-1")
	wantKIDs(t, get(t, s, "user"))
	if _, err := get(t, s, "user").Active(); !errors.Is(err, keyring.ErrNoActiveKey) {
		t.Errorf("a key that nobody can verify signs: %v", err)
	}
	if _, err := s.Keyset("gone"); !errors.Is(err, keyring.ErrNoKeyset) || len(s.Unfinished()) != 0 {
		t.Errorf("the keyset that was tampered with is there: %v", err)
	}
	if s.Faults() != 5 {
		t.Errorf("%d faults, want 5", s.Faults())
	}
	for _, text := range []string{"row does not match its MAC", "XX999", "two keys with the kid zone-1"} {
		if !strings.Contains(w.log.String(), text) {
			t.Errorf("the log does not say %q", text)
		}
	}
}

func TestDatabaseDown(t *testing.T) {
	w := newWorld(t)
	w.err = store.ErrUnavailable
	if err := w.Refresh(t.Context()); !errors.Is(err, store.ErrUnavailable) || w.Load() != nil {
		t.Errorf("before the first load: %v", err)
	}
	w.err = nil
	w.keyset(t, "zone", store.StateActive)
	before := w.refresh(t)
	w.err = store.ErrUnavailable
	if err := w.Refresh(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	if w.Load() != before {
		t.Error("the snapshot before did not stay")
	}
}

func TestBackendDown(t *testing.T) {
	w := newWorld(t)
	w.keyset(t, "zone", store.StateActive)
	w.keyset(t, "user", store.StateActive)
	w.rows.Keys[1].Backend = "elsewhere" // not configured
	w.backend.Inject(signertest.Fault{Op: signertest.OpOpen, Err: signertest.Fail(signer.Unavailable)})
	s := w.refresh(t)
	for name, code := range map[string]signer.Code{"zone": signer.Unavailable, "user": signer.Misconfigured} {
		ks := get(t, s, name)
		wantKIDs(t, ks, name+"-1")
		if err := ks.Ready(); signer.CodeOf(err) != code {
			t.Errorf("%s is ready: %v", name, err)
		}
		a, err := ks.Active()
		if err != nil {
			t.Fatal(err)
		}
		if sig, err := a.SignJWS(t.Context(), []byte("x")); sig != nil || signer.CodeOf(err) != code {
			t.Errorf("%s signs: %v", name, err)
		}
	}
	if !s.Broken() {
		t.Error("not broken")
	}
	w.backend.Heal()
	s = w.refresh(t)
	if err := get(t, s, "zone").Ready(); err != nil {
		t.Errorf("after the backend came back: %v", err)
	}
	wantSigns(t, get(t, s, "zone"), "zone-1")
}

func TestAKeyBehindTheWrongRowDoesNotSign(t *testing.T) {
	w := newWorld(t)
	w.keyset(t, "zone", store.StateActive)
	w.backend.SwapKey(w.rows.Keys[0].Ref)
	a, err := get(t, w.refresh(t), "zone").Active()
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := a.SignJWS(t.Context(), []byte("x")); sig != nil || signer.CodeOf(err) != signer.Corrupt {
		t.Errorf("signature %x, %v", sig, err)
	}
}

// A backend that hangs must hold up neither the keys of others nor, for longer
// than a load may take, those who wait for the ring.
func TestABackendThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hanging := signertest.NewFake(t, signertest.FakeOptions{})
		w.Backends["hanging"] = hanging
		for i := range 5 {
			w.keyset(t, fmt.Sprint("hangs-", i), store.StateActive)
			w.rows.Keys[i].Backend = "hanging"
		}
		w.keyset(t, "zone", store.StateActive)
		hanging.Inject(signertest.Fault{Op: signertest.OpOpen, Until: make(chan struct{})})
		start := time.Now()
		s := w.refresh(t)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("the load took %s", took)
		}
		wantSigns(t, get(t, s, "zone"), "zone-1")
		wantKIDs(t, get(t, s, "hangs-0"), "hangs-0-1")
		if err := get(t, s, "hangs-0").Ready(); err == nil {
			t.Error("a key that could not be opened is ready")
		}
	})
}
