package storetest

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func testCreateKeyset(t *testing.T, h Harness) {
	w := newWorld(t, h)
	before := w.ring(t).Generation
	ks, keys := w.keyset(t, "zone", store.RolePrimary, store.RoleStandby)

	r := w.ring(t)
	if r.Generation != before+1 {
		t.Errorf("the generation went from %d to %d, want one more", before, r.Generation)
	}
	if len(r.Keysets) != 1 || !reflect.DeepEqual(r.Keysets[0], ks) {
		t.Errorf("loaded keysets\n%+v, created\n%+v", r.Keysets, ks)
	}
	for i := range keys {
		keys[i].LastExpiry = r.Keys[i].LastExpiry // the database's zero
		if k := keys[i]; k.Serial != i+1 || k.State != store.StateCreating || k.KeysetID != ks.ID {
			t.Errorf("key %d of a new keyset is %+v", i+1, k)
		}
	}
	if !reflect.DeepEqual(r.Keys, keys) {
		t.Errorf("loaded keys\n%+v, created\n%+v", r.Keys, keys)
	}
	listed, err := w.db.SigningKeys(t.Context(), ks.ID)
	noErr(t, err)
	if !reflect.DeepEqual(listed, keys) {
		t.Errorf("listed keys\n%+v, created\n%+v", listed, keys)
	}

	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{}, uuid.Max, 10)
	noErr(t, err)
	if len(events) != 1 {
		t.Fatalf("%d audit events, want 1", len(events))
	}
	if e := events[0]; e.Action != "keyset.create" || e.Target != "zone" || e.Actor != someone.Name ||
		e.RequestID != someone.RequestID || !e.At.Equal(ks.CreatedAt) {
		t.Errorf("the audit says %+v", e)
	}
}

func (w *world) wantUnchanged(t *testing.T, ring store.Ring, actions []string) {
	t.Helper()
	if after := w.ring(t); !reflect.DeepEqual(after, ring) {
		t.Errorf("the ring was changed to\n%+v, it was\n%+v", after, ring)
	}
	if after := w.actions(t); !slices.Equal(after, actions) {
		t.Errorf("the audit says %v, it said %v", after, actions)
	}
	if n := w.count(t, "revocation_feeds"); n != len(ring.Keysets) {
		t.Errorf("%d revocation feeds, want %d", n, len(ring.Keysets))
	}
}

// testCreateKeysetAtomic has the creation of a keyset fail at different points.
func testCreateKeysetAtomic(t *testing.T, h Harness) {
	w := newWorld(t, h)
	_, keys := w.keyset(t, "zone", store.RolePrimary)
	before, actions := w.ring(t), w.actions(t)
	unchanged := func(t *testing.T) {
		t.Helper()
		w.wantUnchanged(t, before, actions)
	}
	create := func(ks store.Keyset, labels ...string) error {
		var keys []store.NewKey
		for _, l := range labels {
			keys = append(keys, store.NewKey{Role: store.RolePrimary, Label: l})
		}
		_, _, err := w.db.CreateKeyset(t.Context(), ks, keys, someone)
		return err
	}

	wantErr(t, create(zoneKeyset("zone"), "new"), store.ErrExists)
	unchanged(t)
	wantErr(t, create(zoneKeyset("other"), "new", keys[0].Label), store.ErrExists)
	unchanged(t)
	odd := zoneKeyset("other")
	odd.Distribution = "pigeon"
	wantErr(t, create(odd, "new"), store.ErrRejected)
	unchanged(t)

	// The audit event is the last thing that is written.
	w.exec(t, "ALTER TABLE audit_events RENAME TO elsewhere")
	if create(zoneKeyset("other"), "new") == nil {
		t.Error("a keyset was created without an audit event")
	}
	w.exec(t, "ALTER TABLE elsewhere RENAME TO audit_events")
	unchanged(t)
	noErr(t, create(zoneKeyset("other"), "new"))
}
