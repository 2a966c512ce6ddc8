package service

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// fakeTime is what a replica's two clocks and the database's show.
type fakeTime struct{ wall, mono, db time.Time }

// now is the true time that the clocks of a fakeTime start from.
func now() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// newFakeTime returns a clock by these clocks. The wall clock is ahead of the
// database's; the monotonic one counts from somewhere.
func newFakeTime(ahead time.Duration) (*fakeTime, *clock) {
	f := &fakeTime{wall: now().Add(ahead).In(time.FixedZone("CET", 3600)), mono: time.Unix(7, 0), db: now()}
	return f, &clock{
		wall: func() time.Time { return f.wall }, mono: func() time.Time { return f.mono }, maxOffset: time.Minute,
	}
}

func (f *fakeTime) pass(d time.Duration) {
	f.wall, f.mono, f.db = f.wall.Add(d), f.mono.Add(d), f.db.Add(d)
}

// beat is a heartbeat that the database answers in the middle of a round trip.
func (f *fakeTime) beat(c *clock, roundTrip, ttl time.Duration) turn {
	sent := c.read()
	f.pass(roundTrip / 2)
	db := f.db
	f.pass(roundTrip / 2)
	return c.renew(sent, c.read(), db, ttl)
}

const ttl = 30 * time.Second

// wantStamp wants a time that is late by less than some time, and never ahead.
func wantStamp(t *testing.T, f *fakeTime, c *clock, late time.Duration) {
	t.Helper()
	at, err := c.stamp()
	if err != nil || at.After(f.db) || f.db.Sub(at) > late || at.Location() != time.UTC {
		t.Errorf("stamp %s, %v; the database's clock shows %s", at, err, f.db)
	}
}

func wantRefused(t *testing.T, c *clock, is error, text string) {
	t.Helper()
	if at, err := c.stamp(); !errors.Is(err, is) || !strings.Contains(err.Error(), text) || !at.IsZero() {
		t.Errorf("stamp %s, %v; want the error %v: %s", at, err, is, text)
	}
}

func TestLease(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"right": 0, "behind": -30 * time.Second, "ahead": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			f, c := newFakeTime(ahead)
			wantRefused(t, c, errNoLease, "")
			if c.remaining(time.Hour) != 0 {
				t.Error("a lease before the first heartbeat")
			}
			f.beat(c, time.Second, ttl)
			wantStamp(t, f, c, 1001*time.Millisecond)
			if got := c.offset(); got != -ahead {
				t.Errorf("offset %s", got)
			}
			// The lease counts from before the request.
			if got := c.remaining(time.Hour); got != ttl-time.Second || c.remaining(time.Second) != time.Second {
				t.Errorf("%s remain", got)
			}
			f.pass(ttl - time.Second - 1)
			wantStamp(t, f, c, 1010*time.Millisecond)
			f.pass(1)
			wantRefused(t, c, errNoLease, "")
			f.pass(time.Hour)
			if c.remaining(time.Hour) != 0 || !c.estimate().Equal(f.db) {
				t.Errorf("long after: %s remain, estimate %s", c.remaining(time.Hour), c.estimate())
			}
		})
	}
}

// A clock that was set back makes no lease longer.
func TestLeaseEndsByEitherClock(t *testing.T) {
	for name, move := range map[string]struct{ wall, mono time.Duration }{
		"set back": {-time.Hour, ttl}, "suspended": {ttl, 0}, "set ahead": {ttl, time.Second},
	} {
		f, c := newFakeTime(0)
		f.beat(c, 0, ttl)
		f.wall, f.mono, f.db = f.wall.Add(move.wall), f.mono.Add(move.mono), f.db.Add(ttl)
		wantRefused(t, c, errNoLease, "")
		if got := c.remaining(time.Hour); got != 0 {
			t.Errorf("%s: %s remain", name, got)
		}
	}
}

// The machine is suspended while the database's answer is on its way.
func TestSuspendedDuringAHeartbeat(t *testing.T) {
	f, c := newFakeTime(0)
	sent, db := c.read(), f.db
	f.pass(10 * time.Millisecond)
	f.wall, f.db = f.wall.Add(20*time.Second), f.db.Add(20*time.Second)
	c.renew(sent, c.read(), db, ttl)
	wantRefused(t, c, errClockUnknown, "")
	if got := c.remaining(time.Hour); got > 10*time.Second {
		t.Errorf("%s remain", got)
	}
}

