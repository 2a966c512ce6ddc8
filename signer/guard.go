package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Guard stands in front of a backend. It measures every call, and while the
// backend is known to be down it answers at once instead of having every caller
// wait for a deadline: after a few calls in a row that found it unavailable, one
// call at a time is let through to see whether it is back, and all others fail. It
// is safe for concurrent use and starts no goroutine.
//
// Only failures with the code Unavailable count, and so does a call whose deadline
// passed, unless it was so near that this says nothing: callers choose it. Whatever
// else a backend answers shows that it is there.
type Guard struct {
	Backend
	opts GuardOptions

	mu       sync.Mutex
	failures int       // in a row
	since    time.Time // when the first of them began
	last     error     // what the latest of them said
	next     time.Time // while it is down: when the next call is let through
	left     int       // calls in a row whose callers had no time to wait for an answer
	pause    time.Duration
}

// hasty is how long a call has to have waited for its deadline to count.
const hasty = 500 * time.Millisecond

// doubt is how many calls in a row have to come to nothing before somebody with time
// should ask.
const doubt = 5

// GuardOptions shape a [Guard].
type GuardOptions struct {
	// Failures is how many calls in a row find the backend unavailable before it is
	// taken for down; 3.
	Failures int
	// Pause is how long after that the first call is let through; 100 ms. It
	// doubles with each that fails, up to MaxPause; 1 s.
	Pause, MaxPause time.Duration
	// Observe is told of every call that was made: which, how long it took and
	// what came of it. Nil measures nothing. Refused is told of calls that were
	// not made because the backend is down.
	Observe func(op string, took time.Duration, err error)
	Refused func(op string)
	// Changed is told when the backend is taken for down, with what Down says, and
	// when it is there again, with nil. Nil tells nobody.
	Changed func(down error)
	// Now is the clock; time.Now.
	Now func() time.Time
}

// downError is what calls fail with that are not let through.
type downError struct {
	since time.Time
	last  error
}

func (e *downError) Error() string {
	return fmt.Sprintf("not asked: it has been down since %s; the last attempt said: %v", e.since.UTC().Format(time.RFC3339), e.last)
}

// NewGuard returns b behind a guard. The name is for b's errors only in what
// Observe makes of them.
func NewGuard(b Backend, opts GuardOptions) *Guard {
	if opts.Failures == 0 {
		opts.Failures = 3
	}
	if opts.Pause == 0 {
		opts.Pause = 100 * time.Millisecond
	}
	if opts.MaxPause == 0 {
		opts.MaxPause = time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Guard{Backend: b, opts: opts}
}

// Down returns nil if the backend is taken to be there, and otherwise since when
// it is not and what it last said, in words without secrets.
func (g *Guard) Down() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures < g.opts.Failures {
		return nil
	}
	return &downError{g.since, g.last}
}

// Refusing returns what a signature that was asked for now would fail with at once,
// because the backend is down and it is nobody's turn to see whether it is back;
// nil if one would be let through.
func (g *Guard) Refusing() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pausing(g.opts.Now())
}

// Doubtful says whether nothing has come of the last calls because their callers had
// no time. That says nothing of the backend, and somebody with time should ask it.
func (g *Guard) Doubtful() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left >= doubt
}

// Code implements [Backend].
func (g *Guard) Code(err error) Code {
	if _, ok := errors.AsType[*downError](err); ok {
		return Unavailable
	}
	return g.Backend.Code(err)
}

// Create implements [Backend]. Acts of operators and of key makers, which keep a
// schedule of their own, are always let through.
func (g *Guard) Create(ctx context.Context, spec Spec) (ref Ref, err error) {
	err = g.watch(ctx, "create", func() (err error) { ref, err = g.Backend.Create(ctx, spec); return err })
	return ref, err
}

// Find implements [Backend].
func (g *Guard) Find(ctx context.Context, spec Spec) (refs []Ref, err error) {
	err = g.watch(ctx, "find", func() (err error) { refs, err = g.Backend.Find(ctx, spec); return err })
	return refs, err
}

// List implements [Backend].
func (g *Guard) List(ctx context.Context, each func(Labelled) error) error {
	return g.watch(ctx, "list", func() error { return g.Backend.List(ctx, each) })
}

// Destroy implements [Backend].
func (g *Guard) Destroy(ctx context.Context, spec Spec, ref Ref) error {
	return g.watch(ctx, "destroy", func() error { return g.Backend.Destroy(ctx, spec, ref) })
}

