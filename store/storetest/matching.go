package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// matches is what a filter means, row by row.
func matches(f store.LedgerFilter, r store.Issuance, now time.Time) bool {
	reach := len(f.Subjects) == 0
	for _, p := range f.Subjects {
		prefix, wide := strings.CutSuffix(p, "*")
		reach = reach || r.Subject == p && !wide || wide && strings.HasPrefix(r.Subject, prefix)
	}
	return reach && (f.KeysetID == uuid.Nil || r.KeysetID == f.KeysetID) && (f.Serial == 0 || r.Serial == f.Serial) &&
		(f.Subject == "" || r.Subject == f.Subject) && (f.Caller == "" || r.Caller == f.Caller) &&
		(f.IssuedAfter.IsZero() || !r.IssuedAt.Before(f.IssuedAfter)) &&
		(f.IssuedBefore.IsZero() || r.IssuedAt.Before(f.IssuedBefore)) && (!f.Live || r.ExpiresAt.After(now)) &&
		(!f.Acceptable || r.ExpiresAt.Add(store.Leeway).After(now)) &&
		(f.FromJTI == uuid.Nil || r.JTI.String() >= f.FromJTI.String()) && (f.ToJTI == uuid.Nil || r.JTI.String() < f.ToJTI.String())
}

func matching(f store.LedgerFilter, rows []store.Issuance) []store.Issuance {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(rows), func(r store.Issuance) bool { return !matches(f, r, now) })
}

// motley fills the ledger with rows that differ in all that a filter asks for.
func (w *world) motley(t testing.TB) (rows []store.Issuance) {
	t.Helper()
	w.edited.Store(true) // of serial 2 there are rows, and no key
	left := []time.Duration{-10 * time.Minute, -time.Minute, time.Hour}
	subjects := []string{"east", "east-1", "eastern*", "west", "", "*", "ü\"%_", "wes", "*west"}
	for _, key := range []store.SigningKey{w.activeKey(t, "zone"), w.activeKey(t, "user")} {
		var batch []store.Issuance
		for _, ago := range []time.Duration{time.Second, 10 * time.Hour, 10 * 24 * time.Hour, 40 * 24 * time.Hour} {
			for i, r := range rowsAt(t, key, 30, time.Now().Add(-ago), ago+left[rand.N(len(left))]) {
				r.IssuedAt = r.IssuedAt.Add(time.Duration(i) * time.Millisecond)
				r.JTI = newJTI(t, r.IssuedAt)
				r.Serial, r.Subject = 1+rand.N(2), subjects[rand.N(len(subjects))]
				r.Caller = fmt.Sprintf("caller/%d", rand.N(2))
				batch = append(batch, r)
			}
		}
		w.record(t, newChain(t), batch)
		rows = append(rows, batch...)
	}
	return rows
}

// someFilter returns a filter in which each part is set or not.
func someFilter(rows []store.Issuance) (f store.LedgerFilter) {
	r := rows[rand.N(len(rows))]
	maybe := func(set func()) {
		if rand.N(3) == 0 {
			set()
		}
	}
	maybe(func() { f.KeysetID = r.KeysetID })
	maybe(func() { f.Serial = r.Serial })
	maybe(func() { f.Subject = r.Subject })
	maybe(func() { f.Caller = r.Caller })
	maybe(func() { f.IssuedAfter = r.IssuedAt })
	maybe(func() { f.IssuedBefore = rows[rand.N(len(rows))].IssuedAt })
	maybe(func() { f.Live = true })
	maybe(func() { f.Acceptable = true })
	maybe(func() { f.FromJTI = r.JTI })
	maybe(func() { f.ToJTI = rows[rand.N(len(rows))].JTI })
	maybe(func() {
		f.Subjects = [][]string{{"east*"}, {"*"}, {"west", "east-*"}, {r.Subject}, {r.Subject + "*"}, {"w%", "_"}, {""}}[rand.N(7)]
	})
	return f
}

// testLedgerFilter compares what the database finds with what filters mean.
func testLedgerFilter(t *testing.T, h Harness) {
	w := newWorld(t, h)
	rows := w.motley(t)
	slices.SortFunc(rows, func(a, b store.Issuance) int { return strings.Compare(b.JTI.String(), a.JTI.String()) })
	for range 150 {
		f := someFilter(rows)
		var want []store.Issuance
		for _, r := range matching(f, rows) {
			want = append(want, stored(r))
		}
		got := w.issuances(t, f, 1+rand.N(50))
		for i := range got {
			got[i].Writer, got[i].Batch = uuid.Nil, 0
		}
		for i := range want {
			want[i].Writer, want[i].Batch = uuid.Nil, 0
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: found %d rows, want %d", f, len(got), len(want))
		}
		f.Live = rand.N(2) == 0 // is not what is counted
		n, err := w.db.CountMatching(t.Context(), f)
		noErr(t, err)
		f.Live, f.Acceptable = false, true
		if want := len(matching(f, rows)); n != int64(want) {
			t.Fatalf("%+v: counted %d rows, want %d", f, n, want)
		}
	}
}

