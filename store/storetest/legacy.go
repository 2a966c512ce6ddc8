package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// legacyKey adds a key of a kind.
func (w *world) legacyKey(t testing.TB, kind store.LegacyKind, n store.NewLegacyKey) store.LegacyKeys {
	t.Helper()
	l, err := addLegacyKey(t, w.db, kind, n)
	noErr(t, err)
	return l
}

func addLegacyKey(t testing.TB, db *store.DB, kind store.LegacyKind, n store.NewLegacyKey) (store.LegacyKeys, error) {
	return db.ActOnLegacyKeys(t.Context(), kind, someone, func(*store.LegacyKeys) (store.LegacyAct, error) {
		return store.LegacyAct{Add: &n, Action: "legacy-key.create", Serial: n.Serial}, nil
	})
}

func newLegacyKey(serial int, state store.LegacyState) store.NewLegacyKey {
	name := uuid.NewString()
	return store.NewLegacyKey{
		Serial: serial, State: state, Secret: []byte("sealed " + name), Digest: []byte("digest of " + name), Thumbprint: "print of " + name,
	}
}

func (w *world) legacyKeys(t testing.TB, kind store.LegacyKind) store.LegacyKeys {
	t.Helper()
	l, err := w.db.LegacyKeys(t.Context(), kind)
	noErr(t, err)
	return l
}

func testLegacyKeys(t *testing.T, h Harness) {
	w := newWorld(t, h)
	if l := w.legacyKeys(t, store.LegacyControlPlane); len(l.Keys) != 0 || l.Last != 0 {
		t.Errorf("a new database has %+v", l)
	}
	first := newLegacyKey(3, store.LegacyActive)
	first.Imported = true
	w.legacyKey(t, store.LegacyControlPlane, first)
	w.legacyKey(t, store.LegacyControlPlane, newLegacyKey(1, store.LegacyRetiring))
	w.legacyKey(t, store.LegacyZoneIngress, newLegacyKey(1, store.LegacyActive))

	// Rotation: one transaction, one event.
	second := newLegacyKey(4, store.LegacyActive)
	second.Thumbprint = ""
	did, err := w.db.ActOnLegacyKeys(t.Context(), store.LegacyControlPlane, someone, func(l *store.LegacyKeys) (store.LegacyAct, error) {
		active, ok := l.Active()
		if !ok || active.Serial != 3 || l.Last != 3 || !active.Imported || string(active.Secret) != string(first.Secret) {
			t.Errorf("before the rotation: %+v", l)
		}
		return store.LegacyAct{Retire: 3, Add: &second, Action: "legacy-key.rotate", Serial: 4, Detail: map[string]any{"from": 3}}, nil
	})
	noErr(t, err)
	found := w.legacyKeys(t, store.LegacyControlPlane)
	if !reflect.DeepEqual(found, did) {
		t.Errorf("found\n%+v, done\n%+v", found, did)
	}
	if active, ok := found.Active(); !ok || active.Serial != 4 || active.CreatedBy != someone.Name || len(found.Trusted()) != 3 {
		t.Errorf("after the rotation: %+v", found)
	}

	// Removal takes the secret too.
	_, err = w.db.ActOnLegacyKeys(t.Context(), store.LegacyControlPlane, someone, func(*store.LegacyKeys) (store.LegacyAct, error) {
		return store.LegacyAct{Remove: 3, Action: "legacy-key.remove", Serial: 3}, nil
	})
	noErr(t, err)
	found = w.legacyKeys(t, store.LegacyControlPlane)
	removed, ok := found.Key(3)
	if !ok || removed.Trusted() || len(removed.Secret) != 0 || removed.RemovedAt.IsZero() || removed.RetiredAt.IsZero() || found.Last != 4 {
		t.Errorf("the removed key is %+v", removed)
	}
	if n := w.count(t, "legacy_keys WHERE length(secret) = 0"); n != 1 {
		t.Errorf("%d rows are without a secret, want 1", n)
	}
	want := []string{"legacy-key.create", "legacy-key.create", "legacy-key.create", "legacy-key.rotate", "legacy-key.remove"}
	if actions := w.actions(t); !slices.Equal(actions, want) {
		t.Errorf("the audit says %q", actions)
	}
	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{ActionPrefix: "legacy-key.rotate"}, uuid.Max, 1)
	noErr(t, err)
	if len(events) != 1 || events[0].Target != "control-plane/4" || events[0].Detail != `{"from":3}` {
		t.Errorf("the audit says %+v", events)
	}
	if ring := w.ring(t); len(ring.Keys) != 0 || len(ring.Keysets) != 0 {
		t.Errorf("the ring has %+v", ring)
	}
}

