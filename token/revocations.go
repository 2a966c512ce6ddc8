package token

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// RevocationOptions configure [RemoteRevocations]. Credential aside, the zero
// value is fit for use.
type RevocationOptions struct {
	// Credential returns the API token to ask with. It is called for every
	// request, in the goroutine of Run, so that a file can be replaced at any time.
	// White space round it is cut off. If Credential is nil no token is sent, which
	// suits a Transport that proves in another way who asks.
	Credential func(ctx context.Context) (string, error)

	// Transport makes the requests. If it is nil, that is a copy of
	// http.DefaultTransport which pings HTTP/2 connections. Give one with a TLS
	// configuration to trust a private authority. After a failure its idle
	// connections are closed, so that one that is dead is not used again.
	Transport http.RoundTripper

	// AllowPlainHTTP accepts a URL with http to a host that is not loopback.
	// Whoever sees what travels there has the credential, and whoever can
	// change it decides what is revoked.
	AllowPlainHTTP bool

	// Timeout bounds a request for one page, but not a stream. 10 seconds if 0.
	Timeout time.Duration

	// Poll never streams. Without it the feed is polled only while streams do
	// not get through.
	Poll bool

	// PollInterval is how long to wait between two polls, give or take a
	// tenth. 5 seconds if 0.
	PollInterval time.Duration

	// MaxStale is how old the last word from the feed may be before a token that is
	// not known to be revoked is not called good any more. 5 minutes if 0. It
	// must be more than PollInterval, and more than the 30 seconds for which a
	// stream may be silent, unless Poll is set.
	//
	// It also bounds for how long somebody who can cut or delay the connection can
	// hide a revocation: for MaxStale if the feed is polled, since the word of a poll
	// is as old as its request. A stream says nothing of how old its words
	// are. They count as of when they arrive, but not later than MaxStale/2 after
	// the stream was asked for, and before that it is asked for anew. So the bound is
	// one and a half times MaxStale then.
	MaxStale time.Duration

	// Now is the clock by which the age of the feed and the expiry of tokens are
	// told, time.Now if it is nil. Should it go back to when a revocation was in force
	// that has been forgotten since, nothing is called good until the feed
	// has been read again.
	Now func() time.Time
}

// RemoteRevocations follows the revocation feed of a keyset, and implements
// [Revocations] with what it has read. [RemoteRevocations.Run] makes all requests
// and must be running; callers of Revoked never wait. It is safe for concurrent use.
//
// It fails closed: Revoked returns an error for a token that is not known to be
// revoked until the feed has been read to its end once, and again when the last word
// from it is older than MaxStale, or the clock went back. What is known to be revoked
// stays so, whatever the state of the feed. Whoever would rather accept tokens meanwhile
// sets [Options.RevocationsFailOpen].
//
// A revocation takes about 20 bytes, and twice that while the feed is read again
// from its beginning, which happens when the server has lost its place. The old set
// then answers, to which the revocations of the new one are added as they arrive, until
// that is complete. Revocations are kept for [MaxLeeway] longer than their tokens are valid,
// since a verifier may accept tokens for as long. What is kept of a jti is 96
// bits of a keyed hash; that one of n revocations is mistaken for another token's has a
// probability of n/2^96.
type RemoteRevocations struct {
	client  feedClient
	options RevocationOptions
	ready   chan struct{}
	view    atomic.Pointer[feedView] // written in Run only

	// For Run only.
	buf         bytes.Buffer
	page        page
	tag         pageTag
	swept       time.Time
	streamAfter time.Time // when to try a stream again
	fruitless   int       // streams in a row that brought nothing

	mu        sync.Mutex
	state     runState
	streaming bool
	failures  int   // since the last success
	err       error // of the last attempt
	streamErr error // of the last stream, if it brought nothing
}