func (w *world) issuances(t testing.TB, f store.LedgerFilter, limit int) (all []store.Issuance) {
	t.Helper()
	before := uuid.Max
	for {
		page, err := w.db.Issuances(t.Context(), f, before, limit)
		noErr(t, err)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		before = page[len(page)-1].JTI
	}
}

func testLiveTokens(t *testing.T, h Harness) {
	w := newWorld(t, h)
	rows := w.motley(t)
	want := map[int]int64{}
	for _, r := range matching(store.LedgerFilter{KeysetID: rows[0].KeysetID, Live: true}, rows) {
		want[r.Serial]++
	}
	got, err := w.db.LiveTokens(t.Context(), rows[0].KeysetID)
	noErr(t, err)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("live are %v, want %v", got, want)
	}
	got, err = w.db.LiveTokens(t.Context(), uuid.New())
	if err != nil || len(got) != 0 {
		t.Errorf("of no keyset there are %v (%v)", got, err)
	}
}

// testRevokeMatching revokes by many filters, one after the other.
func testRevokeMatching(t *testing.T, h Harness) {
	w := newWorld(t, h)
	rows := w.motley(t)
	revoked := map[string]bool{}
	for range 25 {
		f := someFilter(rows)
		f.Live, f.Acceptable, f.FromJTI, f.ToJTI = false, true, uuid.Nil, uuid.Nil
		want := matching(f, rows)
		var fresh int64
		for _, r := range want {
			if !revoked[r.JTI.String()] {
				fresh++
			}
			revoked[r.JTI.String()] = true
		}
		n := int64(len(want))
		f.Live, f.Acceptable = rand.N(2) == 0, false // are implied
		matched, changed, err := w.db.RevokeMatching(t.Context(), f, &n, "breach", someone)
		noErr(t, err)
		if matched != n || changed != fresh {
			t.Fatalf("%+v: %d matched, %d were revoked; want %d, %d", f, matched, changed, n, fresh)
		}
	}
	listed := 0
	for keyset, head := range w.heads(t) {
		list, err := w.db.Revocations(t.Context(), keyset, 0, 1000)
		noErr(t, err)
		listed += len(list)
		for i, r := range list {
			if r.Seq != int64(i+1) || !revoked[r.JTI] || r.Reason != "breach" || r.Caller != someone.Name || r.KeysetID != keyset {
				t.Fatalf("revocation %d is %+v", i, r)
			}
		}
		if head.Seq != int64(len(list)) {
			t.Errorf("the feed is at %d, want %d", head.Seq, len(list))
		}
	}
	if listed != len(revoked) {
		t.Errorf("%d are listed, want %d", listed, len(revoked))
	}
}

func (w *world) heads(t testing.TB) map[uuid.UUID]store.FeedPosition {
	t.Helper()
	heads, err := w.db.FeedHeads(t.Context())
	noErr(t, err)
	return heads
}

// testRevokeMatchingAgain meets what is revoked, lifted, or revoked for too short
// a time.
func testRevokeMatchingAgain(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	batch := rows(t, key, 4)
	w.record(t, newChain(t), batch)
	id := func(i int) string { return batch[i].JTI.String() }
	made, err := w.db.Revoke(t.Context(), key.KeysetID, []store.Revoke{
		{JTI: id(0), ExpiresAt: batch[0].ExpiresAt.Add(time.Hour)}, {JTI: id(1), ExpiresAt: batch[1].ExpiresAt.Add(time.Hour)}, {JTI: id(2), ExpiresAt: hence(time.Minute)},
	}, "before", someone)
	noErr(t, err)
	_, err = w.db.LiftRevocation(t.Context(), key.KeysetID, id(1), "", someone)
	noErr(t, err)
	matched, revoked, err := w.db.RevokeMatching(t.Context(), store.LedgerFilter{KeysetID: key.KeysetID}, nil, "all", someone)
	noErr(t, err)
	if matched != 4 || revoked != 3 {
		t.Errorf("%d matched, %d were revoked; want 4, 3", matched, revoked)
	}
	list, err := w.db.Revocations(t.Context(), key.KeysetID, 0, 10)
	noErr(t, err)
	if len(list) != 4 || list[0] != made[0] || list[3].Seq != 7 {
		t.Errorf("listed are %+v", list)
	}
	for _, r := range list {
		want := r.JTI != id(0) && r.JTI != id(1)
		if r.ExpiresAt.Equal(batch[3].ExpiresAt) != want {
			t.Errorf("%+v expires at the wrong time", r)
		}
	}
}

