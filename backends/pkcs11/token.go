//go:build cgo

package pkcs11

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse-keypont/crypto11"

	"github.com/zonemint/zonemint/signer"
)

// token is a token of a module that backends use. It outlives the links.
type token struct {
	owner *owner
	id    tokenID
	pin   string

	mu     sync.Mutex
	slots  chan struct{}      // one for each session that can be used
	seen   *inspected         // nil until it was connected to for the first time
	wanted []signer.Algorithm // by the backends' settings

	waiting  atomic.Int64
	timedOut atomic.Uint64
	left     atomic.Uint64
}

func newToken(o *owner, opts Options, pin string) *token {
	return &token{
		owner: o, id: opts.token(), pin: pin, wanted: slices.Clone(opts.Algorithms),
		slots: make(chan struct{}, opts.MaxSessions-1), // one holds the login
	}
}

// share lets one more backend use t.
func (t *token) share(opts Options, pin string) error {
	if !samePIN(t.pin, pin) {
		return failf(signer.Denied, "the PKCS#11 token %s is in use with another PIN", t.id)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wanted = append(t.wanted, opts.Algorithms...)
	if t.seen == nil && !opts.MayBeAway {
		return failf(signer.Unavailable, "the PKCS#11 token %s has not been there yet", t.id)
	}
	return nil
}

// learn takes in what the first connection shows: before it nobody can know how
// many sessions the token allows and what it can do. No call is under way then.
func (t *token) learn(seen inspected) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen != nil {
		return
	}
	t.seen, t.slots = &seen, make(chan struct{}, seen.sessions-1)
	lacks := slices.DeleteFunc(slices.Clone(t.wanted), func(alg signer.Algorithm) bool { return slices.Contains(seen.algorithms, alg) })
	if len(lacks) > 0 || len(seen.algorithms) == 0 {
		t.owner.log.Error("the PKCS#11 token lacks algorithms: keys of those are refused", slog.String("token", t.id.String()),
			slog.String("lacks", fmt.Sprint(lacks)), slog.String("has", fmt.Sprint(seen.algorithms)))
	}
}

func (t *token) places() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.slots
}

// algorithms returns those that the token has, and whether that is known yet.
func (t *token) algorithms() (has []signer.Algorithm, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		return nil, false
	}
	return t.seen.algorithms, true
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
	slots := t.places()
	if err := t.take(ctx, l, timer, slots); err != nil {
		if c.change {
			<-t.owner.changes
		}
		return nil, err
	}
	return func() {
		<-slots
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
		if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		t.timedOut.Add(1)
		return failf(signer.Throttled, "all sessions of the PKCS#11 token %s are in use: %w", t.id, ctx.Err())
	case <-l.broken:
		return l.cause()
	case <-timer.C:
		t.timedOut.Add(1)
		return failf(signer.Throttled, "all sessions of the PKCS#11 token %s are in use, or a change is under way", t.id)
	}
}

func (t *token) stats() TokenStats {
	slots := t.places()
	return TokenStats{
		Token: cmp.Or(t.id.label, t.id.serial), Sessions: cap(slots), InUse: len(slots),
		Waiting: int(t.waiting.Load()), TimedOut: t.timedOut.Load(), Left: t.left.Load(),
		Denied: t.owner.module.denial(t.id) != nil,
	}
}
