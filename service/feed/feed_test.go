package feed_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/feed"
	"github.com/zonemint/zonemint/store"
)

var keyset = uuid.MustParse("6f1f1c7e-0000-4000-8000-000000000001")

// fakeStore is the feed of one keyset, as the database has it: one row for each
// jti, at its last change.
type fakeStore struct {
	mu      sync.Mutex
	head    store.FeedPosition
	rows    []store.Revocation // by seq
	down    error
	asked   int // for heads
	read    int // pages
	reading int // at this moment
	most    int // at one moment
	slow    time.Duration
}

func newFake() *fakeStore { return &fakeStore{head: store.FeedPosition{Epoch: uuid.New()}} }

// put revokes a jti, or lifts it.
func (f *fakeStore) put(jti string, lifted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows = slices.DeleteFunc(f.rows, func(r store.Revocation) bool { return r.JTI == jti })
	f.head.Seq++
	r := store.Revocation{JTI: jti, Seq: f.head.Seq, Reason: "why", Caller: "who"}
	if lifted {
		r.LiftedAt = time.Unix(1, 0)
	}
	f.rows = append(f.rows, r)
}

func (f *fakeStore) set(how func(*fakeStore)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f)
}

func (f *fakeStore) FeedHeads(context.Context) (map[uuid.UUID]store.FeedPosition, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return map[uuid.UUID]store.FeedPosition{keyset: f.head}, f.down
}

func (f *fakeStore) RevocationFeed(_ context.Context, _ uuid.UUID, from store.FeedPosition, limit int) (store.FeedPage, error) {
	f.set(func(f *fakeStore) { f.read++; f.reading++; f.most = max(f.most, f.reading) })
	time.Sleep(f.slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading--
	p := store.FeedPage{Epoch: f.head.Epoch, Seq: f.head.Seq, Reset: from.Epoch != f.head.Epoch || from.Seq > f.head.Seq}
	if p.Reset {
		from.Seq = 0
	}
	for _, r := range f.rows {
		if r.Seq <= from.Seq {
			continue
		}
		if len(p.Entries) == limit {
			p.More, p.Seq = true, p.Entries[limit-1].Seq
			break
		}
		p.Entries = append(p.Entries, r)
	}
	return p, f.down
}

// run runs a follower in the background of a bubble and waits for its first look.
func run(t *testing.T, f feed.Store, o feed.Options) *feed.Follower {
	t.Helper()
	fw := feed.New(f, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- fw.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return fw
}

// reader is what a reader of a feed knows.
type reader struct {
	at      store.FeedPosition
	revoked map[string]bool
}

// apply takes a page in, and fails if it steps back.
func (r *reader) apply(t *testing.T, p store.FeedPage) {
	t.Helper()
	if p.Reset || r.revoked == nil {
		r.revoked = map[string]bool{}
	}
	if !p.Reset && (p.Epoch != r.at.Epoch || p.Seq < r.at.Seq) {
		t.Errorf("from %v to %v", r.at, p)
	}
	seen := map[string]bool{}
	for _, e := range p.Entries {
		if seen[e.JTI] {
			t.Errorf("%s is in a page twice", e.JTI)
		}
		seen[e.JTI] = true
		if e.LiftedAt.IsZero() {
			r.revoked[e.JTI] = true
		} else {
			delete(r.revoked, e.JTI)
		}
	}
	r.at = store.FeedPosition{Epoch: p.Epoch, Seq: p.Seq}
}

// catchUp reads until there is nothing more.
func (r *reader) catchUp(t *testing.T, fw *feed.Follower, limit int) {
	t.Helper()
	for {
		p, err := fw.Read(t.Context(), keyset, r.at, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Entries) > limit {
			t.Fatalf("%d entries, asked for %d", len(p.Entries), limit)
		}
		if !p.Reset && p.Seq == r.at.Seq && p.Epoch == r.at.Epoch {
			return
		}
		r.apply(t, p)
	}
}

// same compares what a reader knows with what the database has.
func (r *reader) same(t *testing.T, f *fakeStore) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	want := map[string]bool{}
	for _, row := range f.rows {
		if row.LiftedAt.IsZero() {
			want[row.JTI] = true
		}
	}
	if len(want) != len(r.revoked) || r.at != f.head {
		t.Errorf("%d revoked at %v, the database has %d at %v", len(r.revoked), r.at, len(want), f.head)
	}
	for jti := range want {
		if !r.revoked[jti] {
			t.Errorf("%s was missed", jti)
		}
	}
}

func TestReadersAtTheEndCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		fw := run(t, f, feed.Options{})
		readers := make([]reader, 1000)
		for i := range readers {
			readers[i].catchUp(t, fw, 100)
		}
		synctest.Wait()
		before := f.read
		var wg sync.WaitGroup
		for i := range readers {
			changed := fw.Changed(keyset)
			wg.Go(func() {
				<-changed
				readers[i].catchUp(t, fw, 100)
			})
		}
		f.put("a", false)
		fw.Wake()
		wg.Wait()
		if f.read != before+1 {
			t.Errorf("%d reads for one revocation", f.read-before)
		}
		for i := range readers {
			readers[i].same(t, f)
		}
	})
}

func TestTheTimerFindsWhatNobodyAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		fw := run(t, f, feed.Options{Interval: time.Second})
		changed := fw.Changed(keyset)
		f.put("a", false)
		start := time.Now()
		<-changed
		if took := time.Since(start); took > time.Second {
			t.Errorf("after %s", took)
		}
		var r reader
		r.catchUp(t, fw, 10)
		r.same(t, f)
	})
}

func TestLiftedInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		fw := run(t, f, feed.Options{})
		var r reader
		r.catchUp(t, fw, 10)
		for _, lifted := range []bool{false, true, false, true} {
			f.put("a", lifted)
			fw.Wake()
			synctest.Wait()
		}
		f.put("b", false)
		fw.Wake()
		synctest.Wait()
		before := f.read
		r.catchUp(t, fw, 1)
		r.same(t, f)
		if f.read != before {
			t.Error("the database was read")
		}
	})
}

func TestFarBehindReadsTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put("before", false)
		fw := run(t, f, feed.Options{Depth: 8, Readers: 2})
		var early reader
		early.catchUp(t, fw, 3)
		for i := range 30 {
			f.put(fmt.Sprint(i), false)
			fw.Wake()
			synctest.Wait()
		}
		f.set(func(f *fakeStore) { f.slow, f.most = time.Millisecond, 0 })
		var wg sync.WaitGroup
		for range 20 {
			r := reader{at: early.at, revoked: map[string]bool{"before": true}}
			wg.Go(func() {
				r.catchUp(t, fw, 3)
				r.same(t, f)
			})
		}
		wg.Wait()
		if f.most != 2 {
			t.Errorf("%d read the database at once, want 2", f.most)
		}
	})
}

// A jump that is too far for memory is left to the readers.
func TestJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		fw := run(t, f, feed.Options{Depth: 10})
		var r reader
		r.catchUp(t, fw, 10)
		for i := range 5000 {
			f.put(fmt.Sprint(i), false)
		}
		changed := fw.Changed(keyset)
		before := f.read
		fw.Wake()
		<-changed
		if f.read != before {
			t.Error("the follower read them")
		}
		r.catchUp(t, fw, 1000)
		r.same(t, f)
	})
}

func TestNewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put("lost", false)
		f.put("kept", false)
		fw := run(t, f, feed.Options{})
		var r reader
		r.catchUp(t, fw, 10)
		changed := fw.Changed(keyset)
		f.set(func(f *fakeStore) {
			f.head = store.FeedPosition{Epoch: uuid.New(), Seq: 1}
			f.rows = f.rows[1:]
			f.rows[0].Seq = 1
		})
		<-changed
		r.catchUp(t, fw, 10)
		r.same(t, f)
		if len(r.revoked) != 1 || !r.revoked["kept"] {
			t.Errorf("%v", r.revoked)
		}
	})
}

