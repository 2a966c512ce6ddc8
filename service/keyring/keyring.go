// Package keyring holds what a replica signs with and publishes: an immutable
// snapshot of the keysets and their keys, loaded whenever the database's
// generation has moved. Issuing and publishing read the snapshot through an
// atomic pointer and touch neither the database nor a backend to find a key.
package keyring

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// ErrNoKeyset: there is no keyset of that name.
var ErrNoKeyset = errors.New("no such keyset")

// ErrNoActiveKey: the keyset has no key that may sign.
var ErrNoActiveKey = errors.New("the keyset has no active key")

// Store is where rings come from; [store.DB] is one.
type Store interface {
	LoadRing(ctx context.Context) (store.Ring, error)
}

// Snapshot is the ring at one generation. It does not change.
type Snapshot struct {
	Generation int64
	keysets    map[string]*Keyset
	meshes     map[string][]string // the names of the keysets of each mesh, sorted
	unfinished []store.SigningKey
	faults     int  // rows that were left out
	incomplete bool // of which this replica did not understand some
}

// Keyset returns a keyset by name; ErrNoKeyset if there is none.
func (s *Snapshot) Keyset(name string) (*Keyset, error) {
	ks, ok := s.keysets[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrNoKeyset, name)
	}
	return ks, nil
}

// Faults returns how many rows were left out, because they do not match their
// MAC or cannot be understood.
func (s *Snapshot) Faults() int { return s.faults }

// Acknowledged returns the generation that a replica with this ring may say it has
// loaded. It is 0 if it did not understand some row that is good, which another
// version wrote: a rotation must not go by what this replica serves.
func (s *Snapshot) Acknowledged() int64 {
	if s.incomplete {
		return 0
	}
	return s.Generation
}

// Unfinished returns the keys in state creating.
func (s *Snapshot) Unfinished() []store.SigningKey { return s.unfinished }

// Keyset is a keyset with its live keys.
type Keyset struct {
	store.Keyset
	Keys    []store.SigningKey // published, active, retiring; by serial
	Public  *token.KeySet      // what verifiers get
	Set     *Document          // the same as it is served
	public  []token.Key        // of Keys
	active  *Active
	standby *Active
	planned []time.Time // when Set will change; in order
}

// Active returns the key that signs.
func (k *Keyset) Active() (*Active, error) {
	if k.active == nil {
		return nil, fmt.Errorf("%s: %w", k.Name, ErrNoActiveKey)
	}
	return k.active, nil
}

// Standby returns the key that signs while the backend of the active one cannot, nil
// if the keyset has none.
func (k *Keyset) Standby() *Active { return k.standby }

// Signing returns the keys that may sign: the active one and the standby, as far as
// there are.
func (k *Keyset) Signing() []*Active {
	return slices.DeleteFunc([]*Active{k.active, k.standby}, func(a *Active) bool { return a == nil })
}

// SigningIn returns the keys in a backend that may sign, of all keysets.
func (s *Snapshot) SigningIn(backend string) []*Active {
	var keys []*Active
	for _, ks := range s.Keysets() {
		for _, a := range ks.Signing() {
			if a.Backend == backend {
				keys = append(keys, a)
			}
		}
	}
	return keys
}

// Ready says why the keyset cannot sign, nil if it can as far as is known
// without asking its backend.
func (k *Keyset) Ready() error {
	a, err := k.Active()
	if err != nil {
		return err
	}
	return a.err
}

// Active is a key that signs, with all that issuing needs of it.
type Active struct {
	store.SigningKey
	Keyset string // its name
	Header string // the encoded JWS header
	key    *signer.Key
	err    error // why it could not be opened
}

// Ready says why the key could not be opened, nil if it was.
func (a *Active) Ready() error { return a.err }

// SignJWS signs the encoded header and payload.
func (a *Active) SignJWS(ctx context.Context, input []byte) ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	return a.key.SignJWS(ctx, input)
}

