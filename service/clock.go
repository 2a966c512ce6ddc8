package service

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// errNoLease: the replica has lost touch with the database. It cannot tell the
// database's time any more, nor whether its keys may still sign.
var errNoLease = errors.New("this replica has lost touch with the database")

// Why a replica that has its lease does not sign all the same. Their texts, which
// clockError gives them, are for callers.
var (
	errClockOffset  = errors.New("this replica's clock is wrong")
	errClockJumped  = errors.New("this replica's clock jumped")
	errClockUnknown = errors.New("the database's clock is not known")
)

const (
	// jumpTolerance is how far the wall clock and the monotonic clock may drift
	// apart between two heartbeats. A clock that is being slewed takes both along;
	// what moves only one is setting the clock, or suspending the machine.
	jumpTolerance = 2 * time.Second
	// maxUncertainty is how far off the database's clock may be taken for what it
	// is not.
	maxUncertainty = time.Second
	// A measurement is this much less certain with every second since: clocks of
	// machines that are not slewed gain or lose less than 1 in 5,000.
	driftPer = 5000
)

// clock tells the database's time: what a heartbeat measured, and what the
// monotonic clock has counted since, for as long as the lease lasts. It watches
// the replica's wall clock too, and refuses to tell the time when that is wrong
// or the two disagree: then something has happened to this machine that makes
// either of them a guess. It is safe for concurrent use.
type clock struct {
	wall      func() time.Time // the replica's clock, which may jump
	mono      func() time.Time // read for differences only
	maxOffset time.Duration

	mu    sync.Mutex // one renewal at a time
	state atomic.Pointer[lease]
}

// instant is one moment on the replica's two clocks.
type instant struct{ wall, mono time.Time }

func (c *clock) read() instant { return instant{c.wall().Round(0), c.mono()} }

// since returns what each clock has counted since an earlier moment.
func (i instant) since(earlier instant) (wall, mono time.Duration) {
	return i.wall.Sub(earlier.wall), i.mono.Sub(earlier.mono)
}

// lease is what the last heartbeat brought. Its end is counted from before the
// request was sent, so that it ends here no later than in the database.
type lease struct {
	sample
	sent, answered instant
	ttl            time.Duration
	offset         time.Duration // the database's clock minus the wall clock
	fault          error         // why nothing may be signed, nil if it may
}

// renew takes in the answer to a heartbeat that was sent and answered at these
// moments. The database read its own clock in between.
func (c *clock) renew(sent, answered instant, db time.Time, ttl time.Duration) turn {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &lease{sample: measure(sent, answered, db), sent: sent, answered: answered, ttl: ttl}
	var t turn
	if before := c.state.Load(); before != nil {
		l.sample = before.or(l.sample, answered.mono)
		t = turn{jump: before.jump(answered), was: before.fault}
	}
	l.offset = l.at(answered.mono).Sub(answered.wall)
	l.fault = c.judge(l)
	t.is = l.fault
	c.state.Store(l)
	return t
}

// turn is what a heartbeat changed in the opinion of the clock.
type turn struct {
	jump    time.Duration // of the wall clock against the monotonic one
	was, is error         // the lease's fault
}

func (c *clock) judge(l *lease) error {
	if u := l.uncertainty(l.answered.mono); u > maxUncertainty {
		return &clockError{errClockUnknown, fmt.Sprintf("the database's clock can only be told to within %s, and %s is needed; "+
			"its answers take too long", rough(u), maxUncertainty)}
	}
	if l.offset.Abs() > c.maxOffset {
		where := "behind"
		if l.offset < 0 {
			where = "ahead of"
		}
		return &clockError{errClockOffset, fmt.Sprintf("this replica's clock is %s %s the database's, more than the %s allowed; "+
			"set the clock (NTP)", rough(l.offset.Abs()), where, c.maxOffset)}
	}
	return nil
}

// stamp returns the database's time, no later than it is. It fails with
// errNoLease if there is no lease, and with a clockError if the time is not
// known well enough to date tokens by it.
func (c *clock) stamp() (time.Time, error) {
	l, now := c.state.Load(), c.read()
	switch {
	case l == nil || l.remaining(now) <= 0:
		return time.Time{}, errNoLease
	case l.fault != nil:
		return time.Time{}, l.fault
	}
	if by := l.jump(now); by.Abs() > jumpTolerance {
		return time.Time{}, &clockError{errClockJumped,
			fmt.Sprintf("this replica's clock jumped by %s; it signs again after the next heartbeat", rough(by))}
	}
	return l.at(now.mono).Add(-l.uncertainty(now.mono)), nil
}

// estimate returns the database's time as far as it is known, lease or no lease.
// Of two clocks that disagree the later one counts, by which less is valid.
func (c *clock) estimate() time.Time {
	now, _ := c.outlook()
	return now
}

func (l *lease) estimate(now instant) time.Time {
	return l.at(now.mono).Add(max(0, l.jump(now)))
}

// remaining returns how long the lease lasts, not more than most and not less
// than zero.
func (c *clock) remaining(most time.Duration) time.Duration {
	_, left := c.outlook()
	return min(most, left)
}

// outlook returns the database's time as estimate does, and how long the lease
// lasts, not less than zero.
func (c *clock) outlook() (now time.Time, left time.Duration) {
	l, i := c.state.Load(), c.read()
	if l == nil {
		return i.wall.UTC(), 0
	}
	return l.estimate(i), max(0, l.remaining(i))
}

// offset returns the database's clock minus this replica's at the last heartbeat.
func (c *clock) offset() time.Duration {
	if l := c.state.Load(); l != nil {
		return l.offset
	}
	return 0
}

// uncertainty returns how far off the database's clock may be taken for what it
// is not.
func (c *clock) uncertainty() time.Duration {
	if l := c.state.Load(); l != nil {
		return l.uncertainty(c.mono())
	}
	return 0
}

// remaining is what is left by the clock that says less: the monotonic one stands
// still while the machine is suspended, the wall clock may have been set back.
func (l *lease) remaining(now instant) time.Duration {
	wall, mono := now.since(l.sent)
	return l.ttl - max(wall, mono)
}

// jump returns by how much the wall clock has moved more than the monotonic one
// since the heartbeat.
func (l *lease) jump(now instant) time.Duration {
	wall, mono := now.since(l.answered)
	return wall - mono
}

// clockError is a refusal to sign, in words for callers.
type clockError struct {
	is   error
	text string
}

func (e *clockError) Error() string { return e.text }

func (e *clockError) Unwrap() error { return e.is }

// rough drops digits that say nothing.
func rough(d time.Duration) time.Duration {
	if d.Abs() < 10*time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}
