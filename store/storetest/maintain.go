package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func (w *world) maintain(t testing.TB) store.Maintained {
	t.Helper()
	m, err := w.db.Maintain(t.Context(), retention)
	noErr(t, err)
	return m
}

func testMaintain(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	const day = 24 * time.Hour
	now := time.Now()
	over := append(
		rowsAt(t, key, 3, now.Add(-retention-400*day), time.Hour),
		rowsAt(t, key, 3, now.Add(-retention-40*day), 39*day)...)
	kept := append(append(append(
		rowsAt(t, key, 2, now.Add(-retention-400*day), 10*365*day), // lives on
		rowsAt(t, key, 2, now.Add(-retention-40*day), 41*day)...),  // expired within retention
		rowsAt(t, key, 2, now.Add(-retention+day), time.Hour)...), // so young
		rowsAt(t, key, 2, now, time.Hour)...)
	link := w.record(t, newChain(t), over)
	w.record(t, link, kept)

	if m := w.maintain(t); m.RowsForgotten != int64(len(over)) {
		t.Errorf("%d rows were forgotten, want %d", m.RowsForgotten, len(over))
	}
	w.wantStored(t, kept)
	for _, r := range over {
		if _, err := w.db.Issuance(t.Context(), r.JTI); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a row that expired at %s was kept (%v)", r.ExpiresAt, err)
		}
	}
	if m := w.maintain(t); m.RowsForgotten != 0 || len(m.PartitionsForgotten)+len(m.PartitionsMade) != 0 {
		t.Errorf("a second run did %+v", m)
	}

	replica := store.Replica{ID: uuid.New(), Name: "gone"}
	for _, lease := range []time.Duration{-25 * time.Hour, -time.Hour} {
		_, err := w.db.Heartbeat(t.Context(), replica, lease)
		noErr(t, err)
		w.maintain(t)
		if n, want := w.count(t, "replicas"), map[bool]int{true: 0, false: 1}[lease < -day]; n != want {
			t.Errorf("a replica whose lease ran out %s ago: %d rows, want %d", -lease, n, want)
		}
	}
}

// testMaintainPart has one part of maintenance fail, for whatever reason.
func testMaintainPart(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	w.revoke(t, ks.ID, "old")
	w.age(t, ks.ID, "old", 2*store.RevocationGrace)
	w.exec(t, "ALTER TABLE ledger RENAME TO away")
	m, err := w.db.Maintain(t.Context(), retention)
	if err == nil || m.RevocationsForgotten != 1 || m.RowsForgotten != 0 {
		t.Errorf("without a ledger it did %+v (%v)", m, err)
	}
	w.exec(t, "ALTER TABLE away RENAME TO ledger")
	w.maintain(t)
}

// testMaintainConcurrently maintains from several replicas while there is
// traffic, with more to forget than one step takes.
func testMaintainConcurrently(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key, link := w.activeKey(t, "zone"), newChain(t)
	for range 6 {
		link = w.record(t, link, rowsAt(t, key, 1000, time.Now().Add(-2*retention), time.Hour))
	}
	s := w.issue(t, 2, key, uuid.Nil)
	defer s.end()
	s.allowed.Store(true)
	var forgotten atomic.Int64
	var wg sync.WaitGroup
	for _, db := range w.replicas(t, 3) {
		wg.Go(func() {
			m, err := db.Maintain(t.Context(), retention)
			if err != nil {
				t.Error(err)
			}
			forgotten.Add(m.RowsForgotten)
		})
	}
	wg.Wait()
	waitFor(t, &s.recorded)
	if n := forgotten.Load(); n != 6000 {
		t.Errorf("%d rows were forgotten, want 6000", n)
	}
}
