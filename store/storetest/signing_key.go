package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func testLife(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary, store.RolePrimary)
	start := w.ring(t).Generation

	made := madeKey(keys[0].Label)
	published := w.publish(t, keys[0])
	if p := published; p.State != store.StatePublished || p.PublishedAt.IsZero() || p.KID != made.KID ||
		p.Thumbprint != made.Thumbprint || !bytes.Equal(p.PublicKey, made.PublicKey) || !bytes.Equal(p.Ref, made.Ref) {
		t.Errorf("the published key is %+v", p)
	}
	if got := w.key(t, published.ID); !reflect.DeepEqual(got, published) {
		t.Errorf("loaded\n%+v, published\n%+v", got, published)
	}
	active := w.activate(t, published)
	if active.State != store.StateActive || active.ActivatedAt.IsZero() || active.Version != published.Version+1 {
		t.Errorf("the active key is %+v", active)
	}
	if got := w.key(t, active.ID); !reflect.DeepEqual(got, active) {
		t.Errorf("loaded\n%+v, activated\n%+v", got, active)
	}
	w.wantHistory(t, active, start, keys[1])
}

// wantHistory fails the other key of an active key's keyset and checks what is
// left of the two keys' lives.
func (w *world) wantHistory(t *testing.T, active store.SigningKey, start int64, other store.SigningKey) {
	t.Helper()
	failed, err := Move(t.Context(), w.db, other, store.StateFailed, "token is full")
	noErr(t, err)
	if failed.State != store.StateFailed || failed.Reason != "token is full" {
		t.Errorf("the failed key is %+v", failed)
	}

	r := w.ring(t)
	if r.Generation != start+3 {
		t.Errorf("three changes took the generation from %d to %d", start, r.Generation)
	}
	if len(r.Keys) != 1 {
		t.Errorf("the ring has %d keys, want the active one only", len(r.Keys))
	}
	all, err := w.db.SigningKeys(t.Context(), active.KeysetID)
	noErr(t, err)
	if len(all) != 2 || all[0].State != store.StateActive || all[1].State != store.StateFailed {
		t.Errorf("the keyset has the keys %+v", all)
	}
	want := []string{"keyset.create", "signing-key.published", "signing-key.active", "signing-key.failed"}
	if got := w.actions(t); !slices.Equal(got, want) {
		t.Errorf("the audit says %v, want %v", got, want)
	}
}

func testLease(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary)
	key := keys[0].ID
	first, second := w.replica(t, time.Minute), w.replica(t, time.Minute)
	claim := func(owner uuid.UUID, ttl time.Duration) (int64, error) {
		return w.db.ClaimSigningKey(t.Context(), key, owner, ttl)
	}

	fence, err := claim(first, time.Minute)
	noErr(t, err)
	_, err = claim(second, time.Minute)
	wantErr(t, err, store.ErrConflict)
	// The holder may claim again: it cannot know that it is the holder if the
	// answer was lost.
	again, err := claim(first, 20*time.Millisecond)
	noErr(t, err)
	if again <= fence {
		t.Errorf("the second claim has fence %d, the first had %d", again, fence)
	}
	time.Sleep(50 * time.Millisecond)
	third, err := claim(second, time.Minute)
	noErr(t, err)
	if third <= again {
		t.Errorf("the claim after the lease ran out has fence %d, the one before had %d", third, again)
	}

	w.testDeadHolder(t, second)
	w.wantStale(t, keys[0], fence, again)
	_, err = w.db.PublishSigningKey(t.Context(), key, third, madeKey(keys[0].Label), someone)
	noErr(t, err)

	_, err = claim(second, time.Minute)
	wantErr(t, err, store.ErrConflict) // the key is made
	_, err = w.db.ClaimSigningKey(t.Context(), uuid.New(), second, time.Minute)
	wantErr(t, err, store.ErrConflict) // there is no such key
}

// testDeadHolder wants a lease to be worth nothing whose holder is not alive.
func (w *world) testDeadHolder(t *testing.T, other uuid.UUID) {
	t.Helper()
	_, keys := w.keyset(t, "left-behind", store.RolePrimary)
	dead := w.replica(t, 20*time.Millisecond)
	time.Sleep(100 * time.Millisecond)
	_, err := w.db.ClaimSigningKey(t.Context(), keys[0].ID, dead, time.Minute)
	noErr(t, err)
	_, err = w.db.ClaimSigningKey(t.Context(), keys[0].ID, other, time.Minute)
	noErr(t, err)
}

// wantStale wants fences to be worth nothing.
func (w *world) wantStale(t *testing.T, key store.SigningKey, fences ...int64) {
	t.Helper()
	for _, fence := range fences {
		_, err := w.db.PublishSigningKey(t.Context(), key.ID, fence, madeKey(key.Label), someone)
		wantErr(t, err, store.ErrConflict)
	}
	if k := w.key(t, key.ID); k.State != store.StateCreating || k.Version != 1 {
		t.Errorf("a stale fence changed the key to %+v", k)
	}
}

