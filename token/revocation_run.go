package token

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// maxSilence is for how long a stream may be silent: the server gives a sign of
	// life every ten seconds.
	maxSilence = 30 * time.Second
	// How long to poll after a stream has brought nothing: doubled from the
	// first to the last.
	firstStreamRetry = 10 * time.Second
	lastStreamRetry  = 5 * time.Minute
	// sweepInterval is how often expired revocations are looked for.
	sweepInterval = time.Minute
	// dropDelay is how much longer than necessary revocations are kept.
	dropDelay = 5 * time.Second
)

var (
	errSilent = errors.New("stream was silent for too long")
	// errRenew is how a stream ends that is replaced in time.
	errRenew = errors.New("stream has to be asked for anew")
	errClock = errors.New("the clock went back to before a revocation was forgotten")
)

// Run follows the feed until ctx ends, and returns why it ended. After that Revoked
// goes on with what has been read, until that is too old. Run may be called again, and
// then reads on where it stopped, but not twice at the same time.
//
// It streams. A stream is replaced before half of MaxStale has gone by, since what
// is late on it looks new. One that is cut is opened again, and after one that brought
// nothing the feed is polled for a while: some proxies let no stream through.
// Failures are followed by growing pauses.
func (r *RemoteRevocations) Run(ctx context.Context) error {
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
			timer.Reset(r.round(ctx))
		}
	}
}

func (r *RemoteRevocations) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == running {
		return errors.New("revocations: Run is running already")
	}
	r.state = running
	return nil
}

func (r *RemoteRevocations) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = ended
}

// round streams for as long as it goes, or polls once, and returns how long to
// wait for the next round.
func (r *RemoteRevocations) round(ctx context.Context) time.Duration {
	r.leaveDead()
	if r.options.Poll || r.options.Now().Before(r.streamAfter) {
		return r.ended(ctx, r.poll(ctx), jitter(r.options.PollInterval, 0.9, 1.1))
	}
	pages, err := r.stream(ctx)
	if errors.Is(err, errRenew) {
		return 0
	}
	if pages > 0 {
		// Even a stream that ended well is not opened again at once: perhaps a
		// server stops, and all of its readers look for another.
		return r.ended(ctx, err, jitter(firstRetry, 0.1, 1))
	}
	if err == nil {
		err = errors.New("stream ended without a page")
	}
	r.fruitless++
	doublings := min(r.fruitless-1, 10)
	pause := jitter(min(firstStreamRetry<<doublings, lastStreamRetry), 0.5, 1)
	r.streamAfter = r.options.Now().Add(pause)
	r.setStreaming(false, err)
	if errors.Is(err, errStreamRefused) {
		return 0 // nothing failed: poll
	}
	return r.ended(ctx, err, 0)
}

// leaveDead closes the connections if the last round failed: HTTP/2 goes on with
// one on which requests time out. By now nothing is left of the request that failed,
// which would keep it.
func (r *RemoteRevocations) leaveDead() {
	r.mu.Lock()
	failed := r.failures > 0
	r.mu.Unlock()
	if failed {
		r.client.client.CloseIdleConnections()
	}
}

// ended remembers how a round ended, and returns how long to wait: pause, if
// nothing failed.
func (r *RemoteRevocations) ended(ctx context.Context, err error, pause time.Duration) time.Duration {
	if err == nil || ctx.Err() != nil {
		return pause
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = fmt.Errorf("read revocations: %w", err)
	r.failures++
	delay := retryDelay(r.failures)
	if later, ok := errors.AsType[*retryLaterError](err); ok {
		// Not all at once, either.
		delay = max(delay, jitter(later.after, 1, 1.2))
	}
	return delay
}

func (r *RemoteRevocations) succeeded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures, r.err = 0, nil
}

func (r *RemoteRevocations) setStreaming(on bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streaming, r.streamErr = on, err
}

// poll reads the feed to its end.
func (r *RemoteRevocations) poll(ctx context.Context) error {
	for pages := 0; ; pages++ {
		more, err := r.pollPage(ctx, pages == 0)
		if err != nil || !more {
			return err
		}
	}
}