func testUnexpectedCount(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	w.record(t, newChain(t), rows(t, key, 3))
	gone := w.apiToken(t, "gone", -time.Hour)
	f := store.LedgerFilter{KeysetID: key.KeysetID, Serial: 1, Caller: "api-token/1"}
	for _, expected := range []int64{0, 2, 4} {
		matched, revoked, err := w.db.RevokeMatching(t.Context(), f, &expected, "", someone)
		wantErr(t, err, store.ErrUnexpectedCount)
		if matched != 3 || revoked != 0 || !strings.Contains(err.Error(), fmt.Sprintf("3 match, expected were %d", expected)) {
			t.Errorf("%d matched, %d were revoked: %v", matched, revoked, err)
		}
	}
	_, _, err := w.db.RevokeMatching(t.Context(), f, nil, "", store.Actor{Name: "gone", TokenID: gone.ID})
	wantErr(t, err, store.ErrCallerRefused)
	if n := w.count(t, "revocations"); n != 0 || w.head(t, key.KeysetID).Seq != 0 {
		t.Errorf("%d were revoked", n)
	}
	_, _, err = w.db.RevokeMatching(t.Context(), store.LedgerFilter{KeysetID: uuid.New()}, nil, "", someone)
	wantErr(t, err, store.ErrNotFound)
	expected := int64(3)
	_, _, err = w.db.RevokeMatching(t.Context(), f, &expected, "why", someone)
	noErr(t, err)
	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{ActionPrefix: "revocation."}, uuid.Max, 10)
	noErr(t, err)
	if len(events) != 5 || events[0].Action != "revocation.create-matching" || events[0].Target != "zone/1" {
		t.Fatalf("the audit says %+v", events)
	}
	// A barrier stays when what follows fails.
	for _, e := range events[1:] {
		if e.Action != "revocation.barrier" || e.Target != "zone/1" || !strings.Contains(e.Detail, `"issued_before"`) {
			t.Errorf("the audit says %+v", e)
		}
	}
	var detail struct {
		Filter           map[string]any
		Matched, Revoked int
		Part             int
		Done             bool
		Reason           string
	}
	noErr(t, json.Unmarshal([]byte(events[0].Detail), &detail))
	if detail.Matched != 3 || detail.Revoked != 3 || detail.Reason != "why" || detail.Part != 1 || !detail.Done || len(detail.Filter) != 4 ||
		detail.Filter["caller"] != "api-token/1" || detail.Filter["issued_before"] == nil {
		t.Errorf("the detail is %s", events[0].Detail)
	}
}

// testRevokeMatchingParts revokes so many that it takes several transactions, of
// which one fails.
func testRevokeMatchingParts(t *testing.T, h Harness) {
	w := newWorld(t, h)
	zone, user := w.activeKey(t, "zone"), w.activeKey(t, "user")
	link := newChain(t)
	const size = 25_000
	for range size / 1000 / 5 * 2 {
		link = w.record(t, link, rows(t, zone, 2000))
		link = w.record(t, link, rows(t, user, 500))
	}
	f := store.LedgerFilter{IssuedAfter: time.Now().Add(-time.Hour)}
	full := errors.New("the disk is full")
	broken, err := store.Open(t.Context(), &failsLater{Engine: w.Engine, left: 1, err: full}, w.mac)
	noErr(t, err)
	n := int64(size)
	matched, first, err := broken.RevokeMatching(t.Context(), f, &n, "breach", someone)
	wantErr(t, err, full)
	if got := w.count(t, "revocations"); matched != n || first == 0 || first >= n || int64(got) != first {
		t.Errorf("%d matched, %d were revoked, of which there are %d", matched, first, got)
	}
	matched, rest, err := w.db.RevokeMatching(t.Context(), f, &n, "breach", someone)
	noErr(t, err)
	if matched != n || first+rest != n {
		t.Errorf("%d matched, %d and then %d were revoked; want %d", matched, first, rest, n)
	}
	for _, key := range []store.SigningKey{zone, user} {
		r := newReader(w.db, key.KeysetID)
		r.catchUp(t, 5000)
		if all := w.count(t, "revocations WHERE keyset_id = '"+key.KeysetID.String()+"'"); len(r.has) != all || r.at.Seq != int64(all) {
			t.Errorf("a reader has %d of %d and is at %d", len(r.has), all, r.at.Seq)
		}
	}
	events, err := w.db.AuditEvents(t.Context(), store.AuditFilter{ActionPrefix: "revocation.create-matching"}, uuid.Max, 10)
	noErr(t, err)
	var done []bool
	for _, e := range slices.Backward(events) {
		done = append(done, strings.Contains(e.Detail, `"done":true`))
	}
	if !slices.Equal(done, []bool{false, false, true}) {
		t.Errorf("the audit says %+v", events)
	}
}

