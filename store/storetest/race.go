package storetest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// issuers write rows of a key to the ledger as fast as they can, each in a chain
// of its own, until they are told to stop.
type issuers struct {
	wg       sync.WaitGroup
	stop     atomic.Bool
	recorded atomic.Int64
	refused  atomic.Int64
	// allowed and forbidden say what a batch must meet while they are set. When
	// neither is, or it changed meanwhile, both outcomes are right.
	allowed, forbidden atomic.Bool
}

func (w *world) issue(t *testing.T, n int, key store.SigningKey, caller uuid.UUID) *issuers {
	t.Helper()
	s := &issuers{}
	for _, db := range w.replicas(t, n) {
		s.wg.Go(func() { s.run(t, db, key, caller) })
	}
	return s
}

// end stops the traffic and waits until it has.
func (s *issuers) end() {
	s.stop.Store(true)
	s.wg.Wait()
}

func (s *issuers) run(t *testing.T, db *store.DB, key store.SigningKey, caller uuid.UUID) {
	link := newChain(t)
	for !s.stop.Load() {
		batch := rows(t, key, 2)
		batch[0].CallerToken = caller
		allowed, forbidden := s.allowed.Load(), s.forbidden.Load()
		next, refused, err := db.Record(t.Context(), link, batch)
		switch {
		case err != nil:
			t.Errorf("issuing: %v", err)
			return
		case refused.Empty() && forbidden && s.forbidden.Load():
			t.Error("rows were recorded after that was forbidden")
		case !refused.Empty() && allowed && s.allowed.Load():
			t.Errorf("rows were refused after they were allowed: %+v", refused)
		}
		if refused.Empty() {
			s.recorded.Add(1)
		} else {
			s.refused.Add(1)
		}
		link = next
	}
}

// waitFor waits until a counter has grown by some.
func waitFor(t *testing.T, counter *atomic.Int64) {
	t.Helper()
	until, goal := time.Now().Add(patience), counter.Load()+20
	for counter.Load() < goal {
		if time.Now().After(until) || t.Failed() {
			t.Fatalf("only %d of %d batches", counter.Load(), goal)
		}
		time.Sleep(time.Millisecond)
	}
}

// manyBatches is some times what the traffic gets done while it makes way.
const manyBatches = 200

// promptly fails the test if something waits long for the traffic to make way. A
// second alone says nothing: if the machine has paused, so has the traffic.
func (s *issuers) promptly(t *testing.T, do func()) {
	t.Helper()
	start, before := time.Now(), s.recorded.Load()
	do()
	took, batches := time.Since(start), s.recorded.Load()-before
	if took > time.Second && batches > manyBatches {
		t.Errorf("it took %s and %d batches for the traffic to make way", took, batches)
	}
}

// wantNoMore wants that from now on nothing is recorded, also not what was under
// way, and ends the traffic.
func (w *world) wantNoMore(t *testing.T, s *issuers) {
	t.Helper()
	s.forbidden.Store(true)
	before := w.count(t, "ledger")
	waitFor(t, &s.refused)
	s.end()
	if after := w.count(t, "ledger"); after != before {
		t.Errorf("%d rows were recorded after that was forbidden", after-before)
	}
}

func (w *world) drag(t *testing.T) {
	t.Helper()
	for _, statement := range w.Drag {
		_, err := w.SQL.ExecContext(t.Context(), statement)
		noErr(t, err)
	}
}

func testActivationRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary)
	key := w.publish(t, keys[0])
	s := w.issue(t, 3, key, uuid.Nil)
	defer s.end()
	s.forbidden.Store(true)
	waitFor(t, &s.refused)
	s.forbidden.Store(false)
	w.activate(t, key)
	s.allowed.Store(true)
	waitFor(t, &s.recorded)
}

func testRetirementRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	w.drag(t)
	s := w.issue(t, 6, key, uuid.Nil)
	defer s.end()
	s.allowed.Store(true)
	waitFor(t, &s.recorded)
	s.allowed.Store(false)
	s.promptly(t, func() { w.retire(t, key) })
	w.wantNoMore(t, s)
}

func testRevocationRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key, token := w.activeKey(t, "zone"), w.apiToken(t, "ci", time.Hour)
	w.drag(t)
	s := w.issue(t, 6, key, token.ID)
	defer s.end()
	s.allowed.Store(true)
	waitFor(t, &s.recorded)
	s.allowed.Store(false)
	s.promptly(t, func() {
		_, err := w.db.RevokeAPIToken(t.Context(), token.ID, someone)
		noErr(t, err)
	})
	w.wantNoMore(t, s)
	w.wantSound(t)
	if actions := w.actions(t); !slices.Contains(actions, "api-token.revoke") {
		t.Errorf("the audit says %v", actions)
	}
}
