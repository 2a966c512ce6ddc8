package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Budget stands in front of a backend that bears only so many signatures a second,
// and shares them out among the keysets that ask: each gets its turn, so that one
// that asks for thousands takes nothing from one that asks for ten. Who cannot be
// served in time is told so at once and when to come back, instead of waiting for
// a deadline or adding to the load.
//
// The rate is what BudgetOptions say. When the backend says several times all the same
// that it is asked too much, the rate falls below what it has just borne, and grows
// again while it says so no more. Nothing is ever tried again: that would be load on
// top of overload.
//
// A probe (see [Key.Probe]) does not wait in line: keys are made and backends looked
// after in the midst of a flood.
//
// It is safe for concurrent use. It starts no goroutine; a timer runs while
// somebody waits.
type Budget struct {
	Backend
	opts BudgetOptions

	mu     sync.Mutex
	rate   float64 // signatures a second; 0 while nothing bounds them
	saved  float64 // signatures that may be made at once
	as     time.Time
	lines  []*line // those with somebody in them; the first has the next turn
	queued int
	timer  *time.Timer

	borne    window        // signatures that were made
	refused  window        // that the backend throttled
	took     time.Duration // about how long a signature takes, once it has its turn
	lowered  time.Time
	throttle float64 // the rate that was last too much
	gaveUp   int64
}

// BudgetOptions shape a [Budget].
type BudgetOptions struct {
	// PerSecond is how many signatures may be asked for in a second; 0 for as many
	// as the backend bears. Every process has a budget of its own.
	PerSecond float64
	// Waiting is how many requests may wait for their turn; 256.
	Waiting int
	// Patience is how long a request waits at the most; 1 s.
	Patience time.Duration
	// Limited is told when the backend begins to say that it is asked too much, with
	// the rate from then on, and with 0 when nothing but PerSecond bounds it again.
	// It is called under a lock and does not call back.
	Limited func(perSecond float64)
	// Now is the clock; time.Now.
	Now func() time.Time
}

// Budgeted is a [Backend] whose configuration says what may be asked of it.
type Budgeted interface {
	Budget() BudgetOptions
}

const (
	leastRate = 1.0                    // signatures a second, however often the backend says that it is too many
	caution   = 0.85                   // of what the backend has borne before it said so
	judged    = 3                      // times within a second it has to say so
	growth    = 0.5                    // of itself, a second, once it has been left alone for
	settled   = 2 * time.Second        // so long; before that it grows more slowly
	relief    = 4.0                    // times the rate that was too much: from there on nothing is bounded
	respite   = 100 * time.Millisecond // between two reductions: what is under way may yet fail too
)

// line is the requests of one keyset that wait, in the order in which they came.
type line struct {
	keyset  string
	waiters []*waiter
}

// waiter is a request that waits. Who takes it out of its line says what became of
// it, once.
type waiter struct{ turn chan error }

// crowdedError is what requests fail with that are not let through.
type crowdedError struct {
	after     time.Duration
	throttled bool // the backend has said that it is too much, not just the configuration
}

func (e *crowdedError) Error() string {
	return fmt.Sprintf("not asked: too many signatures are wanted of this backend; try again in %s", e.after.Round(time.Millisecond))
}

// RetryAfter returns when to try again what failed with an error whose code is
// Throttled. It is not the same each time, so that those who were sent away together
// do not come back together.
func RetryAfter(err error) time.Duration {
	after := time.Second
	if e, ok := errors.AsType[*crowdedError](err); ok {
		after = max(e.after, 50*time.Millisecond)
	}
	return after + rand.N(after/2+1) //nolint:gosec // spreads load
}

// ByBackend says whether a failure whose code is Throttled comes from the backend, and
// not from a bound that the configuration has set.
func ByBackend(err error) bool {
	e, ok := errors.AsType[*crowdedError](err)
	return !ok || e.throttled
}

