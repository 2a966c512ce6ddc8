package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// RemoteOptions configure [RemoteKeys]. The zero value is fit for use.
type RemoteOptions struct {
	// Transport makes the requests. If it is nil, that is a copy of
	// http.DefaultTransport which pings HTTP/2 connections; for FetchKeySet it is
	// http.DefaultTransport itself. Give one with a TLS configuration to trust a
	// private authority. After a failure its idle connections are closed, so that
	// one that is dead is not used again.
	Transport http.RoundTripper

	// AllowPlainHTTP accepts a URL with http to a host that is not loopback.
	// Whoever can change what travels there can then sign tokens.
	AllowPlainHTTP bool

	// Timeout bounds a fetch, and how long Key waits for one. 10 seconds if 0.
	Timeout time.Duration

	// MinInterval and MaxInterval bound how long a fetched set is taken for
	// fresh, whatever its max-age says: 10 seconds and 15 minutes if 0, but not
	// longer than MaxStale. A response that says nothing is fresh for
	// MaxInterval. The set is fetched again after 70 to 90 percent of that time.
	MinInterval, MaxInterval time.Duration

	// MaxStale is how old a set may be, counted from the last successful
	// fetch, before it is trusted no more. 24 hours if 0. It also bounds for
	// how long somebody who can cut the connection can hide that a key was
	// distrusted.
	MaxStale time.Duration

	// UnknownKeyInterval is the least time between two fetches that were made
	// because a key was asked for that the set does not have, or because there
	// is no set that may be used. 10 seconds if 0.
	UnknownKeyInterval time.Duration

	// Now is the clock by which the age of a set is told, time.Now if it is nil.
	Now func() time.Time
}

// RemoteKeys is a keyset whose JWK set is fetched over HTTP and kept up to date.
// [RemoteKeys.Run] makes all the requests, one at a time, and must be running:
// callers of Key only read what it has fetched, or ask it to fetch and wait. Use
// [FetchKeySet] where one look is enough.
//
// A set that cannot be fetched or read changes nothing: the last good one is used
// on, until it is older than MaxStale. It is safe for concurrent use.
type RemoteKeys struct {
	fetcher fetcher
	options RemoteOptions

	current atomic.Pointer[fetched] // nil until the first success
	wake    chan struct{}           // one place: a fetch was asked for

	mu       sync.Mutex
	state    runState
	round    chan struct{} // closed at the end of the fetch that is asked for or under way
	asked    time.Time     // when a fetch was last asked for
	failures int           // since the last success
	err      error         // of the last fetch
}

type runState int

const (
	notRun runState = iota
	running
	ended
)

// RemoteStatus describes what a [RemoteKeys] holds.
type RemoteStatus struct {
	KeyIDs    []string
	Skipped   []SkippedKey  // entries of the set that cannot be used
	FetchedAt time.Time     // when the set was last fetched or confirmed; zero: never
	Age       time.Duration // how long ago that was
	Usable    bool          // there is a set and it is not older than MaxStale
	Failures  int           // fetches that failed since the last success
	Err       error         // why the last fetch failed, nil if it did not
}

// NewRemoteKeys returns the keyset behind a URL. It makes no request.
func NewRemoteKeys(url string, o RemoteOptions) (*RemoteKeys, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	f, err := newFetcher(url, o)
	if err != nil {
		return nil, err
	}
	// The first round is open from the start, so that a caller who is faster
	// than Run waits for it.
	return &RemoteKeys{fetcher: f, options: o, wake: make(chan struct{}, 1), round: make(chan struct{})}, nil
}

