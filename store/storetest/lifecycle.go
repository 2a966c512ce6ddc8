package storetest

import (
	"crypto/rand"
	"errors"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// finished creates a keyset with a key that signs and a published successor.
func (w *world) finished(t testing.TB, name string) (store.Keyset, []store.SigningKey) {
	t.Helper()
	ks, keys := w.keyset(t, name, store.RolePrimary, store.RolePrimary)
	return ks, []store.SigningKey{w.activate(t, w.publish(t, keys[0])), w.publish(t, keys[1])}
}

// lifecycle returns what decides about the keys of a keyset.
func (w *world) lifecycle(t testing.TB, keyset uuid.UUID) store.Lifecycle {
	t.Helper()
	all, faults, err := w.db.Lifecycles(t.Context())
	noErr(t, errors.Join(append(faults, err)...))
	i := slices.IndexFunc(all, func(l store.Lifecycle) bool { return l.Keyset.ID == keyset })
	if i < 0 {
		t.Fatalf("keyset %s has no lifecycle", keyset)
	}
	return all[i]
}

// change does what a decision says, whatever the keyset looks like.
func (w *world) change(t testing.TB, keyset uuid.UUID, c store.Change) (store.Lifecycle, error) {
	t.Helper()
	l, err := w.db.ChangeKeys(t.Context(), keyset, someone, func(*store.Lifecycle) (store.Change, error) { return c, nil })
	w.wantInvariants(t)
	return l, err
}

// takeover is the change by which serial 2 replaces serial 1.
func takeover() store.Change {
	return store.Change{
		Action: "keyset.rotate", Detail: map[string]any{"now": true},
		Moves: []store.Move{
			{Serial: 1, To: store.StateRetiring, Reason: "old"},
			{Serial: 2, To: store.StateActive, Reason: "new"},
		},
		New: []store.NewKey{{Role: store.RolePrimary, Label: rand.Text(), Reason: "next"}},
	}
}

func states(l *store.Lifecycle) []store.State {
	var all []store.State
	for _, k := range l.Keys {
		all = append(all, k.State)
	}
	return all
}

func testChangeKeys(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.finished(t, "zone")
	w.finished(t, "user")
	before, actions := w.ring(t), w.actions(t)

	after, err := w.change(t, ks.ID, takeover())
	noErr(t, err)
	want := []store.State{store.StateRetiring, store.StateActive, store.StateCreating}
	if got := states(&after); !slices.Equal(got, want) || after.Series.LastSerial != 3 || !after.Series.HasSigned() {
		t.Errorf("after the change the keys are %v, of %+v", got, after.Series)
	}
	if after.Generation != before.Generation+1 {
		t.Errorf("one change took the generation from %d to %d", before.Generation, after.Generation)
	}
	// What it returns is what the database has.
	stored := w.lifecycle(t, ks.ID)
	after.Keys[2].LastExpiry = stored.Keys[2].LastExpiry // the database's zero
	if after.Now = stored.Now; !reflect.DeepEqual(stored, after) {
		t.Errorf("stored is\n%+v, returned was\n%+v", stored, after)
	}
	one, two := stored.Keys[0], stored.Keys[1]
	if !stored.Series.SignedSince.Equal(one.PublishedAt) {
		t.Errorf("it has signed since %s, its first key was published at %s", stored.Series.SignedSince, one.PublishedAt)
	}
	if one.RetiredAt.IsZero() || !one.RetiredAt.Equal(two.ActivatedAt) || one.Reason != "old" || two.Reason != "new" {
		t.Errorf("the keys that were moved are\n%+v\n%+v", one, two)
	}
	added := w.actions(t)[len(actions):]
	if want := []string{"keyset.rotate", "signing-key.retiring", "signing-key.active", "signing-key.creating"}; !slices.Equal(added, want) {
		t.Errorf("the audit says %v, want %v", added, want)
	}
	w.wantTargets(t, "zone", "zone/1", "zone/2", "zone/3")
}

// wantTargets checks of what the last events of the audit are.
func (w *world) wantTargets(t testing.TB, want ...string) {
	t.Helper()
	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{}, uuid.Max, len(want))
	noErr(t, err)
	var got []string
	for _, e := range slices.Backward(events) {
		if got = append(got, e.Target); e.Actor != someone.Name || e.RequestID != someone.RequestID {
			t.Errorf("the audit says %+v", e)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit is about %q, want %q", got, want)
	}
}

// testChangeKeysAtomic has changes fail at different points, or be none.
func testChangeKeysAtomic(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, keys := w.finished(t, "zone")
	before, actions := w.ring(t), w.actions(t)
	unchanged := func() {
		t.Helper()
		w.wantUnchanged(t, before, actions)
	}
	_, err := w.change(t, ks.ID, store.Change{Action: "keyset.rotate"}) // an act that changes nothing is none
	noErr(t, err)
	unchanged()

	sentinel := errors.New("changed my mind")
	_, err = w.db.ChangeKeys(t.Context(), ks.ID, someone, func(*store.Lifecycle) (store.Change, error) { return takeover(), sentinel })
	wantErr(t, err, sentinel)
	unchanged()

	for name, c := range map[string]struct {
		with func(*store.Change)
		want error
	}{
		"illegal move":       {func(c *store.Change) { c.Moves[1].To = store.StateRemoved }, store.ErrConflict},
		"unknown serial":     {func(c *store.Change) { c.Moves[1].Serial = 9 }, store.ErrConflict},
		"two active":         {func(c *store.Change) { c.Moves = c.Moves[1:] }, store.ErrConflict},
		"label in use":       {func(c *store.Change) { c.New[0].Label = keys[0].Label }, store.ErrExists},
		"unknown role":       {func(c *store.Change) { c.New[0].Role = "spare" }, store.ErrRejected},
		"bad distribution":   {func(c *store.Change) { bad := ks; bad.Distribution = "pigeon"; c.Keyset = &bad }, store.ErrRejected},
		"an ended key again": {func(c *store.Change) { c.Moves = append(c.Moves, ended(2)...) }, store.ErrConflict},
	} {
		bad := takeover()
		c.with(&bad)
		if _, err := w.change(t, ks.ID, bad); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		unchanged()
	}
	_, err = w.change(t, uuid.New(), takeover())
	wantErr(t, err, store.ErrNotFound)

	w.exec(t, "ALTER TABLE audit_events RENAME TO elsewhere")
	if _, err := w.change(t, ks.ID, takeover()); err == nil {
		t.Error("keys were changed without an audit event")
	}
	w.exec(t, "ALTER TABLE elsewhere RENAME TO audit_events")
	unchanged()
}

func ended(serial int) []store.Move {
	return []store.Move{{Serial: serial, To: store.StateDistrusted}, {Serial: serial, To: store.StateActive}}
}

// testChangeMoved has a key change between the look and the change.
func testChangeMoved(t *testing.T, h Harness) {
	w := newWorld(t, h)
	if w.Second == nil {
		t.Skip("writers take turns")
	}
	ks, keys := w.keyset(t, "zone", store.RolePrimary)
	before := w.ring(t).Generation
	_, err := w.db.ChangeKeys(t.Context(), ks.ID, someone, func(*store.Lifecycle) (store.Change, error) {
		w.publish(t, keys[0])
		return store.Change{Moves: []store.Move{{Serial: 1, To: store.StateFailed}}}, nil
	})
	wantErr(t, err, store.ErrConflict)
	if k, after := w.key(t, keys[0].ID), w.ring(t).Generation; k.State != store.StatePublished || after != before+1 {
		t.Errorf("the key is %s, the generation went from %d to %d", k.State, before, after)
	}
}

func testChangeTampered(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, keys := w.finished(t, "zone")
	other, _ := w.finished(t, "user")
	restore := w.backup(t, "signing_keys")
	w.exec(t, "UPDATE signing_keys SET reason = 'edited' WHERE label = '%s'", keys[1].Label)
	_, err := w.change(t, ks.ID, takeover())
	wantErr(t, err, store.ErrTampered)
	_, err = w.change(t, ks.ID, store.Change{New: []store.NewKey{{Role: store.RolePrimary, Label: rand.Text()}}})
	wantErr(t, err, store.ErrTampered)
	_, err = w.db.SigningKey(t.Context(), ks.ID, 2)
	wantErr(t, err, store.ErrTampered)
	_, err = w.change(t, other.ID, takeover())
	noErr(t, err)

	all, faults, err := w.db.Lifecycles(t.Context())
	noErr(t, errors.Join(append(faults, err)...))
	for _, l := range all {
		if tampered := l.Keyset.ID == ks.ID; tampered != (len(l.Faults) == 1) || tampered && !errors.Is(l.Faults[0], store.ErrTampered) {
			t.Errorf("keyset %s has the faults %v", l.Keyset.Name, l.Faults)
		}
	}
	// A damaged row must not protect a key that was stolen.
	_, err = w.change(t, ks.ID, store.Change{Moves: []store.Move{{Serial: 1, To: store.StateDistrusted}}})
	noErr(t, err)
	restore()

	w.exec(t, "UPDATE keysets SET backend = 'mine' WHERE name = 'zone'")
	all, faults, err = w.db.Lifecycles(t.Context())
	noErr(t, err)
	if len(all) != 1 || all[0].Keyset.ID != other.ID || len(faults) != 1 || !errors.Is(faults[0], store.ErrTampered) {
		t.Errorf("%d lifecycles, with the faults %v", len(all), faults)
	}
	_, err = w.change(t, ks.ID, takeover())
	wantErr(t, err, store.ErrTampered)
}

// testStepRace has replicas take the same steps at once, from many goroutines
// each. Every step takes effect once, and losing the race changes nothing.
func testStepRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, keys := w.finished(t, "zone")
	last := keys[1]
	for range 5 {
		before, actions := w.ring(t).Generation, len(w.actions(t))
		var wg sync.WaitGroup
		for _, db := range slices.Repeat(w.replicas(t, 3), 4) {
			wg.Go(func() {
				_, err := db.ChangeKeys(t.Context(), ks.ID, someone, func(l *store.Lifecycle) (store.Change, error) {
					next, _ := l.Key(last.Serial)
					active, ok := l.Active(store.RolePrimary)
					if !ok || next.State != store.StatePublished {
						return store.Change{}, nil
					}
					c := takeover()
					c.Moves[0].Serial, c.Moves[1].Serial = active.Serial, next.Serial
					return c, nil
				})
				if err != nil && !errors.Is(err, store.ErrConflict) {
					t.Errorf("losing the race looks like %v", err)
				}
			})
		}
		wg.Wait()
		w.wantInvariants(t)
		if g, n := w.ring(t).Generation, len(w.actions(t)); g != before+1 || n != actions+4 {
			t.Errorf("the step took the generation from %d to %d, with %d audit events", before, g, n-actions)
		}
		l := w.lifecycle(t, ks.ID)
		last = w.publish(t, l.Keys[len(l.Keys)-1])
	}
}

