package storetest

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// hence is a time that the database keeps as it is.
func hence(d time.Duration) time.Time { return time.Now().UTC().Add(d).Truncate(time.Microsecond) }

// revoke revokes token IDs until an hour from now.
func (w *world) revoke(t testing.TB, keyset uuid.UUID, jtis ...string) []store.Revocation {
	t.Helper()
	items := make([]store.Revoke, len(jtis))
	for i, jti := range jtis {
		items[i] = store.Revoke{JTI: jti, ExpiresAt: hence(time.Hour)}
	}
	got, err := w.db.Revoke(t.Context(), keyset, items, "stolen", someone)
	noErr(t, err)
	if len(got) != len(jtis) {
		t.Fatalf("%d of %d were revoked", len(got), len(jtis))
	}
	return got
}

func (w *world) head(t testing.TB, keyset uuid.UUID) store.FeedPosition {
	t.Helper()
	heads, err := w.db.FeedHeads(t.Context())
	noErr(t, err)
	return heads[keyset]
}

// wantListed wants the list of what holds to be this, in pages of two.
func (w *world) wantListed(t testing.TB, keyset uuid.UUID, want ...store.Revocation) {
	t.Helper()
	var got []store.Revocation
	var after int64
	for {
		page, err := w.db.Revocations(t.Context(), keyset, after, 2)
		noErr(t, err)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		after = page[len(page)-1].Seq
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed are\n%+v, want\n%+v", got, want)
	}
}

func testRevoke(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	other, _ := w.keyset(t, "user")
	made := w.revoke(t, ks.ID, "a", "ü, \"b\"", "c")
	for i, r := range made {
		if r.Seq != int64(i+1) || r.KeysetID != ks.ID || r.Reason != "stolen" || r.Caller != someone.Name || !r.LiftedAt.IsZero() {
			t.Errorf("the revocation is %+v", r)
		}
		got, err := w.db.Revocation(t.Context(), ks.ID, r.JTI)
		noErr(t, err)
		if got != r {
			t.Errorf("found\n%+v, made\n%+v", got, r)
		}
	}
	w.wantListed(t, ks.ID, made...)
	w.wantListed(t, other.ID)
	_, err := w.db.Revocation(t.Context(), other.ID, "a")
	wantErr(t, err, store.ErrNotFound)

	// Once more, with what is new between what is not.
	got, err := w.db.Revoke(t.Context(), ks.ID, []store.Revoke{
		{JTI: "a", ExpiresAt: hence(time.Minute)}, {JTI: "d", ExpiresAt: hence(time.Minute)}, {JTI: "over", ExpiresAt: hence(-store.Leeway - time.Minute)}, {JTI: "c", ExpiresAt: made[2].ExpiresAt},
		{JTI: "d", ExpiresAt: hence(2 * time.Hour)}, {JTI: "d", ExpiresAt: hence(time.Hour)},
	}, "again", someone)
	noErr(t, err)
	if len(got) != 3 || got[0] != made[0] || got[2] != made[2] || got[1].JTI != "d" || got[1].Seq != 4 ||
		got[1].ExpiresAt.Before(hence(119*time.Minute)) {
		t.Errorf("revoked once more: %+v", got)
	}
	// A later expiry is all that is taken, and readers are told.
	later := hence(3 * time.Hour)
	longer, err := w.db.Revoke(t.Context(), ks.ID, []store.Revoke{{JTI: "a", ExpiresAt: later}}, "again", someone)
	noErr(t, err)
	want := made[0]
	want.ExpiresAt, want.Seq = later, 5
	if len(longer) != 1 || longer[0] != want {
		t.Errorf("with a later expiry\n%+v, want\n%+v", longer, want)
	}
	w.wantListed(t, ks.ID, made[1], made[2], got[1], want)
	if head := w.head(t, ks.ID); head.Seq != 5 {
		t.Errorf("the feed is at %d, want 5", head.Seq)
	}
}

