//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/eclipse-keypont/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/zonemint/zonemint/signer"
)

// How soon an owner tries to connect again, and how long it waits for calls
// that hang when it is closed.
const (
	minBackoff    = 50 * time.Millisecond
	maxBackoff    = 500 * time.Millisecond
	closePatience = 5 * time.Second
)

// owner is who loads a module, and the only one to do so in this process. Its
// goroutine, which close ends, connects again whenever the link breaks.
type owner struct {
	module  *module
	log     *slog.Logger
	now     func() time.Time
	changes chan struct{} // held while keys are made, destroyed or looked for
	closing chan struct{}
	done    chan struct{}

	mu         sync.Mutex
	link       *link
	tokens     []*token
	downSince  time.Time
	reconnects uint64
}

func newOwner(mod *module, opts Options) *owner {
	o := &owner{
		module: mod, now: opts.Now, link: newLink(),
		log:     opts.Logger.With(slog.String("module", mod.path)),
		changes: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	go o.run()
	return o
}

func (o *owner) current() *link {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.link
}

// attach returns the token that opts name, connected and logged in, or waited for
// if it may be away.
func (o *owner) attach(opts Options, pin string) (*token, error) {
	id := opts.token()
	if err := o.module.denial(id); err != nil {
		return nil, err
	}
	if t := o.find(id); t != nil {
		return t, t.share(opts, pin)
	}
	t := newToken(o, opts, pin)
	l := o.current()
	seen, err := o.join(l, t, opts)
	switch {
	case err == nil:
		t.learn(seen)
	case opts.MayBeAway && maybeAway(err):
		o.broke(l, err) // no call of t's begins before this, so all find the link broken
	default:
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokens = append(o.tokens, t)
	return t, nil
}

// join connects to t for the first time, within l. If t may be away, a module that
// hangs is not waited for: it is down, and what it answers in the end is dropped.
func (o *owner) join(l *link, t *token, opts Options) (inspected, error) {
	if _, err := l.enter(t); err != nil {
		return inspected{}, err
	}
	type outcome struct {
		seen inspected
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		defer l.calls.Done() // until then the owner does not let go of the module
		seen, ctx, err := t.connect(opts.MaxSessions)
		if err == nil {
			l.add(t, ctx)
		}
		if absent, ok := errors.AsType[*absentError](err); ok {
			err = failf(signer.Misconfigured, "%w", absent)
		}
		done <- outcome{seen, err}
	}()
	var late <-chan time.Time
	if opts.MayBeAway {
		late = time.After(opts.CallTimeout)
	}
	select {
	case out := <-done:
		return out.seen, out.err
	case <-late:
		return inspected{}, failf(signer.Unavailable, "the PKCS#11 module has not answered for %v", opts.CallTimeout)
	}
}

// maybeAway says whether a first connection that failed with err may succeed
// later with nothing changed but the HSM. Codes that vendors made up count: most
// of those that a connection ends with mean that nobody is there.
func maybeAway(err error) bool {
	switch codeOf(err) {
	case signer.Unavailable, signer.Throttled, signer.Unknown:
		return true
	default:
		return false
	}
}

func (o *owner) find(id tokenID) *token {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.tokens {
		if t.id == id {
			return t
		}
	}
	return nil
}

// connect opens a session at t and logs in. seen.sessions is how many sessions
// there may be in all.
func (t *token) connect(sessions int) (seen inspected, ctx *crypto11.Context, err error) {
	if seen, err = inspect(t.owner.module.path, t.id); err == nil {
		if seen.sessions == 0 || seen.sessions > sessions {
			seen.sessions = sessions
		}
		ctx, err = crypto11.Configure(&crypto11.Config{
			Path: t.owner.module.path, TokenLabel: t.id.label, TokenSerial: t.id.serial, Pin: t.pin,
			MaxSessions: seen.sessions, PoolWaitTimeout: time.Minute, // never reached: there are as many slots as sessions
		})
	}
	if aboutPIN(err) {
		err = &pinError{failf(codeOf(err), "the PKCS#11 token %s refuses the PIN, which is not tried again before zonemint is restarted: %w", t.id, err)}
	}
	if _, ok := errors.AsType[*pinError](err); ok {
		t.owner.module.deny(t.id, err)
	}
	if err != nil {
		return seen, nil, fmt.Errorf("connect to the PKCS#11 token %s: %w", t.id, err)
	}
	return seen, ctx, nil
}

// run connects again after every break of the link, until the owner is closed.
func (o *owner) run() {
	defer close(o.done)
	for {
		l := o.current()
		select {
		case <-l.broken:
		case <-o.closing:
			l.fail(errClosed)
		}
		stuck := time.AfterFunc(closePatience, o.stuck)
		l.close()
		stuck.Stop()
		if !o.reconnect() {
			return
		}
	}
}

// stuck tells of calls that have not returned long after the link broke.
func (o *owner) stuck() {
	o.log.Error("calls do not return from the PKCS#11 module, which is not connected to again before they do; " +
		"if they never do, restart zonemint, and try fewer sessions: some modules lose calls that run side by side")
}

// broke breaks l, for everybody. It may be called any number of times.
func (o *owner) broke(l *link, cause error) {
	o.mu.Lock()
	first := l.fail(stillDown(cause))
	if first {
		o.downSince = o.now()
	}
	o.mu.Unlock()
	if first {
		o.log.Error("the PKCS#11 module is down", slog.String("reason", cause.Error()))
	}
}

// reconnect tries until it succeeds, which it returns, or the owner is closed.
func (o *owner) reconnect() bool {
	said := ""
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-o.closing:
			timer.Stop()
			return false
		}
		err := o.relink()
		if err == nil {
			return true
		}
		if text := err.Error(); text != said {
			o.log.Warn("the PKCS#11 module cannot be connected to yet", slog.String("reason", text))
			o.current().blame(stillDown(err))
			said = text
		}
	}
}

