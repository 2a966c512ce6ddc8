package service

import (
	"errors"
	"sync/atomic"
	"time"
)

// errNoLease: the replica has lost touch with the database. It cannot tell the
// database's time any more, nor whether its keys may still sign.
var errNoLease = errors.New("this replica has lost touch with the database")

// clock tells the database's time: the replica's own, corrected by an offset
// that every heartbeat measures, and only as long as the lease lasts.
type clock struct {
	now   func() time.Time
	state atomic.Pointer[lease]
}

// lease is what the last heartbeat brought. Its end is on the replica's own
// clock, counted from before the request was sent, so that it ends here no
// later than in the database.
type lease struct {
	at   time.Time // on the replica's clock
	db   time.Time // the database's clock at that moment
	ends time.Time
}

// renew takes in the answer to a heartbeat that was sent and answered at these
// moments of the replica's clock. The database read its own clock in between.
func (c *clock) renew(sent, answered, db time.Time, ttl time.Duration) {
	middle := sent.Add(answered.Sub(sent) / 2)
	c.state.Store(&lease{at: middle, db: db, ends: sent.Add(ttl)})
}

// stamp returns the database's time, errNoLease if it is not known.
func (c *clock) stamp() (time.Time, error) {
	l, now := c.state.Load(), c.now()
	if l == nil || !now.Before(l.ends) {
		return time.Time{}, errNoLease
	}
	return l.db.Add(now.Sub(l.at)), nil
}

// estimate returns the database's time as far as it is known.
func (c *clock) estimate() time.Time {
	now := c.now()
	if l := c.state.Load(); l != nil {
		return l.db.Add(now.Sub(l.at))
	}
	return now.UTC()
}

func (c *clock) offset() time.Duration {
	if l := c.state.Load(); l != nil {
		return l.db.Sub(l.at.Round(0))
	}
	return 0
}

// remaining returns how long the lease lasts, not more than most and not less
// than zero.
func (c *clock) remaining(most time.Duration) time.Duration {
	l := c.state.Load()
	if l == nil {
		return 0
	}
	return max(0, min(most, l.ends.Sub(c.now())))
}