// testRevokeExpired revokes tokens that have expired, and that verifiers accept
// nevertheless.
func testRevokeExpired(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	revoke := func(jti string, ago time.Duration) []store.Revocation {
		t.Helper()
		got, err := w.db.Revoke(t.Context(), key.KeysetID, []store.Revoke{{JTI: jti, ExpiresAt: hence(-ago)}}, "stolen", someone)
		noErr(t, err)
		return got
	}
	if got := revoke("over", store.Leeway+time.Minute); len(got) != 0 {
		t.Errorf("what nobody accepts was revoked: %+v", got)
	}
	made := revoke("late", store.Leeway-time.Minute)
	if len(made) != 1 || made[0].Seq != 1 {
		t.Fatalf("revoked were %+v", made)
	}
	if again := revoke("late", store.Leeway-2*time.Minute); len(again) != 1 || again[0].Seq != 2 || !again[0].RevokedAt.Equal(made[0].RevokedAt) {
		t.Errorf("revoked once more: %+v", again) // it held: only its expiry is new
	}
	r := newReader(w.db, key.KeysetID)
	r.catchUp(t, 1)
	r.want(t, "late")
	list, err := w.db.Revocations(t.Context(), key.KeysetID, 0, 10)
	noErr(t, err)
	if len(list) != 1 || list[0].JTI != "late" {
		t.Errorf("listed are %+v", list)
	}
	// What readers whose clocks are behind still hear of is not listed.
	w.age(t, key.KeysetID, "late", store.Leeway+time.Minute)
	r = newReader(w.db, key.KeysetID)
	r.catchUp(t, 1)
	r.want(t, "late")
	w.wantListed(t, key.KeysetID)
	made = w.revoke(t, key.KeysetID, "a", "b", "c")
	w.wantListed(t, key.KeysetID, made...)
}

// testRevokeMatchingExpired does so by the ledger.
func testRevokeMatchingExpired(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	hour := time.Now().Add(-time.Hour)
	late := rowsAt(t, key, 2, hour, time.Hour-store.Leeway+time.Minute)
	w.record(t, w.record(t, newChain(t), late), rowsAt(t, key, 3, hour, time.Hour-store.Leeway-time.Minute))
	f := store.LedgerFilter{KeysetID: key.KeysetID, Live: true}
	if live := w.issuances(t, f, 10); len(live) != 0 {
		t.Errorf("live are %+v", live)
	}
	n, err := w.db.CountMatching(t.Context(), f)
	noErr(t, err)
	matched, revoked, err := w.db.RevokeMatching(t.Context(), f, &n, "breach", someone)
	noErr(t, err)
	if n != 2 || matched != 2 || revoked != 2 {
		t.Errorf("%d were counted, %d matched, %d were revoked; want 2", n, matched, revoked)
	}
	r := newReader(w.db, key.KeysetID)
	r.catchUp(t, 1)
	r.want(t, late[0].JTI.String(), late[1].JTI.String())
}

func testRevokeAudit(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	w.revoke(t, ks.ID, "a")
	w.revoke(t, ks.ID, "b", "c")
	// Nothing to do, nothing to tell.
	_, err := w.db.Revoke(t.Context(), ks.ID, []store.Revoke{{JTI: "c", ExpiresAt: hence(time.Minute)}}, "twice", someone)
	noErr(t, err)
	_, err = w.db.Revoke(t.Context(), ks.ID, nil, "", someone)
	noErr(t, err)
	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{ActionPrefix: "revocation."}, uuid.Max, 10)
	noErr(t, err)
	if len(events) != 2 || events[1].Target != "zone/a" || events[0].Target != "zone" {
		t.Fatalf("the audit says %+v", events)
	}
	var detail struct {
		JTIs    []string `json:"jtis"`
		Revoked int      `json:"revoked"`
		Reason  string   `json:"reason"`
	}
	noErr(t, json.Unmarshal([]byte(events[0].Detail), &detail))
	if !slices.Equal(detail.JTIs, []string{"b", "c"}) || detail.Revoked != 2 || detail.Reason != "stolen" {
		t.Errorf("the detail is %s", events[0].Detail)
	}
}