// What happens to the replica's clocks within a lease, and what comes of it
// before and after the next heartbeat.
func TestClockEvents(t *testing.T) {
	for name, e := range map[string]struct {
		wall, mono time.Duration // what each counts while 5 seconds pass
		db         time.Duration // and the database's
		is         error
		text       string
		after      error // once a heartbeat has come
		jumped     bool
	}{
		"nothing":             {5 * time.Second, 5 * time.Second, 5 * time.Second, nil, "", nil, false},
		"little":              {6 * time.Second, 5 * time.Second, 5 * time.Second, nil, "", nil, false},
		"set ahead":           {15 * time.Second, 5 * time.Second, 5 * time.Second, errClockJumped, "jumped by 10s; it signs again", nil, true},
		"set back":            {-25 * time.Second, 5 * time.Second, 5 * time.Second, errClockJumped, "jumped by -30s;", nil, true},
		"set far ahead":       {time.Hour, 5 * time.Second, 5 * time.Second, errNoLease, "lost touch", errClockOffset, true},
		"set far back":        {-time.Hour, 5 * time.Second, 5 * time.Second, errClockJumped, "jumped by -1h0m5s", errClockOffset, true},
		"suspended":           {5 * time.Second, time.Second, 5 * time.Second, errClockJumped, "jumped by 4s", nil, true},
		"suspended for long":  {time.Hour, time.Second, time.Hour, errNoLease, "lost touch", nil, true},
		"suspended for a bit": {5 * time.Second, 4 * time.Second, 5 * time.Second, nil, "", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newFakeTime(10 * time.Second)
			f.beat(c, time.Millisecond, ttl)
			f.wall, f.mono, f.db = f.wall.Add(e.wall), f.mono.Add(e.mono), f.db.Add(e.db)
			if e.is != nil {
				wantRefused(t, c, e.is, e.text)
			} else {
				wantStamp(t, f, c, jumpTolerance)
			}
			if c.estimate().Before(f.db) {
				t.Errorf("the estimate, by which things expire, is early: %s, %s", c.estimate(), f.db)
			}
			turn := f.beat(c, time.Millisecond, ttl)
			if got := turn.jump.Abs() > jumpTolerance; got != e.jumped {
				t.Errorf("the heartbeat saw a jump of %s", turn.jump)
			}
			if e.after != nil {
				wantRefused(t, c, e.after, "")
				return
			}
			wantStamp(t, f, c, 10*time.Millisecond)
		})
	}
}

func TestClockOffset(t *testing.T) {
	for ahead, text := range map[time.Duration]string{
		0: "", time.Minute: "", -time.Minute: "", 59 * time.Second: "",
		123 * time.Second:        "this replica's clock is 2m3s ahead of the database's, more than the 1m0s allowed; set the clock (NTP)",
		-123 * time.Second:       "this replica's clock is 2m3s behind the database's, more than the 1m0s allowed; set the clock (NTP)",
		time.Minute + time.Hour:  "1h1m0s ahead of",
		-time.Minute - time.Hour: "1h1m0s behind the",
	} {
		f, c := newFakeTime(ahead)
		turn := f.beat(c, 0, ttl)
		if text == "" {
			wantStamp(t, f, c, 0)
			continue
		}
		wantRefused(t, c, errClockOffset, text)
		if !errors.Is(turn.is, errClockOffset) || turn.was != nil {
			t.Errorf("%s: the heartbeat says %+v", ahead, turn)
		}
		// JWK sets are as good as ever.
		if got := c.remaining(time.Minute); got != ttl {
			t.Errorf("%s: %s remain", ahead, got)
		}
		f.wall = f.db
		if turn := f.beat(c, 0, ttl); !errors.Is(turn.was, errClockOffset) || turn.is != nil {
			t.Errorf("%s: set right, the heartbeat says %+v", ahead, turn)
		}
		wantStamp(t, f, c, 0)
	}
}

// Answers that take long say little about the time.
func TestClockUncertainty(t *testing.T) {
	f, c := newFakeTime(0)
	f.beat(c, 3*time.Second, ttl)
	wantRefused(t, c, errClockUnknown, "only be told to within 1.5s, and 1s is needed")
	if got := c.remaining(time.Minute); got != ttl-3*time.Second {
		t.Errorf("%s remain", got)
	}
	f.beat(c, 20*time.Millisecond, ttl)
	wantStamp(t, f, c, 21*time.Millisecond)

	// The good measurement is kept, and ages.
	for range 100 {
		f.pass(5 * time.Second)
		f.beat(c, 3*time.Second, ttl)
		wantStamp(t, f, c, 200*time.Millisecond)
	}
	if got := c.uncertainty(); got < 100*time.Millisecond || got > 200*time.Millisecond {
		t.Errorf("after 13 minutes the uncertainty is %s", got)
	}
	for range 1000 {
		f.pass(5 * time.Second)
		f.beat(c, 3*time.Second, ttl)
	}
	wantRefused(t, c, errClockUnknown, "")
	f.beat(c, time.Millisecond, ttl)
	wantStamp(t, f, c, time.Millisecond)
}

// A heartbeat may contradict the measurement that was kept. Then it is the old
// one that is wrong, whatever it was good for.
func TestClockContradiction(t *testing.T) {
	for name, c := range map[string]struct {
		move      time.Duration // of the database's clock
		roundTrip time.Duration
		is        error
	}{
		"moved":                         {-10 * time.Second, 100 * time.Millisecond, nil},
		"moved ahead":                   {10 * time.Second, 100 * time.Millisecond, nil},
		"moved, and the answer is slow": {-10 * time.Second, 4 * time.Second, errClockUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			f, clock := newFakeTime(0)
			f.beat(clock, time.Millisecond, ttl)
			f.pass(5 * time.Second)
			f.db = f.db.Add(c.move)
			f.beat(clock, c.roundTrip, ttl)
			if c.is != nil {
				wantRefused(t, clock, c.is, "")
				return
			}
			wantStamp(t, f, clock, 2*c.roundTrip)
		})
	}
}

// However the database reads its clock within the call, no stamp is ahead of it.
func TestStampIsNeverAhead(t *testing.T) {
	const roundTrip = 800 * time.Millisecond
	for _, there := range []time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond, 600 * time.Millisecond, roundTrip} {
		f, c := newFakeTime(20 * time.Second)
		sent := c.read()
		f.pass(there)
		db := f.db
		f.pass(roundTrip - there)
		c.renew(sent, c.read(), db, ttl)
		wantStamp(t, f, c, roundTrip+time.Millisecond)
	}
}