// pollPage reads one page and says whether there are more.
func (r *RemoteRevocations) pollPage(ctx context.Context, first bool) (more bool, err error) {
	at, url := r.options.Now(), r.client.pageURL(r.view.Load())
	tag, unchanged, err := r.client.fetch(ctx, url, r.tag, &r.buf)
	if err != nil {
		return false, err
	}
	if unchanged {
		return false, r.confirm(at)
	}
	if err := r.take(at); err != nil {
		return false, err
	}
	moved := r.client.pageURL(r.view.Load()) != url
	switch {
	case !r.page.more:
		// Only a page that left the reader where it was said that nothing is
		// newer. The tags of others would confirm too much.
		if !moved {
			r.tag = tag
		}
		return false, nil
	// A server that goes round in circles must not be asked without a pause.
	case !moved:
		return false, fmt.Errorf("%w: it leads nowhere", ErrFeedPage)
	case r.page.reset && !first:
		return false, fmt.Errorf("%w: reset on the way", ErrFeedPage)
	default:
		return true, nil
	}
}

// stream follows a stream until it ends, is cut or has to be renewed, and returns
// how many pages it brought.
func (r *RemoteRevocations) stream(ctx context.Context) (pages int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(maxSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	defer func() {
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
	}()
	opened, life := r.options.Now(), jitter(r.options.MaxStale/2, 0.7, 0.9)
	resp, err := r.client.open(ctx, r.view.Load())
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if err := checkStream(resp); err != nil {
		return 0, err
	}
	defer r.setStreaming(false, nil)
	for ; ; pages++ {
		last, err := readEnvelope(resp.Body, &r.buf)
		if err != nil {
			return pages, err
		}
		if last {
			return pages, endOfStream(r.buf.Bytes())
		}
		if err := r.take(r.asOf(opened)); err != nil {
			return pages, err
		}
		silence.Reset(maxSilence)
		r.fruitless = 0
		r.setStreaming(true, nil)
		// Not in the middle: a reset might begin again.
		if !r.page.more && elapsed(opened, r.options.Now()) >= life {
			return pages + 1, errRenew
		}
	}
}

// asOf is how new the word is taken to be that a stream brings now: somebody on
// the way may have kept it back since the stream was asked for.
func (r *RemoteRevocations) asOf(opened time.Time) time.Time {
	now, most := r.options.Now(), r.options.MaxStale/2
	if elapsed(opened, now) > most {
		return opened.Add(most)
	}
	return now
}

// take takes in the page that is in buf and is as new as that time.
func (r *RemoteRevocations) take(at time.Time) error {
	if err := parsePage(r.buf.Bytes(), &r.page); err != nil {
		return err
	}
	if name := r.page.keyset; name != "" && name != r.client.keyset {
		return fmt.Errorf("%w: it is of another keyset", ErrFeedPage)
	}
	v, err := r.goOn()
	if err != nil {
		return err
	}
	next, err := v.take(&r.page, at, r.options.Now())
	if err != nil {
		r.startOver(v) // something may have been missed
		return err
	}
	r.arrived(v, next, r.page.more)
	return nil
}

// goOn returns the view, unless the feed has to be read from its beginning.
func (r *RemoteRevocations) goOn() (*feedView, error) {
	v := r.view.Load()
	if v.broken(r.options.Now()) {
		r.startOver(v)
		return nil, errClock
	}
	return v, nil
}

// startOver reads the feed from its beginning. Until that is done what has been
// read stays, and grows old.
func (r *RemoteRevocations) startOver(v *feedView) {
	r.view.Store(&feedView{set: v.set, at: v.at})
}

// confirm notes that at that time nothing was newer.
func (r *RemoteRevocations) confirm(at time.Time) error {
	v, err := r.goOn()
	if err != nil {
		return err
	}
	if v.set == nil || v.next != nil || v.epoch == "" {
		return fmt.Errorf("%w: confirmed what was not read", ErrFeedPage)
	}
	next := *v
	next.at = at
	r.arrived(v, &next, false)
	return nil
}

// arrived replaces the view with a newer one.
func (r *RemoteRevocations) arrived(old, v *feedView, more bool) {
	r.view.Store(v)
	if more {
		return // and whatever was wrong may still be
	}
	r.succeeded()
	if old.set == nil {
		close(r.ready)
	}
	if now := r.options.Now(); now.Sub(r.swept) >= sweepInterval {
		v.set.sweep(expired(now))
		r.swept = now
	}
}