// testRevokeRefused wants what cannot be revoked to leave nothing.
func testRevokeRefused(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	gone := w.apiToken(t, "gone", -time.Hour)
	as := store.Actor{Name: "api-token/" + gone.ID.String(), TokenID: gone.ID}
	good := store.Revoke{JTI: "a", ExpiresAt: hence(time.Hour)}
	for name, c := range map[string]struct {
		keyset uuid.UUID
		item   store.Revoke
		reason string
		by     store.Actor
		want   error
	}{
		"no such keyset":          {uuid.New(), good, "", someone, store.ErrNotFound},
		"caller":                  {ks.ID, good, "", as, store.ErrCallerRefused},
		"empty jti":               {ks.ID, store.Revoke{ExpiresAt: good.ExpiresAt}, "", someone, store.ErrRejected},
		"zero byte in jti":        {ks.ID, store.Revoke{JTI: "\x00", ExpiresAt: good.ExpiresAt}, "", someone, store.ErrRejected},
		"invalid UTF-8 in jti":    {ks.ID, store.Revoke{JTI: "\xff", ExpiresAt: good.ExpiresAt}, "", someone, store.ErrRejected},
		"zero byte in reason":     {ks.ID, good, "\x00", someone, store.ErrRejected},
		"invalid UTF-8 in reason": {ks.ID, good, "\xff", someone, store.ErrRejected},
	} {
		_, err := w.db.Revoke(t.Context(), c.keyset, []store.Revoke{good, c.item}, c.reason, c.by)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got error %v, want one that is %q", name, err, c.want)
		}
	}
	_, err := w.db.LiftRevocation(t.Context(), ks.ID, "a\x00", "", someone)
	wantErr(t, err, store.ErrRejected)
	_, err = w.db.LiftRevocation(t.Context(), ks.ID, "a", "\xff", someone)
	wantErr(t, err, store.ErrRejected)
	_, err = w.db.CountMatching(t.Context(), store.LedgerFilter{Subjects: []string{"\x00"}})
	wantErr(t, err, store.ErrRejected)
	if n := w.count(t, "revocations"); n != 0 || w.head(t, ks.ID).Seq != 0 {
		t.Errorf("%d rows, the feed is at %d", n, w.head(t, ks.ID).Seq)
	}
	if actions := w.actions(t); slices.Contains(actions, "revocation.create") {
		t.Errorf("the audit says %v", actions)
	}
}

func testLift(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	made := w.revoke(t, ks.ID, "a", "b")
	lifted, err := w.db.LiftRevocation(t.Context(), ks.ID, "a", "found again", someone)
	noErr(t, err)
	want := made[0]
	want.Seq, want.LiftedAt = 3, lifted.LiftedAt
	if lifted != want || lifted.LiftedAt.IsZero() {
		t.Errorf("lifted\n%+v, want\n%+v", lifted, want)
	}
	w.wantListed(t, ks.ID, made[1])
	if revoked, err := w.db.Revoked(t.Context(), ks.ID, "a"); err != nil || revoked {
		t.Errorf("the lifted one is revoked: %t (%v)", revoked, err)
	}
	again, err := w.db.LiftRevocation(t.Context(), ks.ID, "a", "twice", someone)
	noErr(t, err)
	if again != lifted {
		t.Errorf("lifted twice it is\n%+v, before\n%+v", again, lifted)
	}
	_, err = w.db.LiftRevocation(t.Context(), ks.ID, "c", "", someone)
	wantErr(t, err, store.ErrNotFound)
	_, err = w.db.LiftRevocation(t.Context(), uuid.New(), "a", "", someone)
	wantErr(t, err, store.ErrNotFound)

	// Revoked again, with an earlier expiry: a reader may know the later one.
	back, err := w.db.Revoke(t.Context(), ks.ID, []store.Revoke{{JTI: "a", ExpiresAt: hence(time.Minute)}}, "stolen again", someone)
	noErr(t, err)
	if r := back[0]; r.Seq != 4 || !r.LiftedAt.IsZero() || r.Reason != "stolen again" || !r.ExpiresAt.Equal(made[0].ExpiresAt) ||
		!r.RevokedAt.After(made[0].RevokedAt) {
		t.Errorf("revoked again: %+v", r)
	}
	w.wantListed(t, ks.ID, made[1], back[0])
	if actions := w.actions(t); !reflect.DeepEqual(actions,
		[]string{"keyset.create", "revocation.create", "revocation.lift", "revocation.create"}) {
		t.Errorf("the audit says %v", actions)
	}
}