// Probe asks the backend for a signature that nobody gets.
func (a *Active) Probe(ctx context.Context) error {
	if a.err != nil {
		return a.err
	}
	return a.key.Probe(ctx)
}

// SignsBatches says whether the backend signs many tokens in one call.
func (a *Active) SignsBatches() bool { return a.err == nil && a.key.SignsBatches() }

// SignJWSBatch signs many at once; see [signer.Key.SignJWSBatch].
func (a *Active) SignJWSBatch(ctx context.Context, inputs [][]byte) []signer.BatchResult {
	if a.err == nil {
		return a.key.SignJWSBatch(ctx, inputs)
	}
	results := make([]signer.BatchResult, len(inputs))
	for i := range results {
		results[i].Err = a.err
	}
	return results
}

// Ring keeps the current snapshot. It is safe for concurrent use.
type Ring struct {
	Store    Store
	Backends map[string]signer.Backend
	Log      *slog.Logger
	// Planned, if it is set, says when JWK sets are going to change.
	Planned Planner

	// LoadTime bounds a load, with the opening of keys that it takes; 10s if 0.
	LoadTime time.Duration

	current atomic.Pointer[Snapshot]

	mu     sync.Mutex   // one load at a time
	loads  atomic.Int64 // how many have begun
	opened map[uuid.UUID]*signer.Key
}

// Load returns the current snapshot. Refresh must have succeeded once.
func (r *Ring) Load() *Snapshot { return r.current.Load() }

// loadTime bounds a load. Others wait for it, the heartbeat among them, so a
// backend that hangs must not hold them up for as long as some caller's context
// lasts.
const loadTime = 10 * time.Second

// Refresh reads the ring from the database and makes it current. If that fails,
// the snapshot before stays.
func (r *Ring) Refresh(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refresh(ctx)
}

// RefreshPast does the same unless the ring has moved past the generation that
// the caller found wanting, or was read meanwhile: of many who notice at once, one
// reads.
func (r *Ring) RefreshPast(ctx context.Context, generation int64) error {
	asked := r.loads.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.Load(); s != nil && (s.Generation > generation || r.loads.Load() > asked) {
		return nil
	}
	return r.refresh(ctx)
}

func (r *Ring) refresh(ctx context.Context) error {
	r.loads.Add(1)
	// The snapshot is everybody's: that one caller has left must not leave its
	// mark on a key that was about to be opened.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(r.LoadTime, loadTime))
	defer cancel()
	rows, err := r.Store.LoadRing(ctx)
	if err != nil {
		return fmt.Errorf("loading the key ring: %w", err)
	}
	for _, fault := range rows.Faults {
		r.Log.ErrorContext(ctx, "row left out of the key ring", slog.Any("error", fault))
	}
	s, err := r.build(ctx, rows)
	if err != nil {
		return fmt.Errorf("building the key ring: %w", err)
	}
	r.current.Store(s)
	return nil
}

func (r *Ring) build(ctx context.Context, rows store.Ring) (*Snapshot, error) {
	strange := func(fault error) bool { return !errors.Is(fault, store.ErrTampered) }
	s := &Snapshot{faults: len(rows.Faults), incomplete: slices.ContainsFunc(rows.Faults, strange), Generation: rows.Generation, keysets: make(map[string]*Keyset, len(rows.Keysets))}
	byID := make(map[uuid.UUID]*Keyset, len(rows.Keysets))
	for _, row := range rows.Keysets {
		ks := &Keyset{Keyset: row}
		s.keysets[row.Name], byID[row.ID] = ks, ks
	}
	s.meshes = byMesh(rows.Keysets)
	for _, k := range rows.Keys {
		ks := byID[k.KeysetID]
		switch {
		case ks == nil: // its keyset was left out
		case k.State == store.StateCreating:
			s.unfinished = append(s.unfinished, k)
		default:
			if err := ks.add(k); err != nil {
				s.faults, s.incomplete = s.faults+1, true
				r.Log.ErrorContext(ctx, "signing key left out of the key ring", slog.String("key", k.ID.String()), slog.Any("error", err))
			}
		}
	}
	r.openAll(ctx, s)
	for _, ks := range s.keysets {
		if err := ks.publish(); err != nil {
			return nil, fmt.Errorf("keyset %s: %w", ks.Name, err)
		}
		ks.plan(r.plannedFor(ks))
	}
	return s, nil
}

