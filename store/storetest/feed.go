package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// reader follows a feed as a verifier does.
type reader struct {
	db     *store.DB
	keyset uuid.UUID
	at     store.FeedPosition
	has    map[string]bool
	resets int
}

func newReader(db *store.DB, keyset uuid.UUID) *reader {
	return &reader{db: db, keyset: keyset, has: map[string]bool{}}
}

// read takes a page and returns whether there is more.
func (r *reader) read(t testing.TB, limit int) bool {
	t.Helper()
	page, err := r.db.RevocationFeed(t.Context(), r.keyset, r.at, limit)
	noErr(t, err)
	if page.Reset {
		clear(r.has)
		r.resets++
		r.at.Seq = 0
	}
	if len(page.Entries) > limit || page.More && len(page.Entries) == 0 {
		t.Fatalf("a page of %d has %d entries, more: %t", limit, len(page.Entries), page.More)
	}
	last := r.at.Seq
	for _, e := range page.Entries {
		if e.Seq <= last {
			t.Fatalf("entry %d follows %d", e.Seq, last)
		}
		last = e.Seq
		if e.LiftedAt.IsZero() {
			r.has[e.JTI] = true
		} else {
			delete(r.has, e.JTI)
		}
	}
	if page.Seq < last || page.More && page.Seq != last {
		t.Fatalf("a page ends at %d, its last entry is at %d, more: %t", page.Seq, last, page.More)
	}
	r.at = store.FeedPosition{Epoch: page.Epoch, Seq: page.Seq}
	return page.More
}

func (r *reader) catchUp(t testing.TB, limit int) {
	t.Helper()
	for pages := 0; r.read(t, limit); pages++ {
		if pages > 100_000 {
			t.Fatal("there is always more")
		}
	}
}

func (r *reader) want(t testing.TB, jtis ...string) {
	t.Helper()
	for _, jti := range jtis {
		if !r.has[jti] {
			t.Errorf("the reader does not have %s", jti)
		}
	}
	if len(r.has) != len(jtis) {
		t.Errorf("the reader has %v, want %v", r.has, jtis)
	}
}

func testFeed(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	_, err := w.db.RevocationFeed(t.Context(), uuid.New(), store.FeedPosition{}, 10)
	wantErr(t, err, store.ErrNotFound)

	r := newReader(w.db, ks.ID)
	if more := r.read(t, 10); more || r.resets != 1 || r.at != w.head(t, ks.ID) || r.at.Epoch == uuid.Nil {
		t.Errorf("of an empty feed: %+v", r)
	}
	w.revoke(t, ks.ID, "a", "b", "c", "d")
	if !r.read(t, 3) || r.at.Seq != 3 || r.read(t, 3) || r.at.Seq != 4 {
		t.Errorf("after two pages: %+v", r)
	}
	r.want(t, "a", "b", "c", "d")

	// A page that takes just what there is ends at the head.
	_, err = w.db.LiftRevocation(t.Context(), ks.ID, "d", "", someone)
	noErr(t, err)
	w.age(t, ks.ID, "b", time.Minute)
	late := newReader(w.db, ks.ID)
	if !late.read(t, 2) || late.at.Seq != 2 {
		t.Errorf("after a page: %+v", late)
	}
	late.want(t, "a", "b") // a verifier may accept it for some time, by a clock that is behind
	w.age(t, ks.ID, "b", store.RevocationGrace+time.Minute)
	late = newReader(w.db, ks.ID)
	late.catchUp(t, 2)
	late.want(t, "a", "c")
	r.catchUp(t, 1)
	r.want(t, "a", "b", "c") // it drops what has expired by itself
	if r.resets != 1 {
		t.Errorf("the reader was reset %d times", r.resets-1)
	}
	page, err := w.db.RevocationFeed(t.Context(), ks.ID, store.FeedPosition{Epoch: r.at.Epoch, Seq: 4}, 10)
	noErr(t, err)
	if page.Reset || len(page.Entries) != 1 || page.Entries[0].LiftedAt.IsZero() || page.Entries[0].JTI != "d" {
		t.Errorf("what was lifted is %+v", page)
	}
}

