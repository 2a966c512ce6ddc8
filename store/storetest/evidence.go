package storetest

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func testReplicas(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	replica := store.Replica{ID: uuid.New(), Name: "a", Version: "1", Generation: 1, ClockOffset: -time.Millisecond, CacheFor: 5 * time.Minute,
		LeaseTTL: time.Minute}
	only := func() store.ReplicaLease {
		t.Helper()
		l := w.lifecycle(t, ks.ID)
		if len(l.Replicas) != 1 || l.Replicas[0].Replica != replica {
			t.Fatalf("the replicas are %+v, want %+v", l.Replicas, replica)
		}
		return l.Replicas[0]
	}
	beat := func(ttl time.Duration) {
		t.Helper()
		_, err := w.db.Heartbeat(t.Context(), replica, ttl)
		noErr(t, err)
	}
	beat(time.Minute)
	first := only()
	if first.LeaseTTL != time.Minute || first.AckedAt.IsZero() || first.StartedAt.IsZero() || !first.LeaseUntil.After(first.StartedAt) {
		t.Errorf("after the first heartbeat: %+v", first)
	}
	replica.CacheFor, replica.LeaseTTL = time.Minute, 2*time.Minute
	beat(2 * time.Minute)
	again := only()
	if !again.AckedAt.Equal(first.AckedAt) || !again.StartedAt.Equal(first.StartedAt) || again.LeaseTTL != 2*time.Minute || !again.LeaseUntil.After(first.LeaseUntil) {
		t.Errorf("after a heartbeat without news: %+v, before %+v", again, first)
	}
	replica.Generation = 2
	beat(time.Minute)
	if third := only(); !third.AckedAt.After(first.AckedAt) {
		t.Errorf("it has had generation 2 since %s, generation 1 since %s", third.AckedAt, first.AckedAt)
	}

	// Verifiers may go on using what it has served, so it is remembered.
	noErr(t, w.db.Leave(t.Context(), replica.ID))
	noErr(t, w.db.Leave(t.Context(), replica.ID))
	noErr(t, w.db.Leave(t.Context(), uuid.New()))
	if l := w.lifecycle(t, ks.ID); !only().LeaseUntil.Before(l.Now) || only().LeaseTTL != 2*time.Minute {
		t.Errorf("at %s, after it has left: %+v", l.Now, only())
	}
	w.forgets(t, ks.ID, replica)
}

// forgets wants replicas to be forgotten a day after their end.
func (w *world) forgets(t testing.TB, keyset uuid.UUID, r store.Replica) {
	t.Helper()
	for ago, kept := range map[time.Duration]int{23 * time.Hour: 1, 25 * time.Hour: 0} {
		_, err := w.db.Heartbeat(t.Context(), r, -ago)
		noErr(t, err)
		_, err = w.db.Maintain(t.Context(), retention)
		noErr(t, err)
		if got := len(w.lifecycle(t, keyset).Replicas); got != kept {
			t.Errorf("%s after its end there are %d rows of the replica, want %d", ago, got, kept)
		}
	}
}

// expecting is a keyset that waits for consumers.
func (w *world) expecting(t testing.TB, name string, consumers ...string) store.Keyset {
	t.Helper()
	ks := zoneKeyset(name)
	ks.Policy.Consumers = consumers
	ks, _, err := w.db.CreateKeyset(t.Context(), ks, nil, someone)
	noErr(t, err)
	return ks
}

func testAcknowledge(t *testing.T, h Harness) {
	w := newWorld(t, h)
	zone, user := w.expecting(t, "zone", "bridge", "east"), w.expecting(t, "user", "bridge")
	start := w.lifecycle(t, zone.ID)
	if len(start.Acks) != 0 {
		t.Errorf("at the start there are %+v", start.Acks)
	}
	ack := func(ks store.Keyset, consumer string, kids ...string) store.Lifecycle {
		t.Helper()
		l, err := w.db.Acknowledge(t.Context(), ks.ID, consumer, kids, someone)
		noErr(t, err)
		return l
	}
	if l := ack(zone, "bridge", "zone-1-a"); l.Keyset.ID != zone.ID || l.Generation != start.Generation {
		t.Errorf("the answer is of %+v", l)
	}
	ack(user, "bridge", "user-1-a")
	before := w.lifecycle(t, zone.ID).Acks
	ack(zone, "bridge", "zone-1-a", `zone-2-"b"`) // in place of what it had
	ack(zone, "east")                             // it has none

	l := w.lifecycle(t, zone.ID)
	if len(l.Acks) != 2 || len(before) != 1 {
		t.Fatalf("acknowledged is %+v, before %+v", l.Acks, before)
	}
	want := store.Acknowledgement{
		KeysetID: zone.ID, Consumer: "bridge", KIDs: []string{"zone-1-a", `zone-2-"b"`}, Generation: start.Generation,
		Caller: someone.Name, AckedAt: l.Acks[0].AckedAt,
	}
	if got := l.Acks[0]; !reflect.DeepEqual(got, want) || !got.AckedAt.After(before[0].AckedAt) {
		t.Errorf("stored is\n%+v, want\n%+v", got, want)
	}
	if east := l.Acks[1]; east.Consumer != "east" || len(east.KIDs) != 0 {
		t.Errorf("stored is %+v", east)
	}
	if l := w.lifecycle(t, user.ID); len(l.Acks) != 1 || l.Acks[0].KIDs[0] != "user-1-a" {
		t.Errorf("of the other keyset stored is %+v", l.Acks)
	}
	if l.Generation != start.Generation {
		t.Error("an acknowledgement is no change of the ring")
	}
	w.wantTargets(t, "zone", "user", "zone", "zone")
}

func testAcknowledgeRefused(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks := w.expecting(t, "zone", "bridge")
	actions := w.actions(t)
	for consumer, keyset := range map[string]uuid.UUID{"nobody": ks.ID, "": ks.ID, "bridge": uuid.New()} {
		_, err := w.db.Acknowledge(t.Context(), keyset, consumer, []string{"zone-1-a"}, someone)
		wantErr(t, err, store.ErrNotFound)
	}
	if got := w.actions(t); !slices.Equal(got, actions) {
		t.Errorf("the audit says %v", got)
	}
	if n := w.count(t, "acknowledgements"); n != 0 {
		t.Errorf("%d acknowledgements, want none", n)
	}
}

// testChangesAreTold wants those who wait to hear of what they may wait for.
func testChangesAreTold(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.finished(t, "zone")
	waiting := w.expecting(t, "user", "bridge")
	watching := watch(t, w.db)
	watching.quiet(t, "of what was before")
	_, err := w.change(t, ks.ID, store.Change{})
	noErr(t, err)
	watching.quiet(t, "of a change that is none")
	_, err = w.change(t, ks.ID, takeover())
	noErr(t, err)
	watching.want(t, store.TopicRing)
	watching.quiet(t, "of one change twice")
	_, err = w.db.Acknowledge(t.Context(), waiting.ID, "bridge", nil, someone)
	noErr(t, err)
	watching.want(t, store.TopicRing)
}