// NewBudget returns b behind a budget.
func NewBudget(b Backend, opts BudgetOptions) *Budget {
	if opts.Waiting == 0 {
		opts.Waiting = 256
	}
	if opts.Patience == 0 {
		opts.Patience = time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Budget{Backend: b, opts: opts, rate: opts.PerSecond, saved: burst(opts.PerSecond), as: opts.Now()}
}

// burst is how many signatures may be saved up.
func burst(rate float64) float64 { return max(1, rate/20) }

// Unwrap returns the backend behind the budget.
func (b *Budget) Unwrap() Backend { return b.Backend }

// Code implements [Backend].
func (b *Budget) Code(err error) Code {
	if _, ok := errors.AsType[*crowdedError](err); ok {
		return Throttled
	}
	return b.Backend.Code(err)
}

// Open implements [Backend].
func (b *Budget) Open(ctx context.Context, spec Spec, ref Ref) (Handle, error) {
	h, err := b.Backend.Open(ctx, spec, ref)
	if err != nil {
		return nil, err
	}
	if many, ok := h.(BatchHandle); ok {
		return &rationedBatch{rationed{b, h, spec.Keyset}, many}, nil
	}
	return &rationed{b, h, spec.Keyset}, nil
}

// rationed is a handle whose signatures count.
type rationed struct {
	b      *Budget
	h      Handle
	keyset string
}

func (h *rationed) Public(ctx context.Context) (crypto.PublicKey, error) { return h.h.Public(ctx) }

func (h *rationed) Sign(ctx context.Context, alg Algorithm, in []byte) (sig []byte, err error) {
	err = h.b.spend(ctx, h.keyset, func(ctx context.Context) (err error) { sig, err = h.h.Sign(ctx, alg, in); return err })
	return sig, err
}

// rationedBatch is a handle that signs many in one call, which counts as one.
type rationedBatch struct {
	rationed
	many BatchHandle
}

func (h *rationedBatch) SignBatch(ctx context.Context, alg Algorithm, ins [][]byte) (sigs [][]byte, errs []error) {
	err := h.b.spend(ctx, h.keyset, func(ctx context.Context) error {
		sigs, errs = h.many.SignBatch(ctx, alg, ins)
		return common(errs)
	})
	if errs == nil && err != nil {
		return make([][]byte, len(ins)), slices.Repeat([]error{err}, len(ins))
	}
	return sigs, errs
}

// spend makes a call when it is the keyset's turn, and learns from how it ends. The
// patience that ctx carries begins with the call: waiting in line says nothing of the
// backend.
func (b *Budget) spend(ctx context.Context, keyset string, call func(context.Context) error) error {
	if err := b.take(ctx, keyset); err != nil {
		return err
	}
	ctx, cancel := impatient(ctx)
	defer cancel()
	began := b.opts.Now()
	err := call(ctx)
	b.learn(b.opts.Now().Sub(began), err)
	return err
}

// take waits for the keyset's turn, as long as its request then still has time for the call.
func (b *Budget) take(ctx context.Context, keyset string) error {
	w, most, err := b.enter(ctx, keyset)
	if w == nil {
		return err
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case err := <-w.turn:
		return err
	case <-timer.C:
	case <-ctx.Done():
	}
	if err := b.leave(keyset, w, ctx.Err()); err != nil {
		return err
	}
	return <-w.turn // it came at the same moment
}

// enter lets a request through, refuses it, or puts it into its line, where it may
// stay for so long.
func (b *Budget) enter(ctx context.Context, keyset string) (w *waiter, most time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opts.Now()
	b.refill(now)
	switch {
	case b.rate == 0:
		b.serve() // whoever waited for the rate to rise
		return nil, 0, nil
	case probing(ctx):
		b.saved = max(b.saved-1, -burst(b.rate)) // others wait for it
		return nil, 0, nil
	case b.queued == 0 && b.saved >= 1:
		b.saved--
		return nil, 0, nil
	}
	l := b.line(keyset)
	wait := b.expected(len(l.waiters))
	most = b.opts.Patience
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, deadline.Sub(now)-b.took*3/2)
	}
	if wait > most || b.queued >= b.opts.Waiting && !b.makeRoom(l) {
		b.gaveUp++
		b.tidy()
		return nil, 0, &crowdedError{wait, b.throttle > 0}
	}
	w = &waiter{make(chan error, 1)}
	l.waiters = append(l.waiters, w)
	b.queued++
	b.schedule()
	return w, most, nil
}

// expected is how long the one waits who comes after so many of its keyset, if all
// keysets that wait take turns.
func (b *Budget) expected(before int) time.Duration {
	turns := 1 - b.saved
	for _, l := range b.lines {
		turns += float64(min(len(l.waiters), before+1))
	}
	return time.Duration(max(turns, 0) / b.rate * float64(time.Second))
}

// line returns the keyset's line, a new one at the end if it has none.
func (b *Budget) line(keyset string) *line {
	for _, l := range b.lines {
		if l.keyset == keyset {
			return l
		}
	}
	l := &line{keyset: keyset}
	b.lines = append(b.lines, l)
	return l
}

// makeRoom sends away the last one of the longest line, if that is longer than l
// would become: a keyset with few requests is not kept out by one with many.
func (b *Budget) makeRoom(l *line) bool {
	longest := slices.MaxFunc(b.lines, func(a, b *line) int { return len(a.waiters) - len(b.waiters) })
	last := len(longest.waiters) - 1
	if last <= len(l.waiters) {
		return false
	}
	longest.waiters[last].turn <- &crowdedError{b.expected(last), b.throttle > 0}
	longest.waiters = longest.waiters[:last]
	b.queued--
	b.gaveUp++
	return true
}

// leave takes a waiter out of its line and returns what its request fails with: end, if
// its caller has left. It returns nil if somebody else has taken it out.
func (b *Budget) leave(keyset string, w *waiter, end error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		i := slices.Index(l.waiters, w)
		if l.keyset != keyset || i < 0 {
			continue
		}
		l.waiters = slices.Delete(l.waiters, i, i+1)
		b.queued--
		defer b.tidy()
		if errors.Is(end, context.Canceled) {
			return end
		}
		b.gaveUp++
		return &crowdedError{b.expected(len(l.waiters)), b.throttle > 0}
	}
	return nil
}