func testFeedReset(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	w.revoke(t, ks.ID, "a", "b", "c", "d")
	for _, jti := range []string{"a", "b"} {
		w.age(t, ks.ID, jti, 2*store.RevocationGrace)
	}
	w.maintain(t) // the horizon is 2
	epoch := w.head(t, ks.ID).Epoch
	for _, c := range []struct {
		at      store.FeedPosition
		reset   bool
		entries int
	}{
		{store.FeedPosition{}, true, 2},
		{store.FeedPosition{Epoch: epoch}, false, 2},
		{store.FeedPosition{Epoch: uuid.New()}, true, 2},
		{store.FeedPosition{Epoch: uuid.New(), Seq: 3}, true, 2},
		{store.FeedPosition{Epoch: epoch, Seq: 1}, true, 2},
		{store.FeedPosition{Epoch: epoch, Seq: 2}, false, 2},
		{store.FeedPosition{Epoch: epoch, Seq: 3}, false, 1},
		{store.FeedPosition{Epoch: epoch, Seq: 4}, false, 0},
		{store.FeedPosition{Epoch: epoch, Seq: 5}, true, 2},
	} {
		page, err := w.db.RevocationFeed(t.Context(), ks.ID, c.at, 10)
		noErr(t, err)
		if page.Reset != c.reset || len(page.Entries) != c.entries || page.More || page.Epoch != epoch || page.Seq != 4 {
			t.Errorf("from %+v: %+v", c.at, page)
		}
	}
}

// feedModel is what a feed should say, kept the simple way.
type feedModel struct {
	w       *world
	keyset  uuid.UUID
	expires map[string]time.Time // of what is remembered at all
	lifted  map[string]bool
}

// expired says that no verifier accepts the token.
func (m *feedModel) expired(jti string) bool {
	return !m.expires[jti].Add(store.Leeway).After(time.Now())
}

func (m *feedModel) inForce() []string {
	var list []string
	for jti := range m.expires {
		if !m.lifted[jti] && !m.expired(jti) {
			list = append(list, jti)
		}
	}
	slices.Sort(list)
	return list
}

// step does something at random.
func (m *feedModel) step(t *testing.T) {
	t.Helper()
	jti := fmt.Sprintf("jti-%d", rand.N(12))
	_, known := m.expires[jti]
	switch n := rand.N(100); {
	case n < 45 || !known:
		m.revoke(t)
	case n < 70:
		_, err := m.w.db.LiftRevocation(t.Context(), m.keyset, jti, "", someone)
		noErr(t, err)
		m.lifted[jti] = true
	case n < 90:
		ago := []time.Duration{2 * time.Minute, 40 * time.Minute, 80 * time.Minute}[rand.N(3)]
		if at := time.Now().Add(-ago); at.Before(m.expires[jti]) { // time does not run backwards
			m.w.age(t, m.keyset, jti, ago)
			m.expires[jti] = at
		}
	default:
		m.w.maintain(t)
		for jti, at := range m.expires {
			if time.Since(at) > store.RevocationGrace {
				delete(m.expires, jti)
				delete(m.lifted, jti)
			}
		}
	}
}

func (m *feedModel) revoke(t *testing.T) {
	t.Helper()
	var items []store.Revoke
	for range 1 + rand.N(3) {
		item := store.Revoke{JTI: fmt.Sprintf("jti-%d", rand.N(12)), ExpiresAt: hence(time.Hour + rand.N(time.Hour))}
		items = append(items, item)
		m.lifted[item.JTI] = false
		if item.ExpiresAt.After(m.expires[item.JTI]) {
			m.expires[item.JTI] = item.ExpiresAt
		}
	}
	_, err := m.w.db.Revoke(t.Context(), m.keyset, items, "", someone)
	noErr(t, err)
}