// feedView is what has been read of a feed. It never changes, but its sets do.
type feedView struct {
	set   *revocationSet // nil until the feed was read to its end
	next  *revocationSet // replaces set when the end is reached; nil if no reset is under way
	epoch string         // "" if the feed has to be read from its beginning
	seq   int64          // everything up to here is in next, or in set if there is no next
	at    time.Time      // when set was complete, last, as far as that is certain
}

// RevocationStatus describes what a [RemoteRevocations] has read.
type RevocationStatus struct {
	Epoch     string        // which life of the feed is being read
	Seq       int64         // up to where it has been read
	Count     int           // revocations held, of which some may have expired
	Bytes     int64         // memory that they take
	UpdatedAt time.Time     // when there was no more to read, last, as MaxStale counts; zero: never
	Age       time.Duration // how long ago that was
	Usable    bool          // not longer ago than MaxStale, and the clock did not go back since
	Streaming bool          // a stream is open and has brought something
	Failures  int           // attempts that failed since the last success
	Err       error         // why the last attempt failed, nil if it did not
	StreamErr error         // why the feed is polled although Poll is not set, nil if it is not
}

// NewRemoteRevocations returns the revocations of a keyset, whose feed is served
// by the zonemint at the base URL. It makes no request.
func NewRemoteRevocations(baseURL, keyset string, o RevocationOptions) (*RemoteRevocations, error) {
	o.setDefaults()
	client, err := newFeedClient(baseURL, keyset, o)
	if err := errors.Join(err, o.check()); err != nil {
		return nil, err
	}
	r := &RemoteRevocations{client: client, options: o, ready: make(chan struct{})}
	r.view.Store(&feedView{})
	return r, nil
}