// testLegacyRefused wants nothing to be left of what may not be.
func testLegacyRefused(t *testing.T, h Harness) {
	w := newWorld(t, h)
	first := newLegacyKey(1, store.LegacyActive)
	w.legacyKey(t, store.LegacyControlPlane, first)
	w.legacyKey(t, store.LegacyControlPlane, newLegacyKey(2, store.LegacyRetiring))
	act := func(a store.LegacyAct) error {
		a.Action = "legacy-key.test"
		_, err := w.db.ActOnLegacyKeys(t.Context(), store.LegacyControlPlane, someone, func(*store.LegacyKeys) (store.LegacyAct, error) {
			return a, nil
		})
		return err
	}
	noErr(t, act(store.LegacyAct{Remove: 2}))
	before, events := w.legacyKeys(t, store.LegacyControlPlane), len(w.actions(t))

	same := newLegacyKey(7, store.LegacyRetiring)
	same.Digest = first.Digest
	second, again, serial0 := newLegacyKey(8, store.LegacyActive), newLegacyKey(2, store.LegacyRetiring), newLegacyKey(0, store.LegacyRetiring)
	noSecret, removed := newLegacyKey(9, store.LegacyRetiring), newLegacyKey(9, store.LegacyRemoved)
	noSecret.Secret = []byte{}
	for name, tc := range map[string]struct {
		act  store.LegacyAct
		want error
	}{
		"two active":                   {store.LegacyAct{Add: &second}, store.ErrExists},
		"a serial that was removed":    {store.LegacyAct{Add: &again}, store.ErrExists},
		"a secret that is there":       {store.LegacyAct{Add: &same}, store.ErrExists},
		"serial 0":                     {store.LegacyAct{Add: &serial0}, store.ErrRejected},
		"no secret":                    {store.LegacyAct{Add: &noSecret}, store.ErrRejected},
		"removed from the start":       {store.LegacyAct{Add: &removed}, store.ErrRejected},
		"removed twice":                {store.LegacyAct{Remove: 2}, store.ErrConflict},
		"removed and retired":          {store.LegacyAct{Retire: 2}, store.ErrConflict},
		"a serial that there is not":   {store.LegacyAct{Remove: 5}, store.ErrNotFound},
		"retired, and another refused": {store.LegacyAct{Retire: 1, Add: &same}, store.ErrExists},
	} {
		if err := act(tc.act); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	_, err := w.db.ActOnLegacyKeys(t.Context(), store.LegacyControlPlane, someone, func(*store.LegacyKeys) (store.LegacyAct, error) {
		return store.LegacyAct{Remove: 1, Action: "legacy-key.remove"}, errDecided
	})
	wantErr(t, err, errDecided)
	if after := w.legacyKeys(t, store.LegacyControlPlane); !reflect.DeepEqual(after, before) || len(w.actions(t)) != events {
		t.Errorf("it left %+v", after)
	}

	// Another kind has serials of its own, and not the same secrets.
	w.legacyKey(t, store.LegacyZoneIngress, newLegacyKey(1, store.LegacyActive))
	if _, err := addLegacyKey(t, w.db, store.LegacyZoneIngress, same); !errors.Is(err, store.ErrExists) {
		t.Errorf("the secret of another kind: %v", err)
	}
	if _, err := addLegacyKey(t, w.db, "dataplane", newLegacyKey(1, store.LegacyActive)); !errors.Is(err, store.ErrRejected) {
		t.Errorf("another kind: %v", err)
	}
}

var errDecided = errors.New("decided otherwise")

// testLegacyUse wants the audit to have an event for every use, and none for a
// caller that may not.
func testLegacyUse(t *testing.T, h Harness) {
	w := newWorld(t, h)
	w.legacyKey(t, store.LegacyZoneIngress, newLegacyKey(1, store.LegacyActive))
	token := w.apiToken(t, "ci", time.Hour)
	as := store.Actor{Name: "api-token/" + token.ID.String(), TokenID: token.ID}
	use := func() error {
		_, err := w.db.ActOnLegacyKeys(t.Context(), store.LegacyZoneIngress, as, func(l *store.LegacyKeys) (store.LegacyAct, error) {
			k, ok := l.Active()
			if !ok {
				return store.LegacyAct{}, errDecided
			}
			return store.LegacyAct{Action: "legacy.issue", Serial: k.Serial, Detail: map[string]any{"zone": "west"}}, nil
		})
		return err
	}
	noErr(t, use())
	noErr(t, use())
	_, err := w.db.RevokeAPIToken(t.Context(), token.ID, someone)
	noErr(t, err)
	wantErr(t, use(), store.ErrCallerRefused)
	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{ActionPrefix: "legacy.issue"}, uuid.Max, 10)
	noErr(t, err)
	if len(events) != 2 || events[0].Actor != as.Name || events[0].Target != "zone-ingress/1" || events[0].Detail != `{"zone":"west"}` {
		t.Errorf("the audit says %+v", events)
	}
}