// openAll opens the keys that sign, those that are not open already. They are
// opened side by side: a backend that is down or slow makes issuing from its own
// keysets fail, and nothing else.
func (r *Ring) openAll(ctx context.Context, s *Snapshot) {
	var wg sync.WaitGroup
	var all []*Active
	for _, ks := range s.keysets {
		all = append(all, ks.Signing()...)
	}
	for _, a := range all {
		if a.key = r.opened[a.ID]; a.key == nil {
			wg.Go(func() { a.key, a.err = OpenKey(ctx, r.Backends, a.Keyset, a.SigningKey) })
		}
	}
	wg.Wait()
	opened := map[uuid.UUID]*signer.Key{}
	for _, a := range all {
		if a.err != nil {
			r.Log.ErrorContext(ctx, "signing key cannot be opened", slog.String("kid", a.KID), slog.Any("error", a.err))
			continue
		}
		opened[a.ID] = a.key
		a.Header = token.EncodeHeader(a.key.Algorithm().JWS(), a.KID)
	}
	r.opened = opened
}

// Broken says whether a key that should sign could not be opened, in which case
// it is worth refreshing though nothing has changed.
func (s *Snapshot) Broken() bool {
	for _, ks := range s.keysets {
		if slices.ContainsFunc(ks.Signing(), func(a *Active) bool { return a.err != nil }) {
			return true
		}
	}
	return false
}

// Spec returns what identifies a key to its backend.
func Spec(keyset string, row store.SigningKey) (signer.Spec, error) {
	alg, err := signer.Parse(row.Algorithm)
	return signer.Spec{Keyset: keyset, Serial: row.Serial, Label: row.Label, Algorithm: alg}, err
}

// OpenKey opens the private key of a row. Its signatures are checked against
// the public key in the row.
func OpenKey(ctx context.Context, backends map[string]signer.Backend, keyset string, row store.SigningKey) (*signer.Key, error) {
	b, ok := backends[row.Backend]
	if !ok {
		return nil, &signer.Error{Op: "open", Code: signer.Misconfigured,
			Err: fmt.Errorf("key %s is in backend %q, which is not configured", row.KID, row.Backend)}
	}
	spec, err := Spec(keyset, row)
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(row.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("public key of %s: %w", row.KID, err)
	}
	return signer.Open(ctx, b, spec, row.Ref, crypto.PublicKey(public))
}

// add takes in a key that verifies, and perhaps signs. One that verifiers could
// not use, for example of an algorithm that only a later version knows, must not
// sign either.
func (k *Keyset) add(row store.SigningKey) error {
	key, err := PublicKey(row)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(k.public, func(other token.Key) bool { return other.ID() == row.KID }) {
		return fmt.Errorf("the keyset has two keys with the kid %s", row.KID)
	}
	k.Keys, k.public = append(k.Keys, row), append(k.public, key)
	if row.State == store.StateActive {
		a := &Active{SigningKey: row, Keyset: k.Name}
		if row.Role == store.RoleStandby {
			k.standby = a
		} else {
			k.active = a
		}
	}
	return nil
}

// publish renders the JWK set.
func (k *Keyset) publish() (err error) {
	if k.Public, err = token.NewKeySet(k.public...); err != nil {
		return err
	}
	k.Set, err = newDocument(k.Public)
	return err
}

// Keysets returns the keysets by name.
func (s *Snapshot) Keysets() []*Keyset {
	return slices.SortedFunc(maps.Values(s.keysets), func(a, b *Keyset) int { return cmp.Compare(a.Name, b.Name) })
}