// check wants a reader that has caught up, and drops what has expired, to have
// what is in force.
func (m *feedModel) check(t *testing.T, r *reader) {
	t.Helper()
	var has []string
	for jti := range r.has {
		if !m.expired(jti) {
			has = append(has, jti)
		}
	}
	slices.Sort(has)
	if want := m.inForce(); !slices.Equal(has, want) {
		t.Fatalf("a reader at %+v has %v, in force are %v", r.at, has, want)
	}
}

// testFeedModel changes revocations at random while readers follow at different
// speeds, and new ones come.
func testFeedModel(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	m := &feedModel{w: w, keyset: ks.ID, expires: map[string]time.Time{}, lifted: map[string]bool{}}
	readers := make([]*reader, 5)
	for i := range readers {
		readers[i] = newReader(w.db, ks.ID)
	}
	for step := range 400 {
		m.step(t)
		i := rand.N(len(readers))
		switch {
		case step%40 == 39:
			readers[i] = newReader(w.db, ks.ID)
		case rand.N(3) == 0:
			readers[i].catchUp(t, 1+rand.N(5))
			m.check(t, readers[i])
		case rand.N(2) == 0:
			readers[i].read(t, 1+rand.N(3))
		}
	}
	for _, r := range readers {
		r.catchUp(t, 2)
		m.check(t, r)
	}
	var listed []string
	list, err := w.db.Revocations(t.Context(), ks.ID, 0, 100)
	noErr(t, err)
	for _, r := range list {
		listed = append(listed, r.JTI)
	}
	slices.Sort(listed)
	if want := m.inForce(); !slices.Equal(listed, want) {
		t.Errorf("listed are %v, in force are %v", listed, want)
	}
}

// testFeedRace has writers on several replicas, one of them by the ledger, while
// readers read. A reader that was shown a number before a smaller one would miss
// the smaller one for ever.
func testFeedRace(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	issued := rows(t, key, 200)
	w.record(t, newChain(t), issued)
	var want []string
	for _, row := range issued {
		want = append(want, row.JTI.String())
	}
	const writers, each = 4, 40
	dbs := w.replicas(t, writers)
	var writing, reading sync.WaitGroup
	var done atomic.Bool
	for i, db := range dbs {
		for n := range each {
			want = append(want, fmt.Sprintf("%d/%d/a", i, n))
		}
		writing.Go(func() { writeFeed(t, db, key.KeysetID, i, each) })
	}
	writing.Go(func() {
		for n := range 5 {
			filter := store.LedgerFilter{KeysetID: key.KeysetID, Subject: issued[n].Subject}
			if _, _, err := dbs[n%writers].RevokeMatching(t.Context(), filter, nil, "", someone); err != nil {
				t.Error(err)
			}
		}
		if _, _, err := w.db.RevokeMatching(t.Context(), store.LedgerFilter{KeysetID: key.KeysetID}, nil, "", someone); err != nil {
			t.Error(err)
		}
	})
	for i, db := range dbs {
		reading.Go(func() {
			r := newReader(db, key.KeysetID)
			for over := false; !over; {
				over = done.Load() // what comes after it was seen set is all there is
				r.catchUp(t, 1+3*i)
			}
			if r.resets != 1 {
				t.Errorf("a reader was reset %d times", r.resets-1)
			}
			r.want(t, want...)
		})
	}
	writing.Wait()
	done.Store(true)
	reading.Wait()
}

