package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/zonemint/zonemint/store"
)

// watcher is a Watch whose calls a test reads.
type watcher struct {
	woken chan store.Topic
	done  chan error
	end   context.CancelFunc
}

// watch watches db, and returns when it has connected.
func watch(t *testing.T, db *store.DB) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{woken: make(chan store.Topic, 1000), done: make(chan error, 1), end: cancel}
	go func() { w.done <- db.Watch(ctx, func(topic store.Topic) { w.woken <- topic }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-w.done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch returned %v, want its context's error", err)
			}
		case <-time.After(patience):
			t.Error("Watch goes on after its context has ended")
		}
	})
	w.all(t)
	return w
}

// want waits for a topic, before which no other may come.
func (w *watcher) want(t *testing.T, want store.Topic) {
	t.Helper()
	select {
	case got := <-w.woken:
		if got != want {
			t.Fatalf("woken for %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("not woken for %q in %s", want, patience)
	}
}

// all waits until every topic has come.
func (w *watcher) all(t *testing.T) {
	t.Helper()
	missing := store.Topics()
	for len(missing) > 0 {
		select {
		case got := <-w.woken:
			missing = slices.DeleteFunc(missing, func(topic store.Topic) bool { return topic == got })
		case <-time.After(patience):
			t.Fatalf("not woken for %v in %s", missing, patience)
		}
	}
}

func (w *watcher) quiet(t *testing.T, what string) {
	t.Helper()
	select {
	case got := <-w.woken:
		t.Errorf("woken for %q %s", got, what)
	case <-time.After(100 * time.Millisecond):
	}
}

// notify runs fn in a transaction that notifies of a topic.
func (w *world) notify(t *testing.T, topic store.Topic, fn func() error) error {
	t.Helper()
	return w.Engine.Update(t.Context(), func(tx store.Tx) error {
		if err := tx.Notify(t.Context(), topic); err != nil {
			return err
		}
		return fn()
	})
}

func nothing() error { return nil }

func testWatch(t *testing.T, h Harness) {
	w := newWorld(t, h)
	seen := watch(t, w.db)
	noErr(t, w.notify(t, store.TopicRevocations, func() error {
		seen.quiet(t, "before the commit")
		return nil
	}))
	seen.want(t, store.TopicRevocations)

	sentinel := errors.New("changed my mind")
	wantErr(t, w.notify(t, store.TopicRing, func() error { return sentinel }), sentinel)
	seen.quiet(t, "after a rollback")
	if w.Second != nil { // another process may be of a later version
		noErr(t, w.notify(t, "of-a-later-version", nothing))
	}
	noErr(t, w.notify(t, store.TopicRevocations, nothing))
	seen.want(t, store.TopicRevocations)
}

func testWatchChanges(t *testing.T, h Harness) {
	w := newWorld(t, h)
	dbs := w.replicas(t, 2)
	here, there := watch(t, dbs[0]), watch(t, dbs[1])
	both := func(what string) {
		t.Helper()
		here.want(t, store.TopicRing)
		there.want(t, store.TopicRing)
		here.quiet(t, "twice, "+what)
	}
	_, keys := w.keyset(t, "zone", store.RolePrimary)
	both("a keyset was made")
	k := w.publish(t, keys[0])
	both("a key was published")
	w.activate(t, k)
	both("a key was activated")
}

// testWatchSlow has a watcher that does not get on: no commit waits for it, and
// once it does, it hears of the last change.
func testWatchSlow(t *testing.T, h Harness) {
	w := newWorld(t, h)
	asleep, heard := make(chan struct{}), make(chan store.Topic, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- w.db.Watch(ctx, func(topic store.Topic) {
			<-asleep
			heard <- topic
		})
	}()
	for range 50 {
		noErr(t, w.notify(t, store.TopicRing, nothing))
	}
	close(asleep)
	for topic := range heard {
		if topic == store.TopicRing {
			break
		}
	}
	cancel()
	wantErr(t, <-done, context.Canceled)
}

// testWatchCut cuts the connection of a watcher, again and again.
func testWatchCut(t *testing.T, h Harness) {
	w := newWorld(t, h)
	if w.Cut == "" {
		t.Skip("this engine's watchers have no connection to lose")
	}
	seen := watch(t, w.db)
	for round := range 3 {
		// The one that was cut off before may still be on its way out.
		if n := w.count(t, "("+w.Cut+") AS cut"); n < 1 || n > 1+round {
			t.Fatalf("%d watchers were cut off, want 1", n)
		}
		seen.all(t)
	}
	noErr(t, w.notify(t, store.TopicRing, nothing))
	seen.want(t, store.TopicRing)
}
