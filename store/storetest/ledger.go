package storetest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// rows returns ledger rows of tokens that key signs now and that are valid for
// an hour.
func rows(t testing.TB, key store.SigningKey, n int) []store.Issuance {
	t.Helper()
	return rowsAt(t, key, n, time.Now(), time.Hour)
}

func rowsAt(t testing.TB, key store.SigningKey, n int, issued time.Time, validFor time.Duration) []store.Issuance {
	t.Helper()
	issued = issued.UTC().Truncate(time.Microsecond)
	list := make([]store.Issuance, n)
	for i := range list {
		list[i] = store.Issuance{
			JTI: newJTI(t, issued), KeysetID: key.KeysetID, Serial: key.Serial, KeyID: key.ID,
			Subject: fmt.Sprintf("zone-%d \"ü\" <&>", i), Scopes: `["cp","ingress"]`, Caller: "api-token/1",
			IssuedAt: issued, ExpiresAt: issued.Add(validFor),
		}
	}
	return list
}

// newJTI returns a UUIDv7 of a moment.
func newJTI(t testing.TB, at time.Time) uuid.UUID {
	t.Helper()
	id := store.FirstJTI(at)
	_, err := rand.Read(id[6:])
	noErr(t, err)
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id
}

func newChain(t testing.TB) store.Link {
	t.Helper()
	link, err := store.NewChain()
	noErr(t, err)
	return link
}

// record records rows that must be recorded.
func (w *world) record(t testing.TB, at store.Link, rows []store.Issuance) store.Link {
	t.Helper()
	next, refused, err := w.db.Record(t.Context(), at, rows)
	noErr(t, err)
	if !refused.Empty() {
		t.Fatalf("the ledger refused %+v", refused)
	}
	return next
}

// refuse wants rows to be refused or to fail, and then nothing to be written.
func (w *world) refuse(t testing.TB, at store.Link, rows []store.Issuance) (store.Refused, error) {
	t.Helper()
	before := w.count(t, "ledger") + w.count(t, "ledger_batches")
	next, refused, err := w.db.Record(t.Context(), at, rows)
	if err == nil && refused.Empty() {
		t.Fatal("the ledger took rows that it must not take")
	}
	if !reflect.DeepEqual(next, at) {
		t.Errorf("a batch that was not recorded moved the chain to %+v", next)
	}
	if after := w.count(t, "ledger") + w.count(t, "ledger_batches"); after != before {
		t.Errorf("%d rows were written by a batch that was not recorded", after-before)
	}
	return refused, err
}

// stored is a row as the ledger returns it.
func stored(r store.Issuance) store.Issuance {
	r.KeyID, r.CallerToken = uuid.Nil, uuid.Nil
	return r
}

func (w *world) wantStored(t testing.TB, rows []store.Issuance) {
	t.Helper()
	for _, r := range rows {
		got, err := w.db.Issuance(t.Context(), r.JTI)
		noErr(t, err)
		if got != stored(r) {
			t.Errorf("the ledger has\n%+v, recorded was\n%+v", got, stored(r))
		}
	}
}

func testRecord(t *testing.T, h Harness) {
	w := newWorld(t, h)
	zone, user, token := w.activeKey(t, "zone"), w.activeKey(t, "user"), w.apiToken(t, "ci", time.Hour)
	first := append(rows(t, zone, 3), rows(t, user, 2)...)
	first[1].CallerToken, first[4].CallerToken = token.ID, token.ID
	slices.Reverse(first) // whatever the order

	begin := newChain(t)
	link := w.record(t, begin, first)
	if link.Writer != begin.Writer || link.Batch != 1 || len(link.Hash) == 0 {
		t.Errorf("after the first batch the chain is at %+v", link)
	}
	second := rows(t, zone, 1)
	next := w.record(t, link, second)
	if next.Batch != 2 || bytes.Equal(next.Hash, link.Hash) {
		t.Errorf("after the second batch the chain is at %+v", next)
	}
	w.wantStored(t, slices.Concat(first, second))

	_, err := w.db.Issuance(t.Context(), uuid.New())
	wantErr(t, err, store.ErrNotFound)
	if _, _, err := w.db.Record(t.Context(), next, nil); err == nil {
		t.Error("a batch without rows was recorded")
	}
	// The position in a chain can be taken once.
	_, err = w.refuse(t, link, rows(t, zone, 1))
	wantErr(t, err, store.ErrExists)
}

func testLargeBatch(t *testing.T, h Harness) {
	w := newWorld(t, h)
	batch := rows(t, w.activeKey(t, "zone"), 1000)
	link := w.record(t, newChain(t), batch)
	if n := w.count(t, "ledger"); n != len(batch) {
		t.Errorf("the ledger has %d rows, want %d", n, len(batch))
	}
	w.wantStored(t, batch[:10])
	w.record(t, link, rows(t, w.activeKey(t, "user"), 1000))
	w.wantSound(t)
}

