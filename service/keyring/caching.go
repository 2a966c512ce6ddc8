package keyring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/zonemint/zonemint/store"
)

// Caching says for how long a JWK set that is served may be used, in the words of
// the header Cache-Control. It does not change and is safe for concurrent use.
type Caching struct {
	values [][]string // by max-age in seconds
}

// NewCaching returns the rules for sets that may be used for at most longest and,
// by a cache that gets errors when it asks again, for staleIfError more; zero
// allows it no such thing. Both are rounded down to seconds.
func NewCaching(longest, staleIfError time.Duration) *Caching {
	seconds := int(max(longest, 0) / time.Second)
	c := &Caching{values: make([][]string, seconds+1)}
	for age := range c.values {
		text := fmt.Sprintf("public, max-age=%d", age)
		// Who serves a set without knowing it to be current does not ask anybody
		// to go on with it either.
		if stale := int(staleIfError / time.Second); age > 0 && stale > 0 {
			text += fmt.Sprintf(", stale-if-error=%d", stale) // RFC 5861 section 4
		}
		c.values[age] = []string{text}
	}
	return c
}

// pick returns the header's values for a set that may be used for bound. Max-age
// is anything from half of that to all of it: verifiers that came at the same
// time, after an outage or a deployment, do not come back at the same time.
func (c *Caching) pick(bound time.Duration) []string {
	most := min(int(max(bound, 0)/time.Second), len(c.values)-1)
	least := (most + 1) / 2
	return c.values[least+rand.IntN(most-least+1)] //nolint:gosec // nobody gains by guessing it
}

// plan notes when the set will change, as far as the rows say.
func (k *Keyset) plan(more []time.Time) {
	k.planned = slices.Clone(more)
	for _, key := range k.Keys {
		if key.Imported && !key.TrustedUntil.IsZero() {
			k.planned = append(k.planned, key.TrustedUntil)
		}
	}
	slices.SortFunc(k.planned, time.Time.Compare)
}

// NextChange returns the first moment after now at which the set will change, as
// far as it is planned; the zero time if nothing is. A change that is overdue
// does not count: it waits for something that has no date.
func (k *Keyset) NextChange(now time.Time) time.Time {
	for _, at := range k.planned {
		if at.After(now) {
			return at
		}
	}
	return time.Time{}
}

// FreshFor returns for how long from now the set may be used, if nothing but
// planned changes end that before most is over. Nobody is to keep a set while none
// of its keys signs: the next one will as soon as it may. That of a new keyset may at
// once, and so may its second key, which nobody has a set without.
func (k *Keyset) FreshFor(now time.Time, most time.Duration) time.Duration {
	if k.active == nil {
		return 0
	}
	if next := k.NextChange(now); !next.IsZero() {
		return min(most, next.Sub(now))
	}
	return most
}

// Planner says when the JWK set of a keyset with these live keys is going to
// change. Ends of trust in imported keys need not be among it. It is called when
// the ring is loaded.
type Planner func(ks store.Keyset, keys []store.SigningKey) []time.Time

func (r *Ring) plannedFor(ks *Keyset) []time.Time {
	if r.Planned == nil {
		return nil
	}
	return r.Planned(ks.Keyset, ks.Keys)
}
