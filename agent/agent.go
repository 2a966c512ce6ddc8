package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// lookEvery is how often to see whether the sink still has the token.
	lookEvery = time.Minute
	// wakeEvery bounds a sleep, since timers stand still while the machine sleeps.
	wakeEvery = time.Minute
	// skewTold is from when on a wrong clock is worth a word.
	skewTold = 5 * time.Second
)

// Options say what an agent does. Source, Sink and Log are required.
type Options struct {
	Source Source
	Sink   Sink
	Log    *slog.Logger

	// After is called when the sink has another token, and once at the start for one that
	// was there: nobody knows whether it was called for that. While it fails it is called
	// again, with pauses, and no other token is asked for on its account.
	After func(ctx context.Context, t Token) error

	// RemoveExpired leaves no token in the sink after it has expired. Without it
	// an expired one stays there until there is another.
	RemoveExpired bool

	// Timeout bounds a call of Issue. 30 seconds if 0.
	Timeout time.Duration

	// Metrics counts what the agent does; nil counts nothing.
	Metrics *Metrics

	// Now is the machine's clock, time.Now if it is nil. It may be wrong.
	Now func() time.Time
}

// Agent keeps a token fresh.
type Agent struct {
	o    Options
	wake chan struct{}

	mu      sync.Mutex
	held    *lease // what the sink has, as far as is known
	missing bool   // it was taken away, and could not be put back yet
}

// New returns an agent. It does nothing until Run or Once is called.
func New(o Options) *Agent {
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Agent{o: o, wake: make(chan struct{}, 1)}
	if o.Metrics != nil {
		o.Metrics.of.Store(a)
	}
	return a
}

// Renew has a new token fetched now. It does not wait, and may be called at any
// time.
func (a *Agent) Renew() {
	select {
	case a.wake <- struct{}{}:
	default: // it has been asked for already
	}
}

// Ready says why there is no valid token in the sink, nil if there is.
func (a *Agent) Ready() error {
	a.mu.Lock()
	held, missing := a.held, a.missing
	a.mu.Unlock()
	switch {
	case held == nil || missing:
		return errors.New("there is no token")
	case held.left(a.now()) <= 0:
		return errors.New("the token has expired")
	default:
		return nil
	}
}

// Run keeps the token fresh until ctx ends. The token stays in the sink. Run or Once
// must be called at most once.
func (a *Agent) Run(ctx context.Context) {
	var w work
	for {
		_ = a.step(ctx, &w) // it is logged, and tried again
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.sleep(&w)):
		case <-a.wake:
			// Now, but whoever asks over and over does not get them by the thousand.
			w.forced, w.fetch = true, retry{at: w.tried.Add(pauseFirst)}
		}
	}
}

// Once puts a token into the sink, unless there is a good one, and calls After.
// It tries again until ctx ends, but not after errors that another try does not mend.
func (a *Agent) Once(ctx context.Context) (Token, error) {
	var w work
	var last error
	for {
		err := a.step(ctx, &w)
		switch {
		case err == nil && a.holding() != nil && !a.wanted(&w) && !w.hookDue:
			return a.holding().Token, nil
		case err != nil && final(err):
			return Token{}, err
		case err != nil && (last == nil || ctx.Err() == nil): // the end of ctx explains nothing
			last = err
		}
		select {
		case <-ctx.Done():
			return Token{}, cmp.Or(last, ctx.Err())
		case <-time.After(a.sleep(&w)):
		}
	}
}

// work is what an agent has under way.
type work struct {
	fetched *lease // issued, and not in the sink yet
	forced  bool   // a new token is wanted although the old one is young
	hookDue bool   // After has to be called for what is in the sink
	told    bool   // that the token has expired
	started bool   // the sink was read once

	tried time.Time // when a token was asked for last; monotonic

	look, fetch, hook, remove retry
}

// retry says when to try something next.
type retry struct {
	at       time.Time // monotonic; zero: at once
	failures int       // in a row
}

func (r *retry) again(after time.Duration) {
	r.failures++
	r.at = time.Now().Add(after)
}

func (r *retry) due() bool { return !time.Now().Before(r.at) }