// failsLater is an engine that revokes by the ledger a number of times.
type failsLater struct {
	store.Engine
	left int
	err  error
}

func (f *failsLater) Update(ctx context.Context, fn func(store.Tx) error) error {
	return f.Engine.Update(ctx, func(tx store.Tx) error { return fn(failsLaterTx{tx, f}) })
}

type failsLaterTx struct {
	store.Tx
	f *failsLater
}

func (tx failsLaterTx) RevokeIssuances(ctx context.Context, f store.LedgerFilter, like store.Revocation) (int64, error) {
	n, err := tx.Tx.RevokeIssuances(ctx, f, like)
	if tx.f.left--; tx.f.left < 0 {
		return n, tx.f.err
	}
	return n, err
}

// testRevokeInFlight holds tokens that were stamped before a revocation, and are
// recorded only after it.
func testRevokeInFlight(t *testing.T, h Harness) {
	w := newWorld(t, h)
	zone, user := w.activeKey(t, "zone"), w.activeKey(t, "user")
	link := newChain(t)
	held, heldUser := rows(t, zone, 2), rows(t, user, 1)
	_, _, err := w.db.RevokeMatching(t.Context(), store.LedgerFilter{KeysetID: zone.KeysetID, Subject: "none"}, nil, "", someone)
	noErr(t, err)
	refused, err := w.refuse(t, link, append(slices.Clone(held), rows(t, zone, 1)...))
	noErr(t, err)
	if len(refused.Keys) != 1 || refused.Keys[0] != zone.ID || len(refused.Callers) != 0 {
		t.Errorf("refused were %+v", refused)
	}
	link = w.record(t, link, heldUser) // another keyset's
	link = w.record(t, link, rows(t, zone, 1))

	// Of all keysets, but only up to a time: what was stamped after it may pass.
	before := rows(t, user, 1)
	time.Sleep(2 * time.Millisecond)
	until := hence(0)
	time.Sleep(2 * time.Millisecond)
	after := rows(t, user, 1)
	matched, _, err := w.db.RevokeMatching(t.Context(), store.LedgerFilter{IssuedBefore: until}, nil, "", someone)
	noErr(t, err)
	if matched != 2 {
		t.Errorf("%d match, want 2", matched)
	}
	_, err = w.refuse(t, link, before)
	noErr(t, err)
	link = w.record(t, link, after)

	// A barrier is never lowered, and keys that may sign later have it too.
	_, _, err = w.db.RevokeMatching(t.Context(), store.LedgerFilter{IssuedBefore: until.Add(-time.Hour)}, nil, "", someone)
	noErr(t, err)
	_, err = w.refuse(t, link, before)
	noErr(t, err)
	_, keys := w.keyset(t, "later", store.RolePrimary)
	next := w.publish(t, keys[0])
	early := rows(t, next, 1)
	_, _, err = w.db.RevokeMatching(t.Context(), store.LedgerFilter{}, nil, "", someone)
	noErr(t, err)
	w.activate(t, next)
	_, err = w.refuse(t, link, early)
	noErr(t, err)
	w.record(t, link, rows(t, next, 1))
	w.wantSound(t)
}

// testRevokeMatchingRace revokes while replicas issue. A token that was issued
// before one that is revoked must be revoked too: none slips through.
func testRevokeMatchingRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	w.drag(t)
	s := w.issue(t, 6, key, uuid.Nil)
	defer s.end()
	for range 5 {
		waitFor(t, &s.recorded)
		s.promptly(t, func() {
			_, _, err := w.db.RevokeMatching(t.Context(), store.LedgerFilter{KeysetID: key.KeysetID}, nil, "", someone)
			noErr(t, err)
		})
		w.wantNoneEscaped(t, key.KeysetID)
	}
	waitFor(t, &s.recorded)
	s.end()
	w.wantNoneEscaped(t, key.KeysetID)
	w.wantSound(t)
}

func (w *world) wantNoneEscaped(t *testing.T, keyset uuid.UUID) {
	t.Helper()
	revoked := map[string]bool{}
	list, err := w.db.Revocations(t.Context(), keyset, 0, 1_000_000)
	noErr(t, err)
	for _, r := range list {
		revoked[r.JTI] = true
	}
	var lastRevoked, firstSpared time.Time
	for _, r := range w.issuances(t, store.LedgerFilter{KeysetID: keyset}, 10_000) {
		switch {
		case revoked[r.JTI.String()] && r.IssuedAt.After(lastRevoked):
			lastRevoked = r.IssuedAt
		case !revoked[r.JTI.String()]:
			firstSpared = r.IssuedAt // newest first
		}
	}
	if lastRevoked.IsZero() || !firstSpared.IsZero() && !firstSpared.After(lastRevoked) {
		t.Errorf("a token of %s was spared, one of %s was revoked", firstSpared, lastRevoked)
	}
}