// steps returns how a key is taken to each state.
func (w *world) steps(t *testing.T) map[store.State]func(store.SigningKey) error {
	return map[store.State]func(store.SigningKey) error{
		store.StatePublished: func(k store.SigningKey) error {
			_, err := w.db.PublishSigningKey(t.Context(), k.ID, 0, madeKey(k.Label), someone)
			return err
		},
		store.StateFailed: func(k store.SigningKey) error {
			_, err := Move(t.Context(), w.db, k, store.StateFailed, "why not")
			return err
		},
		store.StateActive: func(k store.SigningKey) error {
			_, err := Move(t.Context(), w.db, k, store.StateActive, "")
			return err
		},
	}
}

// testTransitions tries every step from every state that the store leads to.
// The rules for all pairs of states have a test of their own beside them.
func testTransitions(t *testing.T, h Harness) {
	w := newWorld(t, h)
	steps := w.steps(t)
	ways := map[store.State][]store.State{
		store.StateCreating: {}, store.StateFailed: {store.StateFailed},
		store.StatePublished: {store.StatePublished}, store.StateActive: {store.StatePublished, store.StateActive},
	}
	legal := map[store.State][]store.State{
		store.StateCreating:  {store.StatePublished, store.StateFailed},
		store.StatePublished: {store.StateActive},
	}
	for from, way := range ways {
		for to, step := range steps {
			_, keys := w.keyset(t, fmt.Sprintf("%s-%s", from, to), store.RolePrimary)
			for _, s := range way {
				noErr(t, steps[s](keys[0]))
			}
			before := w.ring(t).Generation
			err := step(keys[0])
			if slices.Contains(legal[from], to) {
				noErr(t, err)
				continue
			}
			wantErr(t, err, store.ErrConflict)
			if after := w.ring(t).Generation; after != before {
				t.Errorf("%s to %s was refused, but changed the generation", from, to)
			}
		}
	}
	for to, step := range steps {
		if err := step(store.SigningKey{ID: uuid.New()}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a key that does not exist, to %s: %v", to, err)
		}
	}
}

func testUpdateGuards(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	for name, c := range map[string]struct {
		version int64
		was     store.State
		fence   int64
	}{
		"another state":   {key.Version + 1, store.StatePublished, 0},
		"older version":   {key.Version, store.StateActive, 0},
		"newer version":   {key.Version + 2, store.StateActive, 0},
		"another's fence": {key.Version + 1, store.StateActive, 99},
	} {
		k := key
		k.State, k.Version = store.StateRetiring, c.version
		err := w.Engine.Update(t.Context(), func(tx store.Tx) error {
			return tx.UpdateSigningKey(t.Context(), k, c.was, c.fence)
		})
		if !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: got %v, want a conflict", name, err)
		}
	}
	if got := w.key(t, key.ID); !reflect.DeepEqual(got, key) {
		t.Errorf("the key was changed to %+v", got)
	}
}

func testOneActive(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary, store.RolePrimary, store.RoleStandby)
	for _, k := range keys {
		w.publish(t, k)
	}
	w.activate(t, keys[0])
	before := w.ring(t).Generation
	_, err := Move(t.Context(), w.db, keys[1], store.StateActive, "")
	wantErr(t, err, store.ErrConflict)
	if after := w.ring(t).Generation; after != before {
		t.Error("the refused activation changed the generation")
	}
	w.activate(t, keys[2])
	w.activeKey(t, "user")
}

func testUniqueKeys(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary, store.RolePrimary)
	_, others := w.keyset(t, "user", store.RolePrimary, store.RolePrimary)
	first := w.publish(t, keys[0])
	publish := func(k store.SigningKey, m store.Made) error {
		_, err := w.db.PublishSigningKey(t.Context(), k.ID, 0, m, someone)
		return err
	}

	twin := madeKey("twin")
	twin.Thumbprint = first.Thumbprint
	wantErr(t, publish(keys[1], twin), store.ErrExists)
	wantErr(t, publish(others[0], twin), store.ErrExists)

	namesake := madeKey("namesake")
	namesake.KID = first.KID
	wantErr(t, publish(keys[1], namesake), store.ErrExists)
	noErr(t, publish(others[0], namesake)) // a kid is unique in its keyset

	if k := w.key(t, keys[1].ID); k.State != store.StateCreating {
		t.Errorf("a key that could not be published is %s", k.State)
	}
}

func testRacingActivations(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary)
	w.publish(t, keys[0])
	before := w.ring(t).Generation
	var wg sync.WaitGroup
	var won atomic.Int32
	for _, db := range w.replicas(t, 6) {
		wg.Go(func() {
			switch _, err := Move(t.Context(), db, keys[0], store.StateActive, ""); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("losing the race looks like %v", err)
			}
		})
	}
	wg.Wait()
	if after := w.ring(t).Generation; won.Load() != 1 || after != before+1 {
		t.Errorf("%d activations, generation from %d to %d; want one", won.Load(), before, after)
	}
}
