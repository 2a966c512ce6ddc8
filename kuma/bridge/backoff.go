package bridge

import (
	"math/rand/v2"
	"time"
)

// What failed is tried again at first soon, and then less often, never at the same
// moment as others who wait for the same thing.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// backoff counts failures in a row.
type backoff int

// next returns how long to wait after an attempt: nothing if it succeeded.
func (b *backoff) next(err error) time.Duration {
	if err == nil {
		*b = 0
		return 0
	}
	pause := min(firstPause<<min(int(*b), 10), lastPause)
	*b++
	return pause/2 + rand.N(pause/2) //nolint:gosec // spreads load, hides nothing
}
