package caller

import (
	"sync"

	"github.com/google/uuid"
)

// lasting counts what callers have going on at the same time. The zero value has
// counted nothing yet.
type lasting struct {
	mu    sync.Mutex
	count map[lastingKey]int
}

type lastingKey struct {
	token uuid.UUID
	kind  string
}

// Begin counts something of a kind that goes on for a while, until end is called,
// once. It says no if the caller's API token has as many of the kind as it may.
func (a *Authenticator) Begin(who Caller, kind string, most int) (end func(), ok bool) {
	l, key := &a.lasting, lastingKey{who.TokenID(), kind}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count[key] >= most {
		return nil, false
	}
	if l.count == nil {
		l.count = map[lastingKey]int{}
	}
	l.count[key]++
	return func() { l.end(key) }, true
}

func (l *lasting) end(key lastingKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count[key]--; l.count[key] == 0 {
		delete(l.count, key)
	}
}
