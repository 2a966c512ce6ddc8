package storetest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// testSigningKey reads keys in every state.
func testSigningKey(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, keys := w.finished(t, "zone")
	other, _ := w.finished(t, "user")
	_, err := Move(t.Context(), w.db, keys[1], store.StateAbandoned, "not wanted")
	noErr(t, err)
	all, err := w.db.SigningKeys(t.Context(), ks.ID)
	noErr(t, err)
	for i, want := range all {
		if got, err := w.db.SigningKey(t.Context(), ks.ID, i+1); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("serial %d is\n%+v (%v), want\n%+v", i+1, got, err, want)
		}
	}
	if got, err := w.db.SigningKey(t.Context(), other.ID, 1); err != nil || got.KeysetID != other.ID {
		t.Errorf("serial 1 of the other keyset is %+v, %v", got, err)
	}
	for _, serial := range []int{0, 3, -1} {
		_, err := w.db.SigningKey(t.Context(), ks.ID, serial)
		wantErr(t, err, store.ErrNotFound)
	}
	_, err = w.db.SigningKey(t.Context(), uuid.New(), 1)
	wantErr(t, err, store.ErrNotFound)
}

// endings takes keys to each state in which they have ended.
func (w *world) endings(t testing.TB) (store.Keyset, []store.SigningKey) {
	t.Helper()
	ks, keys := w.keyset(t, "zone", store.RolePrimary, store.RolePrimary, store.RolePrimary, store.RolePrimary)
	for i, way := range [][]store.State{
		{store.StatePublished, store.StateActive, store.StateRetiring, store.StateRemoved},
		{store.StatePublished, store.StateDistrusted},
		{store.StatePublished, store.StateAbandoned},
		{store.StateFailed},
	} {
		for _, to := range way {
			if to == store.StatePublished {
				w.publish(t, keys[i])
				continue
			}
			_, err := Move(t.Context(), w.db, keys[i], to, "")
			noErr(t, err)
		}
	}
	return ks, keys
}

func testDestroy(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, keys := w.endings(t)
	before := w.ring(t).Generation
	for _, k := range keys {
		asked, err := w.db.Destroying(t.Context(), ks, k.Serial, "leaked", someone)
		noErr(t, err)
		if !asked.DestroyedAt.IsZero() || (len(asked.Ref) == 0) != (asked.State == store.StateFailed) {
			t.Errorf("a key that is to be destroyed is %+v", asked)
		}
		gone, err := w.db.Destroyed(t.Context(), ks, k.Serial, "leaked", someone)
		noErr(t, err)
		if gone.DestroyedAt.IsZero() || gone.Ref != nil || gone.State != asked.State {
			t.Errorf("a key that is destroyed is %+v", gone)
		}
		stored, err := w.db.SigningKey(t.Context(), ks.ID, k.Serial)
		if noErr(t, err); !reflect.DeepEqual(stored, gone) {
			t.Errorf("stored is\n%+v, returned was\n%+v", stored, gone)
		}
		w.wantTargets(t, fmt.Sprint("zone/", k.Serial), fmt.Sprint("zone/", k.Serial))
		w.wantAgain(t, ks, gone)
	}
	if after := w.ring(t).Generation; after != before {
		t.Error("a key that has ended is no part of the ring")
	}
	if events := strings.Join(w.actions(t), " "); strings.Count(events, "signing-key.destroyed") != len(keys) {
		t.Errorf("the audit says %s", events)
	}
}

// wantAgain wants what was destroyed not to be destroyed again.
func (w *world) wantAgain(t testing.TB, ks store.Keyset, gone store.SigningKey) {
	t.Helper()
	actions := len(w.actions(t))
	for _, again := range []func() (store.SigningKey, error){
		func() (store.SigningKey, error) { return w.db.Destroying(t.Context(), ks, gone.Serial, "x", someone) },
		func() (store.SigningKey, error) { return w.db.Destroyed(t.Context(), ks, gone.Serial, "x", someone) },
	} {
		if k, err := again(); err != nil || !reflect.DeepEqual(k, gone) {
			t.Errorf("destroyed again it is\n%+v (%v), was\n%+v", k, err, gone)
		}
	}
	if n := len(w.actions(t)); n != actions {
		t.Errorf("%d audit events of nothing", n-actions)
	}
}

// testDestroyRefused tries it with keys that have not ended.
func testDestroyRefused(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, keys := w.keyset(t, "zone", store.RolePrimary, store.RolePrimary, store.RolePrimary, store.RolePrimary)
	w.publish(t, keys[1])
	retiring := w.activate(t, w.publish(t, keys[2]))
	w.retire(t, retiring)
	w.activate(t, w.publish(t, keys[3]))
	before, actions := w.ring(t), w.actions(t)
	for _, k := range keys {
		_, err := w.db.Destroying(t.Context(), ks, k.Serial, "", someone)
		wantErr(t, err, store.ErrConflict)
		_, err = w.db.Destroyed(t.Context(), ks, k.Serial, "", someone)
		wantErr(t, err, store.ErrConflict)
	}
	_, err := w.db.Destroyed(t.Context(), ks, 9, "", someone)
	wantErr(t, err, store.ErrNotFound)
	w.wantUnchanged(t, before, actions)

	_, err = Move(t.Context(), w.db, keys[0], store.StateFailed, "")
	noErr(t, err)
	w.exec(t, "UPDATE signing_keys SET reason = 'edited' WHERE serial = 1")
	_, err = w.db.Destroyed(t.Context(), ks, 1, "", someone)
	wantErr(t, err, store.ErrTampered)
}

