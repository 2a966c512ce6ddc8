package sqlite

import (
	"context"
	"slices"
	"sync"

	"github.com/zonemint/zonemint/store"
)

// Watch implements [store.Engine]. This process is all that writes to the
// database, so there is no connection to lose.
func (e *Engine) Watch(ctx context.Context, wake func(store.Topic)) error {
	w := e.watchers.add()
	defer e.watchers.remove(w)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ready:
		}
		for _, topic := range e.watchers.take(w) {
			wake(topic)
		}
	}
}

// watchers are those who wait for changes. It is safe for concurrent use; the
// zero value is ready.
type watchers struct {
	mu  sync.Mutex
	all []*watcher
}

// watcher collects topics until its own goroutine gets to them, so that a commit
// waits for nobody who watches.
type watcher struct {
	due   []store.Topic // without repetition; guarded by watchers.mu
	ready chan struct{} // has room for one
}

// add returns a watcher for whom all topics are due.
func (ws *watchers) add() *watcher {
	w := &watcher{ready: make(chan struct{}, 1)}
	w.tell(store.Topics())
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.all = append(ws.all, w)
	return w
}

func (ws *watchers) remove(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.all = slices.DeleteFunc(ws.all, func(other *watcher) bool { return other == w })
}

// tell makes topics due for everybody.
func (ws *watchers) tell(topics []store.Topic) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.all {
		w.tell(topics)
	}
}

func (w *watcher) tell(topics []store.Topic) {
	for _, topic := range topics {
		if !slices.Contains(w.due, topic) {
			w.due = append(w.due, topic)
		}
	}
	if len(w.due) == 0 {
		return
	}
	select {
	case w.ready <- struct{}{}:
	default: // it will find these beside the ones before
	}
}

// take returns what is due for a watcher, who is done with it then.
func (ws *watchers) take(w *watcher) []store.Topic {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	due := w.due
	w.due = nil
	return due
}