// A position that nobody gave out is the database's to judge, or its reader would
// wait for ever.
func TestBeyondTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put("a", false)
		fw := run(t, f, feed.Options{})
		p, err := fw.Read(t.Context(), keyset, store.FeedPosition{Epoch: f.head.Epoch, Seq: 99}, 10)
		if err != nil || !p.Reset || len(p.Entries) != 1 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		fw := run(t, f, feed.Options{})
		var r reader
		r.catchUp(t, fw, 10)
		f.set(func(f *fakeStore) { f.down = store.ErrUnavailable })
		time.Sleep(time.Minute)
		if age := fw.Age(); age < 59*time.Second {
			t.Errorf("age %s after a minute without the database", age)
		}
		f.put("a", false)
		r.catchUp(t, fw, 10) // from memory, which knows nothing of it
		if len(r.revoked) != 0 {
			t.Error("revoked")
		}
		changed := fw.Changed(keyset)
		f.set(func(f *fakeStore) { f.down = nil })
		<-changed
		r.catchUp(t, fw, 10)
		r.same(t, f)
		time.Sleep(10 * time.Second)
		if age := fw.Age(); age > time.Second {
			t.Errorf("age %s", age)
		}
	})
}

func TestWaitingForASlotEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.slow = time.Hour
		fw := feed.New(f, feed.Options{Readers: 1})
		go func() { _, _ = fw.ReadStore(t.Context(), keyset, store.FeedPosition{}, 1) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := fw.ReadStore(ctx, keyset, store.FeedPosition{}, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
	})
}

// A database that was put back without a new epoch has a shorter feed. Whoever is
// beyond it is told so, and what follows is missed by nobody.
func TestFeedGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		fw := run(t, f, feed.Options{})
		var r reader
		for _, jti := range []string{"a", "b", "c"} {
			f.put(jti, false)
		}
		time.Sleep(2 * time.Second)
		r.catchUp(t, fw, 10)
		f.set(func(f *fakeStore) { f.head.Seq, f.rows = 1, f.rows[:1] })
		time.Sleep(2 * time.Second)
		r.catchUp(t, fw, 10)
		r.same(t, f)
		for _, jti := range []string{"d", "e", "f"} {
			f.put(jti, false)
		}
		time.Sleep(2 * time.Second)
		r.catchUp(t, fw, 10)
		r.same(t, f)
	})
}

func TestSearchesHaveTurnsOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fw := feed.New(newFake(), feed.Options{Readers: 1, Searchers: 1})
		reads, err := fw.Turn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer reads()
		leave, err := fw.SearchTurn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := fw.SearchTurn(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		leave()
		if leave, err = fw.SearchTurn(t.Context()); err != nil {
			t.Fatal(err)
		}
		leave()
	})
}

// Writers and readers at random: nobody misses anything, whatever the sizes.
func TestNothingIsMissed(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			fw := run(t, f, feed.Options{Depth: 1 + rand.IntN(30)})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			readers := make([]reader, 8)
			for i := range readers {
				wg.Go(func() {
					for ctx.Err() == nil {
						changed := fw.Changed(keyset)
						readers[i].catchUp(t, fw, 1+rand.IntN(10))
						select {
						case <-changed:
						case <-ctx.Done():
						}
						time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
					}
				})
			}
			for range 300 {
				f.put(fmt.Sprint(rand.IntN(40)), rand.IntN(3) == 0)
				if rand.IntN(2) == 0 {
					fw.Wake()
				}
				time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			}
			time.Sleep(5 * time.Second)
			cancel()
			wg.Wait()
			for i := range readers {
				readers[i].same(t, f)
			}
		})
	}
}