// writeFeed revokes pairs, one call each, and lifts the second of each.
func writeFeed(t *testing.T, db *store.DB, keyset uuid.UUID, writer, pairs int) {
	for n := range pairs {
		a, b := fmt.Sprintf("%d/%d/a", writer, n), fmt.Sprintf("%d/%d/b", writer, n)
		items := []store.Revoke{{JTI: a, ExpiresAt: hence(time.Hour)}, {JTI: b, ExpiresAt: hence(time.Hour)}}
		if _, err := db.Revoke(t.Context(), keyset, items, "", someone); err != nil {
			t.Error(err)
		}
		if _, err := db.LiftRevocation(t.Context(), keyset, b, "", someone); err != nil {
			t.Error(err)
		}
	}
}

// testNewEpoch makes the database look like another copy of the data.
func testNewEpoch(t *testing.T, h Harness) {
	w := newWorld(t, h)
	ks, _ := w.keyset(t, "zone")
	other, _ := w.keyset(t, "user")
	w.revoke(t, ks.ID, "a", "b")
	first, firstOther := w.head(t, ks.ID), w.head(t, other.ID)
	reopen := func() {
		var wg sync.WaitGroup
		for _, engine := range w.engines(t, 4) {
			wg.Go(func() {
				if _, err := store.Open(t.Context(), engine, w.mac); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	const event = "revocation-feed.new-epoch"
	reopen()
	if w.head(t, ks.ID) != first || slices.Contains(w.actions(t), event) {
		t.Error("a new epoch although nothing happened")
	}
	w.exec(t, "UPDATE installation SET incarnation = ''") // as after a migration
	reopen()
	if w.head(t, ks.ID) != first || w.count(t, "installation WHERE incarnation = ''") != 0 {
		t.Error("a new epoch although nobody knew which copy it was")
	}

	r := newReader(w.db, ks.ID)
	r.catchUp(t, 10)
	generation := w.ring(t).Generation
	w.exec(t, "UPDATE installation SET incarnation = 'another'")
	reopen()
	if leap := w.ring(t).Generation - generation; leap < 1<<20 {
		t.Errorf("the generation grew by %d; replicas may have loaded one of the other copy", leap)
	}
	second := w.head(t, ks.ID)
	if second.Epoch == first.Epoch || second.Seq != first.Seq || w.head(t, other.ID).Epoch == firstOther.Epoch {
		t.Errorf("in another copy the feed is at %+v, before %+v", second, first)
	}
	actions := slices.DeleteFunc(w.actions(t), func(a string) bool { return a != event })
	if len(actions) != 1 {
		t.Errorf("%d new epochs in the audit, want 1", len(actions))
	}
	if r.catchUp(t, 1); r.resets != 2 || r.at != second {
		t.Errorf("a reader was reset %d times and is at %+v", r.resets-1, r.at)
	}
	r.want(t, "a", "b")

	// A standby was promoted while this process was running: the first change
	// begins the epoch.
	w.exec(t, "UPDATE installation SET incarnation = 'a third'")
	w.revoke(t, ks.ID, "c")
	if third := w.head(t, ks.ID); third.Epoch == second.Epoch || third.Seq != 3 {
		t.Errorf("after a change the feed is at %+v", third)
	}
}

// engines returns engines on the database, as many as it allows.
func (w *world) engines(t testing.TB, n int) []store.Engine {
	t.Helper()
	list := []store.Engine{w.Engine}
	for w.Second != nil && len(list) < n {
		list = append(list, w.Second(t))
	}
	return list
}

// testRevocationsAreTold watches while revocations change.
func testRevocationsAreTold(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	w.record(t, newChain(t), rows(t, key, 1))
	told := watch(t, w.db)
	w.revoke(t, key.KeysetID, "a")
	told.want(t, store.TopicRevocations)
	_, _, err := w.db.RevokeMatching(t.Context(), store.LedgerFilter{KeysetID: key.KeysetID}, nil, "", someone)
	noErr(t, err)
	told.want(t, store.TopicRevocations)
	_, err = w.db.LiftRevocation(t.Context(), key.KeysetID, "a", "", someone)
	noErr(t, err)
	told.want(t, store.TopicRevocations)
}
