// Package feed lets any number of readers follow the revocation feeds of the
// database at about the cost of one. One follower per replica asks where the
// feeds stand, reads what is new, and keeps the end of each feed in memory.
// Readers who are near the end are served from there; those who are far behind
// read the database, a few at a time.
package feed

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

// Store is where feeds come from; [store.DB] is one.
type Store interface {
	FeedHeads(ctx context.Context) (map[uuid.UUID]store.FeedPosition, error)
	RevocationFeed(ctx context.Context, keyset uuid.UUID, from store.FeedPosition, limit int) (store.FeedPage, error)
}

// Options of a Follower. What is zero has a default.
type Options struct {
	// Interval is how often the database is asked without a wake; 1s.
	Interval time.Duration
	// Depth is how many entries of each feed are kept in memory; 10,000.
	Depth int
	// Readers is how many may read the database at the same time; 4.
	Readers int
	// Searchers is how many may search it at the same time, beside the readers; 2.
	Searchers int
	// Now is the clock, read for differences only; time.Now.
	Now func() time.Time
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.Depth == 0 {
		o.Depth = 10000
	}
	if o.Readers == 0 {
		o.Readers = 4
	}
	if o.Searchers == 0 {
		o.Searchers = 2
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

const (
	// askTimeout bounds one question to the database.
	askTimeout = 10 * time.Second
	// followPage is how many entries the follower reads at once.
	followPage = 1000
)

// Follower follows all feeds. Run must be running for it to notice anything. It
// is safe for concurrent use.
type Follower struct {
	store    Store
	opts     Options
	woken    chan struct{}
	slots    chan struct{} // taken by those who read the database
	searches chan struct{} // taken by those who search it

	mu    sync.RWMutex
	tails map[uuid.UUID]*tail
	heard time.Time
}

// New returns a follower that has heard nothing yet.
func New(s Store, opts Options) *Follower {
	opts = opts.withDefaults()
	return &Follower{
		store: s, opts: opts, woken: make(chan struct{}, 1), slots: make(chan struct{}, opts.Readers),
		searches: make(chan struct{}, opts.Searchers), tails: map[uuid.UUID]*tail{},
	}
}

// Wake makes the follower ask the database soon. It does not block.
func (f *Follower) Wake() {
	select {
	case f.woken <- struct{}{}:
	default: // it is about to ask anyway
	}
}

// Run follows the feeds until ctx ends, and returns its error. While the
// database is away it goes on trying.
func (f *Follower) Run(ctx context.Context) error {
	tick := time.NewTicker(f.opts.Interval)
	defer tick.Stop()
	for down := false; ; {
		err := f.look(ctx)
		if was := down; was != (err != nil) && ctx.Err() == nil {
			down = err != nil
			f.logTouch(ctx, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.woken:
		case <-tick.C:
		}
	}
}

func (f *Follower) logTouch(ctx context.Context, err error) {
	if err != nil {
		f.opts.Log.ErrorContext(ctx, "revocation feeds cannot be followed", slog.Any("error", err))
		return
	}
	f.opts.Log.InfoContext(ctx, "revocation feeds are followed again")
}

// look asks where the feeds stand and reads those that have moved.
func (f *Follower) look(ctx context.Context) error {
	began := f.opts.Now()
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	heads, err := f.store.FeedHeads(ask)
	cancel()
	if err != nil {
		return fmt.Errorf("asking for the heads of the revocation feeds: %w", err)
	}
	for keyset, head := range heads {
		if err := f.follow(ctx, keyset, head); err != nil {
			return fmt.Errorf("following the revocation feed of keyset %s: %w", keyset, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = began
	return nil
}

// follow brings a tail up to the head, or starts it over there if that is too far
// away or the feed is another one. A feed that has gone back is another one too,
// though it has the same epoch: its database was put back without anybody noticing.
func (f *Follower) follow(ctx context.Context, keyset uuid.UUID, head store.FeedPosition) error {
	at := f.Head(keyset)
	if at.Epoch != head.Epoch || head.Seq < at.Seq || head.Seq-at.Seq > int64(f.opts.Depth) {
		f.change(keyset, func(t *tail) { t.restart(head) })
		return nil
	}
	for more := at.Seq < head.Seq; more; {
		page, err := f.ask(ctx, keyset, at, followPage)
		if err != nil {
			return err
		}
		if page.Reset || page.Epoch != at.Epoch {
			f.change(keyset, func(t *tail) { t.restart(head) })
			return nil // the next look sees the other epoch
		}
		f.change(keyset, func(t *tail) { t.extend(page, f.opts.Depth) })
		more = page.More && page.Seq > at.Seq
		at.Seq = page.Seq
	}
	return nil
}

func (f *Follower) ask(ctx context.Context, keyset uuid.UUID, from store.FeedPosition, limit int) (store.FeedPage, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return f.store.RevocationFeed(ctx, keyset, from, limit)
}

// Head returns where a feed stood when it was last looked at, the zero position if
// nothing is known of it.
func (f *Follower) Head(keyset uuid.UUID) store.FeedPosition {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if t := f.tails[keyset]; t != nil {
		return t.head
	}
	return store.FeedPosition{}
}

// change changes a tail and wakes its readers.
func (f *Follower) change(keyset uuid.UUID, how func(*tail)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tail(keyset)
	how(t)
	close(t.changed)
	t.changed = make(chan struct{})
}

// tail returns the tail of a keyset, an empty one if nothing is known of it yet.
// The lock is held.
func (f *Follower) tail(keyset uuid.UUID) *tail {
	t := f.tails[keyset]
	if t == nil {
		t = &tail{changed: make(chan struct{})}
		f.tails[keyset] = t
	}
	return t
}

// Changed returns a channel that is closed when the feed of a keyset has moved.
// Who takes it before reading misses nothing.
func (f *Follower) Changed(keyset uuid.UUID) <-chan struct{} {
	f.mu.RLock()
	t := f.tails[keyset]
	if t != nil {
		defer f.mu.RUnlock()
		return t.changed
	}
	f.mu.RUnlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tail(keyset).changed
}

// Read returns what follows a position, as far as this replica knows: at most
// limit entries. It never says that a reader has seen more than it has.
func (f *Follower) Read(ctx context.Context, keyset uuid.UUID, from store.FeedPosition, limit int) (store.FeedPage, error) {
	f.mu.RLock()
	t := f.tails[keyset]
	if t != nil && t.reaches(from) {
		defer f.mu.RUnlock()
		return t.page(from, limit), nil
	}
	f.mu.RUnlock()
	return f.ReadStore(ctx, keyset, from, limit)
}

// ReadStore returns what follows a position as the database has it now. It may
// have to wait for others who read the database.
func (f *Follower) ReadStore(ctx context.Context, keyset uuid.UUID, from store.FeedPosition, limit int) (store.FeedPage, error) {
	leave, err := f.Turn(ctx)
	if err != nil {
		return store.FeedPage{}, err
	}
	defer leave()
	return f.ask(ctx, keyset, from, limit)
}

// Turn waits for the turn of somebody who reads revocations from the database in
// another way. Whoever has it ends it with leave.
func (f *Follower) Turn(ctx context.Context) (leave func(), err error) { return take(ctx, f.slots) }

// SearchTurn does the same for those who search tables that grow without end. They
// may take long, and have turns of their own so that no feed waits for them.
func (f *Follower) SearchTurn(ctx context.Context) (leave func(), err error) {
	return take(ctx, f.searches)
}

func take(ctx context.Context, turns chan struct{}) (leave func(), err error) {
	select {
	case turns <- struct{}{}:
		return func() { <-turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Age returns how long ago the database was last known to have nothing newer
// than what is in memory. Before the first time it is very long.
func (f *Follower) Age() time.Duration {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return max(0, f.opts.Now().Sub(f.heard))
}