func foreign(kid string) store.NewKey {
	m := madeKey(rand.Text())
	return store.NewKey{Role: store.RolePrimary, Label: rand.Text(), Reason: "they moved", Import: &store.ImportedKey{
		KID: kid, Algorithm: "RS256", Thumbprint: m.Thumbprint, PublicKey: m.PublicKey,
		TrustedUntil: time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond),
	}}
}

func testImport(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.finished(t, "zone")
	nk, forever := foreign("1"), foreign("old.issuer/2")
	forever.Import.TrustedUntil = time.Time{}
	for i, nk := range []store.NewKey{nk, forever} {
		l, err := w.change(t, ks.ID, store.Change{New: []store.NewKey{nk}})
		noErr(t, err)
		got, want := l.Keys[2+i], nk.Import
		if got.State != store.StateRetiring || !got.Imported || got.KID != want.KID || got.Thumbprint != want.Thumbprint || got.Algorithm != want.Algorithm ||
			!got.TrustedUntil.Equal(want.TrustedUntil) || got.Backend != "" || got.Ref != nil || got.Reason != "they moved" || got.Serial != 3+i {
			t.Errorf("imported is %+v", got)
		}
		got.LastExpiry = time.UnixMicro(0).UTC() // the database's zero
		stored, err := w.db.SigningKey(t.Context(), ks.ID, got.Serial)
		if noErr(t, err); !reflect.DeepEqual(stored, got) {
			t.Errorf("stored is\n%+v, returned was\n%+v", stored, got)
		}
	}
	if got := w.actions(t); got[len(got)-1] != "signing-key.import" {
		t.Errorf("the audit says %v", got)
	}
	w.wantTargets(t, "zone/3", "zone/4")
	w.wantImportsRefused(t, ks, nk)

	_, err := w.change(t, ks.ID, store.Change{Moves: []store.Move{{Serial: 1, To: store.StateRetiring}, {Serial: 3, To: store.StateActive}}})
	wantErr(t, err, store.ErrConflict) // nobody here can sign with it
	_, err = w.change(t, ks.ID, store.Change{Moves: []store.Move{{Serial: 3, To: store.StateRemoved}}})
	noErr(t, err)
	w.wantTamperedImport(t, ks)
}

// wantImportsRefused wants keys that are known to be refused.
func (w *world) wantImportsRefused(t *testing.T, ks store.Keyset, known store.NewKey) {
	t.Helper()
	other, _ := w.finished(t, "user")
	before, actions := w.ring(t), w.actions(t)
	namesake, twin := foreign(known.Import.KID), foreign("other")
	twin.Import.Thumbprint = known.Import.Thumbprint
	for keyset, nk := range map[uuid.UUID]store.NewKey{ks.ID: namesake, other.ID: twin} {
		_, err := w.change(t, keyset, store.Change{New: []store.NewKey{nk}})
		wantErr(t, err, store.ErrExists)
	}
	_, err := w.change(t, ks.ID, store.Change{New: []store.NewKey{twin}})
	wantErr(t, err, store.ErrExists)
	w.wantUnchanged(t, before, actions)
	_, err = w.change(t, other.ID, store.Change{New: []store.NewKey{namesake}})
	noErr(t, err) // a kid is unique in its keyset
}

// wantTamperedImport wants what is particular to an imported key to be covered.
func (w *world) wantTamperedImport(t *testing.T, ks store.Keyset) {
	t.Helper()
	edits := w.edits(t, "signing_keys", map[string]string{"imported": "imported <> imported"})
	for _, column := range []string{"trusted_until", "imported", "kid", "public_key", "removed_at"} {
		restore := w.backup(t, "signing_keys")
		w.exec(t, "UPDATE signing_keys SET %s = %s WHERE keyset_id = '%s' AND serial = 4", column, edits[column], ks.ID)
		if _, err := w.db.SigningKey(t.Context(), ks.ID, 4); !errors.Is(err, store.ErrTampered) {
			t.Errorf("%s of an imported key was edited: %v", column, err)
		}
		restore()
	}
}

func testChallenge(t *testing.T, h Harness) {
	w := newWorld(t, h)
	now := time.Now()
	challenge, err := w.db.NewChallenge("import zone a b", now.Add(10*time.Minute))
	noErr(t, err)
	if strings.ContainsAny(challenge, " .\n") {
		t.Errorf("the challenge is %q", challenge)
	}
	for _, db := range w.replicas(t, 2) {
		noErr(t, db.CheckChallenge(challenge, "import zone a b", now))
		noErr(t, db.CheckChallenge(challenge, "import zone a b", now.Add(9*time.Minute)))
	}
	refused := func(challenge, about string, now time.Time) {
		t.Helper()
		if err := w.db.CheckChallenge(challenge, about, now); !errors.Is(err, store.ErrRejected) {
			t.Errorf("%q about %q: %v", challenge, about, err)
		}
	}
	refused(challenge, "import zone a b", now.Add(10*time.Minute+2*time.Second))
	refused(challenge, "import user a b", now)
	parts := strings.Split(challenge, ":")
	later := now.Add(time.Hour).Unix()
	for _, bad := range []string{
		"", "::", challenge + "A", challenge + ":", "x" + challenge, strings.Replace(challenge, parts[1], "x", 1), parts[0] + ":" + parts[1] + ":",
		strings.Replace(challenge, parts[1], time.Unix(later, 0).Format("20060102"), 1), strings.ToUpper(challenge),
	} {
		refused(bad, "import zone a b", now)
	}
	elsewhere := newWorld(t, h)
	if err := elsewhere.db.CheckChallenge(challenge, "import zone a b", now); !errors.Is(err, store.ErrRejected) {
		t.Errorf("another installation takes the challenge: %v", err)
	}
}
