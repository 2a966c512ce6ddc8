package service

import (
	"errors"
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, offset := range map[string]time.Duration{"right": 0, "behind": 30 * time.Second, "ahead": -30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			now := start
			c := clock{now: func() time.Time { return now }}
			if _, err := c.stamp(); !errors.Is(err, errNoLease) || c.remaining(time.Hour) != 0 {
				t.Errorf("before the first heartbeat: %v", err)
			}
			// The answer took a second, the database read its clock in the middle.
			now = start.Add(time.Second)
			c.renew(start, now, start.Add(500*time.Millisecond+offset), 30*time.Second)
			if at, err := c.stamp(); err != nil || !at.Equal(now.Add(offset)) || at.Location() != time.UTC {
				t.Errorf("%s, %v", at, err)
			}
			// The lease counts from before the request.
			if got := c.remaining(time.Hour); got != 29*time.Second || c.remaining(time.Second) != time.Second {
				t.Errorf("%s remain", got)
			}
			now = start.Add(30*time.Second - 1)
			if _, err := c.stamp(); err != nil {
				t.Error(err)
			}
			now = start.Add(30 * time.Second)
			if _, err := c.stamp(); !errors.Is(err, errNoLease) || c.remaining(time.Hour) != 0 {
				t.Errorf("at the lease's end: %v, %s remain", err, c.remaining(time.Hour))
			}
			now = start.Add(time.Hour)
			if c.remaining(time.Hour) != 0 || !c.estimate().Equal(now.Add(offset)) {
				t.Errorf("long after: %s remain, estimate %s", c.remaining(time.Hour), c.estimate())
			}
		})
	}
}