// testSerialRace has rows inserted by many at once.
func testSerialRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	const each = 4
	var wg sync.WaitGroup
	var made atomic.Int32
	dbs := w.replicas(t, 6)
	for _, db := range dbs {
		wg.Go(func() {
			for range each {
				l, err := db.ChangeKeys(t.Context(), ks.ID, someone, func(l *store.Lifecycle) (store.Change, error) {
					if l.Series.LastSerial != len(l.Keys) {
						t.Errorf("the last serial is %d, of %d keys", l.Series.LastSerial, len(l.Keys))
					}
					return store.Change{New: []store.NewKey{{Role: store.RolePrimary, Label: rand.Text()}}}, nil
				})
				if err != nil {
					t.Errorf("inserting a serial: %v", err)
					continue
				}
				made.Add(1)
				if k := l.Keys[len(l.Keys)-1]; k.Serial != l.Series.LastSerial {
					t.Errorf("the new key has serial %d, the last is %d", k.Serial, l.Series.LastSerial)
				}
			}
		})
	}
	wg.Wait()
	if l := w.lifecycle(t, ks.ID); l.Series.LastSerial != len(dbs)*each || int(made.Load()) != len(dbs)*each {
		t.Errorf("%d serials by %d insertions", l.Series.LastSerial, made.Load())
	}
}

