package signertest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// FakeOptions shape a [Fake]. The zero value is a store that answers at once.
type FakeOptions struct {
	// Algorithms the backend declares. Empty means ES256, EdDSA and RS256.
	Algorithms []signer.Algorithm

	// ConsistencyWindow is how long a new key stays invisible to Find and
	// List. The backend declares it.
	ConsistencyWindow time.Duration

	// Custody is what the backend declares.
	Custody signer.Custody

	// Latency is how long every call takes.
	Latency time.Duration

	// Generate makes private keys, for tests that need many or fixed ones.
	// Nil generates fresh ones.
	Generate func(signer.Algorithm) (crypto.Signer, error)

	// AllowClosedUse lets calls after Close fail with Closed without failing
	// the test too.
	AllowClosedUse bool
}

// Fake is a backend that behaves like a remote one: its keys are real, live in
// a store that several connections share, and can be reached only through
// calls that fail as [Fake.Inject] says.
//
// It fails the test when it is misused: when a label is created twice, or again
// before the wait and the Find that an unknown outcome asks for, when a digest
// has a wrong length or a key is asked for an algorithm that is not its own,
// when it is used after Close. It starts no goroutine and keeps time with
// package time, so that it runs in a testing/synctest bubble.
type Fake struct {
	store  *fakeStore
	closed atomic.Bool
}

var (
	_ signer.Backend = (*Fake)(nil)
	_ signer.Adopter = (*Fake)(nil)
)

// NewFake returns a connection to a new, empty store.
func NewFake(tb testing.TB, opts FakeOptions) *Fake {
	if len(opts.Algorithms) == 0 {
		opts.Algorithms = []signer.Algorithm{signer.ES256, signer.EdDSA, signer.RS256}
	}
	if opts.Generate == nil {
		opts.Generate = generate
	}
	return &Fake{store: &fakeStore{
		tb: tb, opts: opts,
		keys: map[string]*fakeKey{}, calls: map[Op]int{}, unsettled: map[string]time.Time{},
	}}
}

// Connect returns another connection to the same store, as a second process
// would have it. Faults and counts belong to the store.
func (f *Fake) Connect() *Fake { return &Fake{store: f.store} }

// Inject adds a fault. Faults of one Op hit in the order in which they were added.
func (f *Fake) Inject(fault Fault) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.store.faults = append(f.store.faults, &fault)
}

// Heal removes all faults.
func (f *Fake) Heal() {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.store.faults = nil
}

// Calls returns how many calls of one kind have been made, failed ones included.
func (f *Fake) Calls(op Op) int {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	return f.store.calls[op]
}

// Keys returns what the keys that exist were created for, visible to Find and
// List or not, in the order of their creation.
func (f *Fake) Keys() []signer.Spec {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	var specs []signer.Spec
	for _, ref := range f.store.order {
		specs = append(specs, f.store.keys[ref].spec)
	}
	return specs
}

// Plant puts a key into the store that zonemint did not make, and returns the name
// under which it can be adopted.
func (f *Fake) Plant(tb testing.TB, alg signer.Algorithm) (name string) {
	tb.Helper()
	ref, err := f.store.create(signer.Spec{Keyset: "of somebody else", Label: "foreign", Algorithm: alg})
	if err != nil {
		tb.Fatal(err)
	}
	return string(ref)
}

// Adopt implements [signer.Adopter]. The name of a key is its reference.
func (f *Fake) Adopt(ctx context.Context, spec signer.Spec, name string) (signer.Ref, error) {
	_, err := f.call(ctx, OpAdopt, func() error { return f.store.adopt(spec, name) })
	if err != nil {
		return nil, err
	}
	return signer.Ref(name), nil
}

// SwapKey puts another private key behind ref, as a store that was restored
// wrongly would.
func (f *Fake) SwapKey(ref signer.Ref) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	key, ok := f.store.keys[string(ref)]
	if !ok {
		f.store.tb.Errorf("signertest: no key %q to swap", ref)
		return
	}
	other, err := generate(key.spec.Algorithm)
	if err != nil {
		f.store.tb.Errorf("signertest: %v", err)
		return
	}
	key.private = other
}

