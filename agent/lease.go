package agent

import (
	"math/rand/v2"
	"time"
)

// A token is renewed when renewAt of its life is over, or up to earlier of its life
// before that: agents that began together do not come back together.
const (
	renewAt = 2.0 / 3
	earlier = 1.0 / 20
)

// backdateMost is by how much an issuer dates a token back at the most.
const backdateMost = 10 * time.Minute

// moment is a time by two clocks: the process's, which nobody sets but which stands
// still while the machine sleeps, and the machine's.
type moment struct{ mono, wall time.Time }

// since returns what the two clocks say, the longer time first.
func (m moment) since(from moment) (long, short time.Duration) {
	a, b := m.mono.Sub(from.mono), m.wall.Sub(from.wall)
	return max(a, b), min(a, b)
}

// lease is a token and how long it may be relied on.
type lease struct {
	Token
	from  moment        // when its life began, or before that
	life  time.Duration // counted from there
	renew time.Duration // likewise: when to ask for the next one
}

func newLease(t Token, from moment, life time.Duration) *lease {
	renew := time.Duration(float64(life) * (renewAt - rand.Float64()*earlier)) //nolint:gosec // spreads load, and keeps nothing secret
	return &lease{t, from, life, renew}
}

// left is how long the token is valid for; negative if it is not any more.
func (l *lease) left(now moment) time.Duration {
	long, _ := now.since(l.from)
	return l.life - long
}

// leftForSure is the same, unless one of the clocks was set.
func (l *lease) leftForSure(now moment) time.Duration {
	_, short := now.since(l.from)
	return l.life - short
}

// untilRenewal is how long to leave the token alone; negative if its time has come.
func (l *lease) untilRenewal(now moment) time.Duration {
	long, _ := now.since(l.from)
	return l.renew - long
}

const (
	pauseFirst = time.Second
	pauseMost  = time.Minute
	pauseNear  = 5 * time.Second // the most when expiry is near, or over
)

// pause returns how long to wait after so many failures in a row, with a token
// that is valid for that long.
func pause(failures int, left time.Duration) time.Duration {
	d := pauseMost
	if failures <= 6 {
		d = min(d, pauseFirst<<max(failures-1, 0))
	}
	d = min(d, max(left/10, pauseNear))
	return d/2 + rand.N(d/2) //nolint:gosec // spreads load, and keeps nothing secret
}
