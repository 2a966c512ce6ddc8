//go:build cgo

package pkcs11

import (
	"sync"

	"github.com/eclipse-keypont/crypto11"
)

// link is a module from the time it was connected to until it breaks. All that
// the module hands out, sessions and object handles, is good for one link only.
type link struct {
	broken chan struct{} // closed when it breaks

	mu       sync.Mutex
	err      error          // why it broke
	calls    sync.WaitGroup // those under way
	contexts map[*token]*crypto11.Context
}

func newLink() *link {
	return &link{broken: make(chan struct{}), contexts: map[*token]*crypto11.Context{}}
}

// enter begins a call, which ends with l.calls.Done. The context is nil if the
// link has none for t.
func (l *link) enter(t *token) (*crypto11.Context, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	l.calls.Add(1)
	return l.contexts[t], nil
}

// add makes t usable through the link. The caller is within a call.
func (l *link) add(t *token, ctx *crypto11.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.contexts[t] = ctx
}

// fail breaks the link. It says whether this is what broke it.
func (l *link) fail(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.err = err
	close(l.broken)
	return true
}

// blame replaces the reason of a link that is broken already.
func (l *link) blame(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// cause returns why the link broke, nil if it did not.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// close lets go of the module, once the last call has returned from it. The link
// must be broken, so that no call begins meanwhile.
func (l *link) close() {
	l.calls.Wait()
	for _, ctx := range l.contexts {
		_ = ctx.Close() // it has nothing to say that matters now
	}
}