// now is the time by both clocks.
func (a *Agent) now() moment { return moment{time.Now(), a.o.Now().Round(0)} }

func (a *Agent) holding() *lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

func (a *Agent) hold(l *lease) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held, a.missing = l, false
}

func (a *Agent) miss() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.missing = true
}

// step does what is due, and returns what failed.
func (a *Agent) step(ctx context.Context, w *work) error {
	var err error
	if w.look.due() || a.due(w) {
		err = a.look(ctx, w)
	}
	if err == nil && a.due(w) {
		err = a.renew(ctx, w)
	}
	a.tellExpiry(ctx, w)
	return errors.Join(err, a.removeExpired(ctx, w), a.callHook(ctx, w))
}

// wanted says whether a token has to be fetched, or written.
func (a *Agent) wanted(w *work) bool {
	held := a.holding()
	return w.forced || w.fetched != nil || held == nil || held.untilRenewal(a.now()) <= 0
}

// due says whether that is to be tried now.
func (a *Agent) due(w *work) bool { return w.fetch.due() && a.wanted(w) }

// sleep returns how long nothing is due.
func (a *Agent) sleep(w *work) time.Duration {
	now, held := a.now(), a.holding()
	until := func(r retry) time.Duration { return r.at.Sub(now.mono) }
	d := min(wakeEvery, until(w.look))
	if a.wanted(w) {
		d = min(d, until(w.fetch))
	} else {
		d = min(d, max(held.untilRenewal(now), until(w.fetch)))
	}
	if held != nil && !w.told {
		d = min(d, held.left(now))
	}
	if held != nil && a.o.RemoveExpired {
		d = min(d, max(held.leftForSure(now), until(w.remove)))
	}
	if w.hookDue {
		d = min(d, until(w.hook))
	}
	return max(d, 0)
}

// tellExpiry reports a token that has expired, once.
func (a *Agent) tellExpiry(ctx context.Context, w *work) {
	if held := a.holding(); held != nil && !w.told && held.left(a.now()) <= 0 {
		w.told = true
		a.o.Log.LogAttrs(ctx, slog.LevelError, "the token has expired, and there is no other one", slog.Any("token", held.Token))
	}
}

// removeExpired takes a token away that has expired, if that is wanted.
func (a *Agent) removeExpired(ctx context.Context, w *work) error {
	held := a.holding()
	if held == nil || !a.o.RemoveExpired || held.leftForSure(a.now()) > 0 || !w.remove.due() {
		return nil
	}
	if err := a.o.Sink.Remove(ctx); err != nil {
		return a.failed(ctx, &w.remove, &failure{kindSink, fmt.Errorf("removing the expired token: %w", err)})
	}
	a.hold(nil)
	w.hookDue, w.remove = false, retry{}
	return nil
}

// callHook calls After if it is due.
func (a *Agent) callHook(ctx context.Context, w *work) error {
	held := a.holding()
	if held == nil || a.o.After == nil {
		w.hookDue = false
	}
	if !w.hookDue || !w.hook.due() {
		return nil
	}
	if err := a.o.After(ctx, held.Token); err != nil {
		return a.failed(ctx, &w.hook, &failure{kindHook, fmt.Errorf("after the token was written: %w", err)})
	}
	w.hookDue, w.hook = false, retry{}
	return nil
}

// failed counts and reports a failure, and says when to try again.
func (a *Agent) failed(ctx context.Context, r *retry, f *failure) error {
	if ctx.Err() != nil {
		return f // the agent ends, nothing is wrong
	}
	left, level := time.Duration(0), slog.LevelError
	if held := a.holding(); held != nil {
		left = held.left(a.now())
	}
	if left > 0 {
		level = slog.LevelWarn
	}
	after := pause(r.failures+1, left)
	r.again(after)
	a.o.Metrics.failed(ctx, f.kind)
	a.o.Log.LogAttrs(ctx, level, "attempt failed", slog.String("kind", f.kind), slog.String("error", f.Error()),
		slog.Duration("again_in", after.Round(time.Millisecond)), slog.Duration("token_valid_for", max(left, 0).Round(time.Second)))
	return f
}