// stillDown is what calls fail with while a module is down because of cause.
func stillDown(cause error) error {
	return failf(signer.Unavailable, "the PKCS#11 module is down until it is connected to again: %w", cause)
}

// up makes l the owner's link, unless a token has been attached since those were
// read that l is for.
func (o *owner) up(l *link, tokens int) error {
	o.mu.Lock()
	if len(o.tokens) != tokens {
		o.mu.Unlock()
		err := errors.New("there is one more token to connect to")
		l.fail(err)
		l.close()
		return err
	}
	o.link = l
	down := o.now().Sub(o.downSince)
	o.downSince = time.Time{}
	o.reconnects++
	o.mu.Unlock()
	o.log.Info("the PKCS#11 module is up again", slog.Duration("after", down))
	return nil
}

// relink connects to every token of the module, or to none. A token that does
// not take the PIN any more is left out.
func (o *owner) relink() error {
	o.mu.Lock()
	tokens := o.tokens
	o.mu.Unlock()
	l := newLink()
	for _, t := range tokens {
		if o.module.denial(t.id) != nil {
			continue
		}
		seen, ctx, err := t.connect(cap(t.places()) + 1)
		if _, denied := errors.AsType[*pinError](err); denied {
			o.log.Error("a PKCS#11 token is lost", slog.String("token", t.id.String()), slog.String("reason", err.Error()))
			continue
		}
		if err != nil {
			l.fail(err)
			l.close()
			return err
		}
		t.learn(seen)
		l.add(t, ctx)
	}
	return o.up(l, len(tokens))
}

// judge looks at how a call ended, and breaks the link if the HSM is gone.
func (o *owner) judge(l *link, ctx *crypto11.Context, err error) {
	rv, ok := errors.AsType[p11.Error](err)
	switch {
	case !ok:
	case gone(rv):
		o.broke(l, err)
	case suspicious(rv):
		if _, again := ctx.FindPrivateKeys([]byte("zonemint asks whether anybody is there"), nil); again != nil {
			o.broke(l, errors.Join(err, again))
		}
	}
}

// close ends the owner. A call that hangs inside the module cannot be ended: it
// is given some time and then left to itself, together with the goroutine that
// will let go of the module after it.
func (o *owner) close() error {
	close(o.closing)
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case <-o.done:
		return nil
	case <-timer.C:
		return failf(signer.Unavailable, "the PKCS#11 module hangs and was not closed")
	}
}

func (o *owner) stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := Stats{Module: o.module.path, DownSince: o.downSince, Reconnects: o.reconnects}
	for _, t := range o.tokens {
		s.Tokens = append(s.Tokens, t.stats())
	}
	return s
}

var errClosed = &codedError{signer.Closed, errors.New("the PKCS#11 backend is closed")}
