package token

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// How long to wait after a fetch has failed: doubled from the first to the last.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Run fetches the set and keeps it up to date until ctx ends, and returns why it
// ended. It fetches at once, then again before the set expires, when Key asks,
// and after a failure with growing pauses. After Run has returned, Key goes on
// with the set that it has, until that is too old. Run may be called again, but
// not twice at the same time.
func (r *RemoteKeys) Run(ctx context.Context) error {
	if err := r.start(); err != nil {
		return err
	}
	defer r.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		case <-r.wake:
		}
		timer.Reset(r.refresh(ctx))
	}
}

func (r *RemoteKeys) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == running {
		return errors.New("remote keys: Run is running already")
	}
	r.state = running
	return nil
}

// stop ends a round that was asked for and will not be made.
func (r *RemoteKeys) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = ended
	r.endRound()
}

// refresh makes one round and returns how long to wait for the next.
func (r *RemoteKeys) refresh(ctx context.Context) time.Duration {
	r.beginRound()
	next, err := r.fetcher.fetch(ctx, r.current.Load())

	r.mu.Lock()
	defer r.mu.Unlock()
	// What was fetched is visible before the round's waiters wake up.
	defer r.endRound()
	r.err = err
	if err != nil {
		r.failures++
		return retryDelay(r.failures)
	}
	r.failures = 0
	r.current.Store(next)
	return r.refreshDelay(next.maxAge)
}

// beginRound opens a round that callers of Key can join, or takes the one that
// they opened. After a failure it has connections of its own: by now nothing is
// left of the request that failed, which would keep an HTTP/2 connection.
func (r *RemoteKeys) beginRound() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.round == nil {
		r.round = make(chan struct{})
	}
	if r.failures > 0 {
		r.fetcher.client.CloseIdleConnections()
	}
}

// endRound lets the waiters go. Who asked after the timer had fired has been
// answered too, so that no second round is due.
func (r *RemoteKeys) endRound() {
	if r.round != nil {
		close(r.round)
		r.round = nil
	}
	select {
	case <-r.wake:
	default:
	}
}

// refreshDelay is 70 to 90 percent of the time for which a set is fresh, so that
// it is replaced before it expires and verifiers do not all ask at once.
func (r *RemoteKeys) refreshDelay(maxAge time.Duration) time.Duration {
	fresh := min(max(maxAge, r.options.MinInterval), r.options.MaxInterval)
	return jitter(fresh, 0.7, 0.9)
}

// retryDelay is how long to wait after so many failures, at least one.
func retryDelay(failures int) time.Duration {
	doublings := min(failures-1, 10)
	return jitter(min(firstRetry<<doublings, lastRetry), 0.5, 1)
}

func jitter(d time.Duration, from, to float64) time.Duration {
	return time.Duration(float64(d) * (from + (to-from)*rand.Float64())) //nolint:gosec // it spreads load, it hides nothing
}