func testUpdateKeyset(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.finished(t, "zone")
	wish := ks
	wish.Algorithm, wish.Backend, wish.Distribution = "EdDSA", "hsm", store.DistributionKumaSync
	wish.Policy.RotateEvery, wish.Policy.PublishAhead = store.Duration(time.Hour), store.Duration(time.Minute)
	wish.Policy.Consumers = []string{"bridge"}
	l, err := w.change(t, ks.ID, store.Change{
		Keyset: &wish, Action: "keyset.update", New: []store.NewKey{{Role: store.RolePrimary, Label: rand.Text()}},
	})
	noErr(t, err)
	wish.Version, wish.UpdatedAt, wish.PolicyText, wish.MAC = ks.Version+1, l.Keyset.UpdatedAt, l.Keyset.PolicyText, l.Keyset.MAC
	if got := w.ring(t).Keysets[0]; !reflect.DeepEqual(got, wish) || !reflect.DeepEqual(l.Keyset, wish) || !got.UpdatedAt.After(ks.UpdatedAt) {
		t.Errorf("stored is\n%+v, want\n%+v", got, wish)
	}
	// A key that is begun in the same change is of the new kind.
	if k := w.ring(t).Keys[2]; k.Backend != "hsm" || k.Algorithm != "EdDSA" {
		t.Errorf("the new key is %+v", k)
	}
	for version, want := range map[int64]error{ks.Version: store.ErrConflict, ks.Version + 1: store.ErrConflict, ks.Version + 3: store.ErrConflict} {
		stale := wish
		stale.Version = version
		err := w.Engine.Update(t.Context(), func(tx store.Tx) error { return tx.UpdateKeyset(t.Context(), stale) })
		if !errors.Is(err, want) {
			t.Errorf("over version %d of 2: %v", version-1, err)
		}
	}
	// What a keyset is does not change.
	other := w.ring(t).Keysets[0]
	other.Name, other.Profile, other.ID, other.CreatedAt = "user", store.ProfileUser, uuid.New(), time.Time{}
	l, err = w.change(t, ks.ID, store.Change{Keyset: &other})
	noErr(t, err)
	if got := w.ring(t).Keysets[0]; got.Name != "zone" || got.Profile != ks.Profile || !reflect.DeepEqual(got, l.Keyset) {
		t.Errorf("the keyset became %+v", got)
	}
}

// testSchedule asks for a key to take over some time.
func testSchedule(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.finished(t, "zone")
	when := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	_, err := w.change(t, ks.ID, store.Change{Moves: []store.Move{{Serial: 2, ActivateAfter: when, Reason: "asked"}}})
	noErr(t, err)
	l, err := w.change(t, ks.ID, store.Change{New: []store.NewKey{{Role: store.RolePrimary, Label: rand.Text(), ActivateAfter: when}}})
	noErr(t, err)
	stored := w.lifecycle(t, ks.ID)
	for _, k := range []store.SigningKey{stored.Keys[1], stored.Keys[2], l.Keys[1], l.Keys[2]} {
		if !k.ActivateAfter.Equal(when) || k.State != store.StatePublished && k.State != store.StateCreating {
			t.Errorf("the key that is to take over is %+v", k)
		}
	}
	if got := w.actions(t); got[len(got)-2] != "signing-key.schedule" {
		t.Errorf("the audit says %v", got)
	}
	w.wantTargets(t, "zone/2", "zone/3")
}