// testLegacyRace lets replicas rotate, issue and remove at once. Whoever issues
// does so with the key that is active at that moment.
func testLegacyRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	w.legacyKey(t, store.LegacyControlPlane, newLegacyKey(1, store.LegacyActive))
	const rounds = 8
	var wg sync.WaitGroup
	for _, db := range w.replicas(t, 3) {
		wg.Go(func() {
			for range rounds {
				_, err := db.ActOnLegacyKeys(t.Context(), store.LegacyControlPlane, someone, func(l *store.LegacyKeys) (store.LegacyAct, error) {
					active, ok := l.Active()
					if !ok || active.Serial != l.Last {
						return store.LegacyAct{}, fmt.Errorf("serial %d is active, the last is %d", active.Serial, l.Last)
					}
					n := newLegacyKey(l.Last+1, store.LegacyActive)
					return store.LegacyAct{Retire: active.Serial, Add: &n, Action: "legacy-key.rotate", Serial: n.Serial}, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l := w.legacyKeys(t, store.LegacyControlPlane)
	if active, ok := l.Active(); !ok || active.Serial != 1+3*rounds || len(l.Keys) != 1+3*rounds {
		t.Errorf("after %d rotations serial %d is active of %d", 3*rounds, active.Serial, len(l.Keys))
	}
}

// testLegacyFaults wants a row that was tampered with to be left out, and nothing
// to be added beside it.
func testLegacyFaults(t *testing.T, h Harness) {
	w := newWorld(t, h)
	w.legacyKey(t, store.LegacyControlPlane, newLegacyKey(1, store.LegacyRetiring))
	w.legacyKey(t, store.LegacyControlPlane, newLegacyKey(2, store.LegacyActive))
	w.exec(t, "UPDATE legacy_keys SET created_by = 'planted' WHERE serial = 1")
	l := w.legacyKeys(t, store.LegacyControlPlane)
	if len(l.Keys) != 1 || l.Keys[0].Serial != 2 || len(l.Faults) != 1 || !errors.Is(l.Faults[0], store.ErrTampered) || l.Last != 2 {
		t.Errorf("%+v", l)
	}
	_, err := addLegacyKey(t, w.db, store.LegacyControlPlane, newLegacyKey(3, store.LegacyRetiring))
	wantErr(t, err, store.ErrTampered)
	_, err = w.db.ActOnLegacyKeys(t.Context(), store.LegacyControlPlane, someone, func(*store.LegacyKeys) (store.LegacyAct, error) {
		return store.LegacyAct{Remove: 2, Action: "legacy-key.remove", Serial: 2}, nil
	})
	noErr(t, err) // taking away is safe

	// A removed key does not come back with the row that it had.
	w.exec(t, "UPDATE legacy_keys SET state = 'active', secret = CAST('old' AS %s) WHERE serial = 2", strings.TrimSpace(w.bytesType()))
	if l := w.legacyKeys(t, store.LegacyControlPlane); len(l.Keys) != 0 || len(l.Faults) != 2 {
		t.Errorf("%+v", l)
	}
}

// bytesType is what the database calls bytes.
func (w *world) bytesType() string {
	if _, ok := w.Edits["bytea"]; ok {
		return "bytea"
	}
	return "blob"
}

// legacyIsRefused checks that an edited key is left out.
func (w *world) legacyIsRefused(t *testing.T) bool {
	t.Helper()
	var keys []store.LegacyKey
	var faults []error
	for _, kind := range []store.LegacyKind{store.LegacyControlPlane, store.LegacyZoneIngress} {
		l := w.legacyKeys(t, kind)
		keys, faults = append(keys, l.Keys...), append(faults, l.Faults...)
	}
	if len(faults) == 0 {
		return false
	}
	if len(faults) != 1 || !errors.Is(faults[0], store.ErrTampered) || len(keys) != 1 {
		t.Errorf("there are %d legacy keys and the faults %v", len(keys), faults)
	}
	return true
}