// tidy forgets lines with nobody in them.
func (b *Budget) tidy() {
	b.lines = slices.DeleteFunc(b.lines, func(l *line) bool { return len(l.waiters) == 0 })
}

// schedule has serve called when the next signature may be made.
func (b *Budget) schedule() {
	if b.queued == 0 || b.timer != nil {
		return
	}
	wait := time.Duration(max(1-b.saved, 0) / b.rate * float64(time.Second))
	b.timer = time.AfterFunc(wait+time.Microsecond, func() { // not a moment too early, which would be again and again
		b.mu.Lock()
		defer b.mu.Unlock()
		b.timer = nil
		b.refill(b.opts.Now())
		b.serve()
	})
}

// serve lets through whoever has the next turns.
func (b *Budget) serve() {
	for b.queued > 0 && (b.saved >= 1 || b.rate == 0) {
		l := b.lines[0]
		l.waiters[0].turn <- nil
		l.waiters = l.waiters[1:]
		b.queued--
		if b.rate > 0 {
			b.saved--
		}
		b.lines = append(b.lines[1:], l) // its next one comes after everybody else's
		b.tidy()
	}
	b.schedule()
}

// refill adds what has been saved up since the last time, at a rate that grows
// back to what it was.
func (b *Budget) refill(now time.Time) {
	passed := now.Sub(b.as).Seconds()
	if b.as = now; passed <= 0 || b.rate == 0 {
		return
	}
	b.saved = min(b.saved+passed*b.rate, burst(b.rate))
	if b.throttle == 0 || now.Sub(b.lowered) < respite {
		return
	}
	boldness := min(1, now.Sub(b.lowered).Seconds()/settled.Seconds())
	b.rate *= math.Pow(1+growth*boldness, passed)
	most := relief * b.throttle
	if b.opts.PerSecond > 0 {
		most = min(most, b.opts.PerSecond)
	}
	if b.rate >= most {
		b.rate, b.throttle = b.opts.PerSecond, 0
		b.tell(0)
	}
}

// learn looks at how a signature ended.
func (b *Budget) learn(took time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opts.Now()
	switch {
	case err == nil:
		b.borne.add(now)
		b.took += (took - b.took) / 8
	case b.Backend.Code(err) == Throttled:
		b.refused.add(now)
		b.lower(now)
	}
}

// lower bounds the rate by what the backend has borne in the last second. Once is not
// enough for that: a quota may be shared with others, and where little is asked for,
// what was borne says nothing of what could be.
func (b *Budget) lower(now time.Time) {
	if b.borne.begin(now); now.Sub(b.lowered) < respite || now.Sub(b.borne.since) < respite || b.refused.count(now) < judged {
		return // too soon to know more than before
	}
	b.refill(now)
	borne := b.borne.rate(now)
	if b.rate > 0 {
		borne = min(borne, b.rate)
	}
	free := b.throttle == 0
	b.lowered, b.throttle = now, max(borne, leastRate)
	b.rate, b.saved = max(caution*borne, leastRate), 0
	if b.opts.PerSecond > 0 {
		b.rate = min(b.rate, b.opts.PerSecond)
	}
	if free {
		b.tell(b.rate)
	}
}

func (b *Budget) tell(rate float64) {
	if b.opts.Limited != nil {
		b.opts.Limited(rate)
	}
}

// BudgetStats is what is going on at a [Budget].
type BudgetStats struct {
	PerSecond float64 // the rate now; 0 if nothing bounds it
	Waiting   int
	GaveUp    int64 // requests that were refused, since the start
}

// Stats returns what is going on.
func (b *Budget) Stats() BudgetStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BudgetStats{PerSecond: b.rate, Waiting: b.queued, GaveUp: b.gaveUp}
}

// window counts what happened within the last second, in tenths of it.
type window struct {
	counts [10]int
	at     int64     // tenths of a second, of the newest count
	since  time.Time // what is before it was not counted
}

func (w *window) turn(now time.Time) {
	tenth := now.UnixMilli() / 100
	for ; w.at < tenth; w.at++ {
		if tenth-w.at > int64(len(w.counts)) {
			w.at = tenth - int64(len(w.counts))
		}
		w.counts[(w.at+1)%int64(len(w.counts))] = 0
	}
}

func (w *window) add(now time.Time) {
	w.begin(now)
	w.turn(now)
	w.counts[w.at%int64(len(w.counts))]++
}

func (w *window) begin(now time.Time) {
	if w.since.IsZero() {
		w.since = now
	}
}

// count is how many happened in the second before now.
func (w *window) count(now time.Time) (total int) {
	w.turn(now)
	for _, n := range w.counts {
		total += n
	}
	return total
}

// rate is how many a second happened in the second before now, or since the first.
func (w *window) rate(now time.Time) float64 {
	return float64(w.count(now)) / min(1, max(now.Sub(w.since), respite).Seconds())
}
