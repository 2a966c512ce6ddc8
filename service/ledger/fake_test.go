package ledger_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// fakeStore is a ledger in memory. It fails the test when a writer breaks the
// rules of [store.DB.Record]: an empty batch, too many rows, two batches at
// once, a link that is not the last one of its chain, a row recorded twice.
type fakeStore struct {
	tb      testing.TB
	maxRows int

	mu      sync.Mutex
	busy    bool
	chains  map[uuid.UUID]store.Link // where each writer's chain is
	rows    map[uuid.UUID]string     // the subject of each recorded jti
	batches [][]string               // the subjects of every recorded batch, in order
	calls   int
	faults  []fault

	keys, callers []uuid.UUID // refused
	bad           string      // the subject of rows that are rejected
	took          time.Duration
}

// fault is how one call goes wrong: refused, or done with the reply lost.
type fault struct {
	err   error
	apply bool
}

func newFakeStore(tb testing.TB) *fakeStore {
	return &fakeStore{tb: tb, maxRows: 4096, chains: map[uuid.UUID]store.Link{}, rows: map[uuid.UUID]string{}}
}

// Record implements [ledger.Store].
func (f *fakeStore) Record(ctx context.Context, at store.Link, rows []store.Issuance) (store.Link, store.Refused, error) {
	f.enter(at, rows)
	defer f.leave()
	if err := f.work(ctx); err != nil {
		return at, store.Refused{}, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	hit := fault{apply: true}
	if len(f.faults) > 0 {
		hit, f.faults = f.faults[0], f.faults[1:]
	}
	if refused := f.refuse(rows); !refused.Empty() {
		return at, refused, nil
	}
	for _, r := range rows {
		if f.bad != "" && r.Subject == f.bad {
			return at, store.Refused{}, fmt.Errorf("row %s: %w", r.JTI, store.ErrRejected)
		}
	}
	if !hit.apply {
		return at, store.Refused{}, hit.err
	}
	if f.chains[at.Writer].Batch != at.Batch {
		return at, store.Refused{}, fmt.Errorf("batch %d of %s: %w", at.Batch+1, at.Writer, store.ErrExists)
	}
	next := f.apply(at, rows)
	if hit.err != nil {
		return at, store.Refused{}, hit.err
	}
	return next, store.Refused{}, nil
}

// work takes the store's time, in which nobody else may come in.
func (f *fakeStore) work(ctx context.Context) error {
	if f.took == 0 {
		return nil
	}
	select {
	case <-time.After(f.took):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeStore) enter(at store.Link, rows []store.Issuance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		f.tb.Error("two transactions at once")
	}
	f.busy = true
	f.calls++
	if len(rows) == 0 || len(rows) > f.maxRows {
		f.tb.Errorf("a batch of %d rows, bound is %d", len(rows), f.maxRows)
	}
	known := f.chains[at.Writer]
	if at.Batch > known.Batch || (at.Batch == known.Batch && !bytes.Equal(at.Hash, known.Hash)) {
		f.tb.Errorf("a batch after link %d, the chain is at %d", at.Batch, known.Batch)
	}
}

func (f *fakeStore) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
}

func (f *fakeStore) refuse(rows []store.Issuance) (r store.Refused) {
	for _, row := range rows {
		if slices.Contains(f.keys, row.KeyID) && !slices.Contains(r.Keys, row.KeyID) {
			r.Keys = append(r.Keys, row.KeyID)
		}
		if slices.Contains(f.callers, row.CallerToken) && !slices.Contains(r.Callers, row.CallerToken) {
			r.Callers = append(r.Callers, row.CallerToken)
		}
	}
	return r
}

func (f *fakeStore) apply(at store.Link, rows []store.Issuance) store.Link {
	var subjects []string
	for _, r := range rows {
		if _, twice := f.rows[r.JTI]; twice {
			f.tb.Errorf("row %s is recorded twice", r.JTI)
		}
		f.rows[r.JTI] = r.Subject
		subjects = append(subjects, r.Subject)
	}
	f.batches = append(f.batches, subjects)
	sum := sha256.Sum256(append(slices.Clone(at.Hash), rows[0].JTI[:]...))
	next := store.Link{Writer: at.Writer, Batch: at.Batch + 1, Hash: sum[:]}
	f.chains[at.Writer] = next
	return next
}

func (f *fakeStore) inject(faults ...fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, faults...)
}

// sizes returns how many rows each recorded batch has.
func (f *fakeStore) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sizes []int
	for _, b := range f.batches {
		sizes = append(sizes, len(b))
	}
	return sizes
}

func (f *fakeStore) recorded(jti uuid.UUID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.rows[jti]
	return ok
}

func (f *fakeStore) writers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.chains)
}