// age makes a revocation's token expire some time ago, as if that time had passed.
func (w *world) age(t testing.TB, keyset uuid.UUID, jti string, ago time.Duration) {
	t.Helper()
	noErr(t, w.Engine.Update(t.Context(), func(tx store.Tx) error {
		r, err := tx.Revocation(t.Context(), keyset, jti)
		if err != nil {
			return err
		}
		r.ExpiresAt = hence(-ago)
		if err := tx.PutRevocations(t.Context(), keyset, []store.Revocation{r}); err != nil || r.LiftedAt.IsZero() {
			return err
		}
		return tx.LiftRevocation(t.Context(), r)
	}))
}

func testForgetRevocations(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	other, _ := w.keyset(t, "user")
	w.revoke(t, ks.ID, "old", "kept", "lifted", "recent")
	w.revoke(t, other.ID, "old")
	_, err := w.db.LiftRevocation(t.Context(), ks.ID, "lifted", "", someone)
	noErr(t, err)
	w.age(t, ks.ID, "old", store.RevocationGrace+time.Minute)
	w.age(t, ks.ID, "lifted", store.RevocationGrace+time.Minute)
	w.age(t, ks.ID, "recent", store.RevocationGrace-time.Minute)
	w.age(t, other.ID, "old", store.RevocationGrace+time.Minute)
	if m := w.maintain(t); m.RevocationsForgotten != 3 {
		t.Errorf("%d were forgotten, want 3", m.RevocationsForgotten)
	}
	for jti, want := range map[string]error{"old": store.ErrNotFound, "lifted": store.ErrNotFound, "kept": nil, "recent": nil} {
		if _, err := w.db.Revocation(t.Context(), ks.ID, jti); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", jti, err, want)
		}
	}
	if m := w.maintain(t); m.RevocationsForgotten != 0 {
		t.Errorf("%d were forgotten by a second run", m.RevocationsForgotten)
	}

	// A reader that begins anew is not sent back for ever, wherever the
	// forgotten rows were.
	w.wantHorizon(t, ks.ID, 1)
	w.wantHorizon(t, other.ID, 1)
	w.age(t, ks.ID, "kept", 2*store.RevocationGrace)
	w.maintain(t)
	w.wantHorizon(t, ks.ID, 2)
	w.age(t, ks.ID, "recent", 2*store.RevocationGrace)
	w.maintain(t)
	w.wantHorizon(t, ks.ID, 4)
	if head := w.head(t, ks.ID); head.Seq != 5 {
		t.Errorf("the feed is at %d, want 5", head.Seq)
	}
}

func (w *world) wantHorizon(t *testing.T, keyset uuid.UUID, want int64) {
	t.Helper()
	noErr(t, w.Engine.View(t.Context(), func(tx store.Tx) error {
		feed, err := tx.Feed(t.Context(), keyset)
		if feed.Horizon != want {
			t.Errorf("the horizon is %d, want %d", feed.Horizon, want)
		}
		return err
	}))
}

// testForgetManyRevocations has more to forget than one step takes.
func testForgetManyRevocations(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	many := make([]store.Revocation, 12_000)
	for i := range many {
		many[i] = store.Revocation{JTI: uuid.NewString(), Seq: int64(i + 1), ExpiresAt: hence(-2 * store.RevocationGrace)}
	}
	noErr(t, w.Engine.Update(t.Context(), func(tx store.Tx) error {
		if err := tx.PutRevocations(t.Context(), ks.ID, many); err != nil {
			return err
		}
		return tx.AdvanceFeed(t.Context(), ks.ID, int64(len(many)))
	}))
	if m := w.maintain(t); m.RevocationsForgotten != int64(len(many)) {
		t.Errorf("%d were forgotten, want %d", m.RevocationsForgotten, len(many))
	}
	w.wantHorizon(t, ks.ID, int64(len(many)))
}