// Open implements [Backend].
func (g *Guard) Open(ctx context.Context, spec Spec, ref Ref) (Handle, error) {
	var h Handle
	err := g.watch(ctx, "open", func() (err error) { h, err = g.Backend.Open(ctx, spec, ref); return err })
	if err != nil {
		return nil, err
	}
	if b, ok := h.(BatchHandle); ok {
		return &guardedBatch{guardedHandle{g, h}, b}, nil
	}
	return &guardedHandle{g, h}, nil
}

// guardedHandle is a handle whose signatures are guarded.
type guardedHandle struct {
	g *Guard
	h Handle
}

func (h *guardedHandle) Public(ctx context.Context) (key crypto.PublicKey, err error) {
	err = h.g.watch(ctx, "public", func() (err error) { key, err = h.h.Public(ctx); return err })
	return key, err
}

func (h *guardedHandle) Sign(ctx context.Context, alg Algorithm, in []byte) (sig []byte, err error) {
	err = h.g.guard(ctx, "sign", func() (err error) { sig, err = h.h.Sign(ctx, alg, in); return err })
	return sig, err
}

// guardedBatch is a handle that signs many at once.
type guardedBatch struct {
	guardedHandle
	b BatchHandle
}

func (h *guardedBatch) SignBatch(ctx context.Context, alg Algorithm, ins [][]byte) (sigs [][]byte, errs []error) {
	asked := false
	err := h.g.guard(ctx, "sign_batch", func() error {
		asked = true
		sigs, errs = h.b.SignBatch(ctx, alg, ins)
		return common(errs)
	})
	if !asked {
		return make([][]byte, len(ins)), slices.Repeat([]error{err}, len(ins))
	}
	return sigs, errs
}

// common returns an error if all failed: then it is the backend's and not that of
// an input.
func common(errs []error) error {
	if len(errs) == 0 || slices.Contains(errs, nil) {
		return nil
	}
	return errs[0]
}

// guard makes a call unless the backend is known to be down.
func (g *Guard) guard(ctx context.Context, op string, call func() error) error {
	if err := g.admit(); err != nil {
		if g.opts.Refused != nil {
			g.opts.Refused(op)
		}
		return err
	}
	return g.watch(ctx, op, call)
}

// admit lets a call through, or says why not. Of those that come while the backend
// is down one is let through at a time: the next one's time is set before it
// returns, so that a call that hangs holds up nobody.
func (g *Guard) admit() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.opts.Now()
	if err := g.pausing(now); err != nil || g.failures < g.opts.Failures {
		return err
	}
	g.pause = min(2*g.pause, g.opts.MaxPause)
	g.next = now.Add(g.pause)
	return nil
}

// pausing returns an error while the backend is down and not to be asked.
func (g *Guard) pausing(now time.Time) error {
	if g.failures < g.opts.Failures {
		return nil
	}
	if wait := g.next.Sub(now); wait > 0 && wait <= g.opts.MaxPause { // a clock set back lets one through
		return &downError{g.since, g.last}
	}
	return nil
}

// watch makes a call and learns from it.
func (g *Guard) watch(ctx context.Context, op string, call func() error) error {
	began := g.opts.Now()
	err := call()
	if g.opts.Observe != nil {
		g.opts.Observe(op, g.opts.Now().Sub(began), err)
	}
	if op != "open" || err != nil { // some backends open keys without a call
		g.learn(ctx, began, err)
	}
	return err
}

func (g *Guard) learn(ctx context.Context, began time.Time, err error) {
	if end := ctx.Err(); errors.Is(end, context.Canceled) || end != nil && err != nil && g.opts.Now().Sub(began) < hasty {
		g.mu.Lock()
		g.left++
		g.mu.Unlock()
		return // the caller left: it says nothing of the backend
	}
	code := Unknown
	if err != nil {
		code = g.Backend.Code(err)
	}
	// A driver that says Throttled has let the call wait, and knows better.
	unavailable := code == Unavailable || code != Throttled && errors.Is(err, context.DeadlineExceeded)
	g.mu.Lock()
	was := g.failures >= g.opts.Failures
	g.count(unavailable, began, err)
	is := g.failures >= g.opts.Failures
	down := error(nil)
	if is {
		down = &downError{g.since, g.last}
	}
	g.mu.Unlock()
	if was != is && g.opts.Changed != nil {
		g.opts.Changed(down)
	}
}

func (g *Guard) count(unavailable bool, began time.Time, err error) {
	g.left = 0
	if !unavailable {
		g.failures, g.last = 0, nil
		return
	}
	if g.failures == 0 {
		g.since = began
	}
	if g.failures++; g.failures == g.opts.Failures {
		g.pause = g.opts.Pause
		g.next = g.opts.Now().Add(g.pause)
	}
	g.last = err
}