// Traits implements [signer.Backend].
func (f *Fake) Traits() signer.Traits {
	return signer.Traits{
		Algorithms:        slices.Clone(f.store.opts.Algorithms),
		Remote:            true,
		Custody:           f.store.opts.Custody,
		ConsistencyWindow: f.store.opts.ConsistencyWindow,
	}
}

// Close implements [signer.Backend].
func (f *Fake) Close() error {
	f.closed.Store(true)
	return nil
}

// Create implements [signer.Backend].
func (f *Fake) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	f.store.checkCreate(spec)
	var ref signer.Ref
	_, err := f.call(ctx, OpCreate, func() (err error) {
		ref, err = f.store.create(spec)
		return err
	})
	if err != nil {
		f.store.failedCreate(spec, err)
		return nil, err
	}
	return ref, nil
}

// Find implements [signer.Backend].
func (f *Fake) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	var refs []signer.Ref
	_, err := f.call(ctx, OpFind, func() error {
		refs = f.store.find(spec.Label)
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.store.settle(spec.Label)
	return refs, nil
}

// List implements [signer.Backend]. Other calls may be made meanwhile.
func (f *Fake) List(ctx context.Context, each func(signer.Labelled) error) error {
	_, err := f.call(ctx, OpList, func() error {
		for _, l := range f.store.list() {
			if err := each(l); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// Open implements [signer.Backend].
func (f *Fake) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	_, err := f.call(ctx, OpOpen, func() error {
		_, err := f.store.lookup(spec, ref)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &fakeHandle{fake: f, spec: spec, ref: bytes.Clone(ref)}, nil
}

// Destroy implements [signer.Backend].
func (f *Fake) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	_, err := f.call(ctx, OpDestroy, func() error { return f.store.destroy(spec, ref) })
	return err
}

// call is one round trip: it counts, meets the next fault, and has its effect
// or not. It returns the fault that it met.
func (f *Fake) call(ctx context.Context, op Op, apply func() error) (Fault, error) {
	if f.closed.Load() {
		if !f.store.opts.AllowClosedUse {
			f.store.tb.Errorf("signertest: %s after Close", op)
		}
		return Fault{}, failf(signer.Closed, "the connection is closed")
	}
	fault := f.store.next(op)
	if err := ctx.Err(); err != nil {
		return fault, err
	}
	err := fault.wait(ctx, f.store.opts.Latency)
	if err == nil {
		err = fault.Err
	}
	if err != nil && !fault.Apply {
		return fault, err
	}
	if failed := apply(); failed != nil {
		return fault, failed
	}
	return fault, err
}

type fakeHandle struct {
	fake *Fake
	spec signer.Spec
	ref  signer.Ref
}

// Public implements [signer.Handle].
func (h *fakeHandle) Public(ctx context.Context) (crypto.PublicKey, error) {
	var public crypto.PublicKey
	_, err := h.fake.call(ctx, OpPublic, func() error {
		key, err := h.fake.store.lookup(h.spec, h.ref)
		if err == nil {
			public = key.private.Public()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return public, nil
}

// Sign implements [signer.Handle].
func (h *fakeHandle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	if alg != h.spec.Algorithm {
		h.fake.store.tb.Errorf("signertest: asked for %s of a key opened for %s", alg, h.spec.Algorithm)
	}
	if want := hashSize(alg); want != 0 && len(in) != want {
		h.fake.store.tb.Errorf("signertest: %s is to sign %d bytes, got %d", alg, want, len(in))
	}
	var sig []byte
	fault, err := h.fake.call(ctx, OpSign, func() error {
		key, err := h.fake.store.lookup(h.spec, h.ref)
		if err != nil {
			return err
		}
		sig, err = key.private.Sign(rand.Reader, in, alg.Opts())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", h.ref, err)
	}
	if fault.Mangle {
		sig[len(sig)-1] ^= 1
	}
	return sig, nil
}