func (o *RemoteOptions) setDefaults() {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.MaxStale = cmp.Or(o.MaxStale, 24*time.Hour)
	o.MaxInterval = cmp.Or(o.MaxInterval, min(15*time.Minute, o.MaxStale))
	o.MinInterval = cmp.Or(o.MinInterval, min(10*time.Second, o.MaxInterval))
	o.UnknownKeyInterval = cmp.Or(o.UnknownKeyInterval, 10*time.Second)
	if o.Transport == nil {
		o.Transport = ownTransport()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func (o *RemoteOptions) check() error {
	var errs []error
	if o.Timeout < 0 || o.MinInterval < 0 || o.UnknownKeyInterval < 0 {
		errs = append(errs, errors.New("remote keys: a duration is negative"))
	}
	if o.MaxInterval < o.MinInterval {
		errs = append(errs, fmt.Errorf("remote keys: MaxInterval %s is less than MinInterval %s", o.MaxInterval, o.MinInterval))
	}
	if o.MaxStale < o.MaxInterval {
		errs = append(errs, fmt.Errorf("remote keys: MaxStale %s is less than MaxInterval %s", o.MaxStale, o.MaxInterval))
	}
	return errors.Join(errs...)
}

// Key returns the key with that ID. If the set does not have it, or there is no set
// that may be used, Key asks for a fetch and waits for its end, unless one was
// asked for less than UnknownKeyInterval ago. It implements [KeySource].
func (r *RemoteKeys) Key(ctx context.Context, id string) (Key, error) {
	k, err := r.lookup(ctx, id)
	if err == nil {
		return k, nil
	}
	if err := r.refetch(ctx); err != nil {
		return Key{}, err
	}
	return r.lookup(ctx, id)
}

// lookup looks into the set as it is.
func (r *RemoteKeys) lookup(ctx context.Context, id string) (Key, error) {
	f := r.current.Load()
	if f == nil {
		return Key{}, r.withLastError(ErrKeysUnavailable, "none were fetched yet")
	}
	if age := r.options.Now().Sub(f.at); age > r.options.MaxStale {
		return Key{}, r.withLastError(ErrStaleKeys, fmt.Sprintf("fetched %s ago, at most %s is allowed",
			age.Round(time.Second), r.options.MaxStale))
	}
	k, err := f.set.Key(ctx, id)
	if err != nil {
		return Key{}, r.withLastError(ErrUnknownKey, fmt.Sprintf("%.64q", id))
	}
	return k, nil
}

// withLastError adds why the last fetch failed, if it did.
func (r *RemoteKeys) withLastError(kind error, detail string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		return fmt.Errorf("%w: %s", kind, detail)
	}
	return fmt.Errorf("%w: %s: %w", kind, detail, r.err)
}

// refetch waits for a fetch, if one may be made now.
func (r *RemoteKeys) refetch(ctx context.Context) error {
	round := r.join()
	if round == nil {
		return nil
	}
	// The fetch itself is bounded by Timeout. The wait is too, in case Run was
	// never called.
	timer := time.NewTimer(r.options.Timeout)
	defer timer.Stop()
	select {
	case <-round:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: no fetch ended within %s", ErrKeysUnavailable, r.options.Timeout)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrKeysUnavailable, context.Cause(ctx))
	}
}

// join returns the round that is under way, or asks for one. It returns nil if
// that is not allowed yet, or nobody would answer.
func (r *RemoteKeys) join() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == ended {
		return nil
	}
	if r.round != nil {
		return r.round
	}
	now := r.options.Now()
	if !r.asked.IsZero() && now.Sub(r.asked) < r.options.UnknownKeyInterval {
		return nil
	}
	r.asked = now
	r.round = make(chan struct{})
	r.wake <- struct{}{} // never blocks: there is one place, and one round
	return r.round
}

// Status describes what is held now.
func (r *RemoteKeys) Status() RemoteStatus {
	f := r.current.Load()
	r.mu.Lock()
	s := RemoteStatus{Failures: r.failures, Err: r.err}
	r.mu.Unlock()
	if f == nil {
		return s
	}
	s.KeyIDs, s.Skipped, s.FetchedAt = f.set.IDs(), f.set.Skipped(), f.at
	s.Age = r.options.Now().Sub(f.at)
	s.Usable = s.Age <= r.options.MaxStale
	return s
}