func testRefusedKeys(t *testing.T, h Harness) {
	w := newWorld(t, h)
	active := w.activeKey(t, "zone")
	_, keys := w.keyset(t, "user", store.RolePrimary, store.RolePrimary, store.RoleStandby)
	failed, err := Move(t.Context(), w.db, keys[1], store.StateFailed, "why not")
	noErr(t, err)
	published := w.publish(t, keys[2])
	retired := w.activeKey(t, "retired")
	link := w.record(t, newChain(t), rows(t, retired, 1))
	w.retire(t, retired)

	for _, key := range []store.SigningKey{keys[0], failed, published, retired, {ID: uuid.New()}} {
		refused, err := w.refuse(t, link, append(rows(t, active, 2), rows(t, key, 1)...))
		noErr(t, err)
		if want := (store.Refused{Keys: []uuid.UUID{key.ID}}); !reflect.DeepEqual(refused, want) {
			t.Errorf("a key that is %q: refused %+v, want %+v", key.State, refused, want)
		}
	}
	w.record(t, link, rows(t, active, 2))
}

func testRefusedCallers(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	good, over, revoked := w.apiToken(t, "good", time.Hour), w.apiToken(t, "over", -time.Second), w.apiToken(t, "revoked", time.Hour)
	_, err := w.db.RevokeAPIToken(t.Context(), revoked.ID, someone)
	noErr(t, err)
	link := newChain(t)
	for _, caller := range []uuid.UUID{over.ID, revoked.ID, uuid.New()} {
		batch := rows(t, key, 3)
		batch[0].CallerToken, batch[1].CallerToken = good.ID, caller
		refused, err := w.refuse(t, link, batch)
		noErr(t, err)
		if want := (store.Refused{Callers: []uuid.UUID{caller}}); !reflect.DeepEqual(refused, want) {
			t.Errorf("refused %+v, want %+v", refused, want)
		}
	}
	batch := rows(t, key, 1)
	batch[0].CallerToken = good.ID
	w.record(t, link, batch)
}

func testBadRows(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	first := rows(t, key, 1)
	link := w.record(t, newChain(t), first)

	for name, c := range map[string]struct {
		spoil func(batch []store.Issuance)
		want  error
	}{
		"jti of the ledger":         {func(b []store.Issuance) { b[1].JTI = first[0].JTI }, store.ErrExists},
		"jti twice in the batch":    {func(b []store.Issuance) { b[1].JTI = b[0].JTI }, store.ErrExists},
		"invalid UTF-8 in subject":  {func(b []store.Issuance) { b[1].Subject = "zone\xff" }, store.ErrRejected},
		"zero byte in subject":      {func(b []store.Issuance) { b[1].Subject = "zone\x00" }, store.ErrRejected},
		"zero byte in scopes":       {func(b []store.Issuance) { b[1].Scopes = "\x00" }, store.ErrRejected},
		"invalid UTF-8 in caller":   {func(b []store.Issuance) { b[1].Caller = "\xc3" }, store.ErrRejected},
		"surrogate in UTF-8 caller": {func(b []store.Issuance) { b[1].Caller = "\xed\xa0\x80" }, store.ErrRejected},
	} {
		t.Run(name, func(t *testing.T) {
			batch := rows(t, key, 3)
			c.spoil(batch)
			_, err := w.refuse(t, link, batch)
			wantErr(t, err, c.want)
		})
	}
	odd := rows(t, key, 3)
	odd[0].Subject, odd[1].Subject, odd[2].Subject = "", "17", "\u2028\U0010ffff\x01\x7f'\\"
	w.record(t, link, odd)
	w.wantStored(t, odd)
	w.wantSound(t)
}

func testLastExpiry(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	link := newChain(t)
	highest := time.Time{}
	for _, validFor := range []time.Duration{time.Hour, time.Minute, 48 * time.Hour, time.Hour} {
		batch := rowsAt(t, key, 2, time.Now(), validFor)
		batch[0].ExpiresAt = batch[0].ExpiresAt.Add(-time.Second)
		link = w.record(t, link, batch)
		if e := batch[1].ExpiresAt; e.After(highest) {
			highest = e
		}
		got := w.key(t, key.ID).LastExpiry
		if got.Before(highest) || got.After(highest.Add(5*time.Minute)) {
			t.Errorf("the last expiry is %s, a token expires at %s", got, highest)
		}
	}
	// An older database was restored under the running process.
	w.exec(t, "UPDATE signing_keys SET last_expiry = created_at")
	w.record(t, link, rows(t, key, 1))
	if got := w.key(t, key.ID).LastExpiry; got.Before(time.Now().Add(59 * time.Minute)) {
		t.Errorf("after a restore the last expiry is %s", got)
	}
}
