//go:build cgo

package pkcs11

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/eclipse-keypont/crypto11"

	"github.com/zonemint/zonemint/signer"
)

// token is a token of a module that backends use. It outlives the links.
type token struct {
	owner      *owner
	id         tokenID
	pin        string
	algorithms []signer.Algorithm
	slots      chan struct{} // one for each session that can be used

	waiting  atomic.Int64
	timedOut atomic.Uint64
	left     atomic.Uint64
}

// call is how a call into a module is made.
type call struct {
	wait   time.Duration // for a session
	limit  time.Duration // after which the module counts as hung
	change bool          // it takes its turn among those that change the module
}

// connection is what a call works with. It is good for that call only.
type connection struct {
	owner *owner
	link  *link
	ctx   *crypto11.Context
}

// with runs do, which calls the module, and returns what it returns, or an error
// as soon as ctx ends or the module is down. do may then go on, so it must touch
// nothing that its caller goes on using.
func with[T any](ctx context.Context, t *token, c call, do func(connection) (T, error)) (T, error) {
	var none T
	l := t.owner.current()
	release, err := t.admit(ctx, l, c)
	if err != nil {
		return none, err
	}
	crypto, err := l.enter(t)
	if err != nil {
		release()
		return none, err
	}
	if crypto == nil { // the token has been left out
		l.calls.Done()
		release()
		return none, cmp.Or(t.owner.module.denial(t.id), error(errClosed))
	}
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		hung := time.AfterFunc(c.limit, func() {
			t.owner.broke(l, failf(signer.Unavailable, "a call has not returned for %v", c.limit))
		})
		value, err := do(connection{t.owner, l, crypto})
		t.owner.judge(l, crypto, err)
		hung.Stop()
		release()
		l.calls.Done()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-l.broken:
		err = l.cause()
	}
	select {
	case o := <-done: // at the same moment
		return o.value, o.err
	default:
		t.left.Add(1)
		return none, err
	}
}

// admit waits for a session, and for its turn if the call changes something. The
// function that it returns gives both back.
func (t *token) admit(ctx context.Context, l *link, c call) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.cause(); err != nil {
		return nil, err // without a wait
	}
	timer := time.NewTimer(c.wait)
	defer timer.Stop()
	if c.change {
		if err := t.take(ctx, l, timer, t.owner.changes); err != nil {
			return nil, err
		}
	}
	if err := t.take(ctx, l, timer, t.slots); err != nil {
		if c.change {
			<-t.owner.changes
		}
		return nil, err
	}
	return func() {
		<-t.slots
		if c.change {
			<-t.owner.changes
		}
	}, nil
}

func (t *token) take(ctx context.Context, l *link, timer *time.Timer, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	t.waiting.Add(1)
	defer t.waiting.Add(-1)
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.broken:
		return l.cause()
	case <-timer.C:
		t.timedOut.Add(1)
		return failf(signer.Throttled, "all sessions of the PKCS#11 token %s are in use, or a change is under way", t.id)
	}
}

func (t *token) stats() TokenStats {
	return TokenStats{
		Token: cmp.Or(t.id.label, t.id.serial), Sessions: cap(t.slots), InUse: len(t.slots),
		Waiting: int(t.waiting.Load()), TimedOut: t.timedOut.Load(), Left: t.left.Load(),
		Denied: t.owner.module.denial(t.id) != nil,
	}
}