func (o *RevocationOptions) setDefaults() {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.PollInterval = cmp.Or(o.PollInterval, 5*time.Second)
	o.MaxStale = cmp.Or(o.MaxStale, 5*time.Minute)
	if o.Transport == nil {
		o.Transport = ownTransport()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func (o *RevocationOptions) check() error {
	var errs []error
	if o.Timeout < 0 || o.PollInterval < 0 {
		errs = append(errs, errors.New("revocations: a duration is negative"))
	}
	if o.MaxStale <= o.PollInterval {
		errs = append(errs, fmt.Errorf("revocations: MaxStale %s is not more than PollInterval %s", o.MaxStale, o.PollInterval))
	}
	if !o.Poll && o.MaxStale <= maxSilence {
		errs = append(errs, fmt.Errorf("revocations: MaxStale %s is not more than the %s that a stream may be silent; set Poll", o.MaxStale, maxSilence))
	}
	return errors.Join(errs...)
}

// Revoked says whether the token with that jti has been revoked. Its error
// matches [ErrRevocationsUnavailable]. It looks into memory only, and does not wait.
func (r *RemoteRevocations) Revoked(_ context.Context, jti string) (bool, error) {
	v, now := r.view.Load(), r.options.Now()
	if v.revoked(jti, stamp(now)) {
		return true, nil
	}
	if doubt := v.doubt(now, r.options.MaxStale); doubt != "" {
		return false, r.unavailable(doubt)
	}
	return false, nil
}

// unavailable adds why the last attempt failed, if it did.
func (r *RemoteRevocations) unavailable(detail string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		return fmt.Errorf("%w: %s", ErrRevocationsUnavailable, detail)
	}
	return fmt.Errorf("%w: %s: %w", ErrRevocationsUnavailable, detail, r.err)
}

// Ready returns a channel that is closed when the feed has been read to its end for
// the first time. A control plane that fails closed waits for it before it serves.
func (r *RemoteRevocations) Ready() <-chan struct{} { return r.ready }

// Status describes what is held now.
func (r *RemoteRevocations) Status() RevocationStatus {
	v := r.view.Load()
	r.mu.Lock()
	s := RevocationStatus{Streaming: r.streaming, Failures: r.failures, Err: r.err, StreamErr: r.streamErr}
	r.mu.Unlock()
	s.Epoch, s.Seq, s.UpdatedAt = v.epoch, v.seq, v.at
	if v.next != nil {
		s.Bytes = v.next.bytes()
	}
	if v.set == nil {
		return s
	}
	s.Count, s.Bytes = int(v.set.count.Load()), s.Bytes+v.set.bytes()
	now := r.options.Now()
	s.Age = elapsed(v.at, now)
	s.Usable = v.doubt(now, r.options.MaxStale) == ""
	return s
}

// revoked says whether the jti is known to be revoked. What has been read after a
// reset is in set too, unless there is none yet.
func (v *feedView) revoked(jti string, now uint32) bool {
	set := cmp.Or(v.set, v.next)
	return set != nil && set.contains(jti, now)
}

// doubt says why a jti that is not in the set may be revoked, "" if it is not. It
// has to be asked after the set.
func (v *feedView) doubt(now time.Time, maxStale time.Duration) string {
	if v.set == nil {
		return "the feed was not read to its end yet"
	}
	if v.set.forgot(stamp(now)) {
		return "the clock went back"
	}
	if age := elapsed(v.at, now); age > maxStale {
		return fmt.Sprintf("the last word is %s old, at most %s is allowed", age.Round(time.Second), maxStale)
	}
	return ""
}

// broken says whether what was read cannot be gone on with: the clock went back to
// when something counted that was dropped.
func (v *feedView) broken(now time.Time) bool {
	return v.epoch != "" && cmp.Or(v.next, v.set).forgot(stamp(now))
}

// elapsed is the longer of what two clocks say: the monotonic one stands still
// while the machine sleeps, the other one can be set back.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// expired is the stamp by which revocations are dropped: a bit late, so that a clock
// that is set back a little does no harm.
func expired(now time.Time) uint32 { return stamp(now.Add(-dropDelay)) }

// take returns the view after a page that came at that time, applied to the sets.
func (v feedView) take(p *page, at, now time.Time) (*feedView, error) {
	if v.epoch != "" && !p.reset {
		if err := v.follows(p); err != nil {
			return nil, err
		}
	} else {
		v.next = newRevocationSet()
	}
	v.epoch, v.seq = p.epoch, p.seq
	cmp.Or(v.next, v.set).apply(p, expired(now))
	if v.next != nil && v.set != nil {
		// What is revoked stays so even if the reset comes to nothing.
		v.set.extend(p, expired(now))
	}
	if !p.more {
		v.set, v.next, v.at = cmp.Or(v.next, v.set), nil, at
	}
	return &v, nil
}

// follows refuses a page that does not go on where the last one ended.
func (v feedView) follows(p *page) error {
	switch {
	case p.epoch != v.epoch:
		return fmt.Errorf("%w: another epoch without a reset", ErrFeedPage)
	case p.seq < v.seq:
		return fmt.Errorf("%w: it goes back from %d to %d", ErrFeedPage, v.seq, p.seq)
	default:
		return nil
	}
}

// apply changes the set as the page says. Should a page revoke and lift the same
// jti, it is revoked.
func (s *revocationSet) apply(p *page, now uint32) {
	for _, jti := range p.lifted {
		s.remove(jti)
	}
	for _, e := range p.revoked {
		s.add(e.jti, keptUntil(e.exp), now)
	}
}

// extend adds what the page revokes, and takes nothing back.
func (s *revocationSet) extend(p *page, now uint32) {
	for _, e := range p.revoked {
		if until := keptUntil(e.exp); until > s.until(e.jti) {
			s.add(e.jti, until, now)
		}
	}
}

// keptUntil is when nobody accepts a token any more that expires at exp.
func keptUntil(exp int64) uint32 {
	const leeway = int64(MaxLeeway / time.Second)
	if exp >= never-leeway {
		return never
	}
	return uint32(exp + leeway)
}
