package storetest

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func testHeartbeat(t *testing.T, h Harness) {
	w := newWorld(t, h)
	replica := store.Replica{ID: uuid.New(), Name: "a", Version: "1", Generation: 1, ClockOffset: -time.Millisecond}
	earlier := time.Now().Add(-time.Second) // test and database share a machine
	beat, err := w.db.Heartbeat(t.Context(), replica, time.Minute)
	noErr(t, err)
	if beat.Generation != w.ring(t).Generation {
		t.Errorf("the heartbeat says generation %d, the ring %d", beat.Generation, w.ring(t).Generation)
	}
	if beat.Now.Before(earlier) || beat.Now.After(time.Now().Add(time.Second)) || beat.Now.Location() != time.UTC {
		t.Errorf("the heartbeat's clock is %s, this machine's %s", beat.Now, time.Now())
	}

	w.keyset(t, "zone", store.RolePrimary)
	replica.Generation = 2
	next, err := w.db.Heartbeat(t.Context(), replica, time.Minute)
	noErr(t, err)
	if next.Generation != beat.Generation+1 || !next.Now.After(beat.Now) {
		t.Errorf("after a change the heartbeat says %+v, before %+v", next, beat)
	}
	if n := w.count(t, "replicas WHERE name = 'a' AND generation = 2 AND clock_offset_us = -1000"); n != 1 {
		t.Errorf("%d rows of the replica, want 1", n)
	}
}

func testClock(t *testing.T, h Harness) {
	w := newWorld(t, h)
	earlier := time.Now().Add(-time.Second)
	now, err := w.db.Now(t.Context())
	noErr(t, err)
	if now.Before(earlier) || now.After(time.Now().Add(time.Second)) {
		t.Errorf("the database's clock is %s, this machine's %s", now, time.Now())
	}
	if now.Location() != time.UTC || now != now.Truncate(time.Microsecond) {
		t.Errorf("%s is not in UTC to the microsecond", now)
	}
}
