package signer_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// quota is a backend that takes so many signatures a second, with a bucket of a
// tenth of that, and throttles the rest.
type quota struct {
	signer.Backend
	perSecond         atomic.Int64 // 0 for any number
	signed, throttled atomic.Int64

	mu    sync.Mutex
	saved float64
	as    time.Time
}

func (q *quota) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	h, err := q.Backend.Open(ctx, spec, ref)
	return quotaHandle{h, q}, err
}

type quotaHandle struct {
	signer.Handle
	q *quota
}

func (h quotaHandle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	if !h.q.admits() {
		h.q.throttled.Add(1)
		return nil, signertest.Fail(signer.Throttled)
	}
	h.q.signed.Add(1)
	time.Sleep(10 * time.Millisecond)
	return h.Handle.Sign(ctx, alg, in)
}

func (q *quota) admits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	rate := float64(q.perSecond.Load())
	if rate == 0 {
		return true
	}
	now := time.Now()
	q.saved = min(q.saved+now.Sub(q.as).Seconds()*rate, rate/10)
	if q.as = now; q.saved < 1 {
		return false
	}
	q.saved--
	return true
}

// asker asks for a signature by one keyset, so many times a second, for a while,
// and tells what came of it.
type asker struct {
	key              *signer.Key
	signed, refused  int
	longest, hinted  time.Duration
	requests         int
	between, patient time.Duration
}

func (a *asker) ask(ctx context.Context, t *testing.T, during time.Duration) {
	type outcome struct {
		took time.Duration
		err  error
	}
	outcomes := make(chan outcome)
	n := int(during / a.between)
	for i := range n {
		go func() {
			time.Sleep(time.Duration(i) * a.between)
			ctx, cancel := context.WithTimeout(ctx, a.patient)
			defer cancel()
			began := time.Now()
			_, err := a.key.SignJWS(ctx, []byte("a.b"))
			outcomes <- outcome{time.Since(began), err}
		}()
	}
	for range n {
		o := <-outcomes
		a.longest = max(a.longest, o.took)
		switch {
		case o.err == nil:
			a.signed++
		case signer.CodeOf(o.err) == signer.Throttled:
			a.refused++
			a.hinted = max(a.hinted, signer.RetryAfter(o.err))
		default:
			t.Errorf("%v", o.err)
		}
	}
	a.requests += n
}

func newQuota(t *testing.T, perSecond int64) *quota {
	q := &quota{Backend: signertest.NewFake(t, signertest.FakeOptions{}), as: time.Now()}
	q.perSecond.Store(perSecond)
	return q
}

func askerOf(t *testing.T, b signer.Backend, keyset string, perSecond int) *asker {
	spec := signer.Spec{Keyset: keyset, Serial: 1, Label: signer.NewLabel(), Algorithm: signer.EdDSA}
	ref, err := signer.Create(t.Context(), b, spec)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.Open(t.Context(), b, spec, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &asker{key: key, between: time.Second / time.Duration(perSecond), patient: 5 * time.Second}
}

// together lets several ask at the same time.
func together(t *testing.T, during time.Duration, askers ...*asker) {
	done := make(chan struct{})
	for _, a := range askers {
		go func() { a.ask(t.Context(), t, during); done <- struct{}{} }()
	}
	for range askers {
		<-done
	}
}

// A keyset that asks for ten times what there is takes nothing from one that asks
// for its share; it is told at once that it is too much.
func TestBudgetIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, 0)
		b := signer.NewBudget(q, signer.BudgetOptions{PerSecond: 50, Waiting: 40})
		greedy, modest, other := askerOf(t, b, "greedy", 500), askerOf(t, b, "modest", 10), askerOf(t, b, "other", 10)
		together(t, 20*time.Second, greedy, modest, other)
		for name, a := range map[string]*asker{"modest": modest, "other": other} {
			if a.refused != 0 || a.longest > 200*time.Millisecond {
				t.Errorf("%s: %d of %d were refused, the longest took %s", name, a.refused, a.requests, a.longest)
			}
		}
		if greedy.signed < 580 || greedy.signed > 660 {
			t.Errorf("the greedy one got %d signatures, 600 are left to it", greedy.signed)
		}
		if greedy.longest > 1500*time.Millisecond || greedy.hinted == 0 {
			t.Errorf("the longest took %s, the longest hint is %s", greedy.longest, greedy.hinted)
		}
		if got := q.signed.Load(); got > 50*21 {
			t.Errorf("the backend was asked for %d signatures in 20 s", got)
		}
	})
}

// A backend that throttles is asked for little more than it bears, and for all
// again when it does so no more.
func TestBudgetFollowsTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, 50)
		var limits []float64
		b := signer.NewBudget(q, signer.BudgetOptions{Limited: func(rate float64) { limits = append(limits, rate) }})
		greedy, modest := askerOf(t, b, "greedy", 490), askerOf(t, b, "modest", 10)
		together(t, 5*time.Second, greedy, modest) // finds out
		q.signed.Store(0)
		q.throttled.Store(0)
		greedy.signed, modest.refused, modest.requests = 0, 0, 0
		together(t, 20*time.Second, greedy, modest)
		signed, throttled := q.signed.Load(), q.throttled.Load()
		if signed < 20*50*7/10 || throttled > signed/10 {
			t.Errorf("%d signatures of 1000 that it bears, and %d throttled", signed, throttled)
		}
		if modest.refused > modest.requests/10 {
			t.Errorf("%d of %d requests of the modest one were refused", modest.refused, modest.requests)
		}
		q.perSecond.Store(0)
		together(t, 10*time.Second, greedy, modest) // it recovers
		greedy.refused = 0
		together(t, 5*time.Second, greedy, modest)
		if greedy.refused != 0 || b.Stats().PerSecond != 0 {
			t.Errorf("%d were refused, the rate is %v", greedy.refused, b.Stats().PerSecond)
		}
		if len(limits) != 2 || limits[0] == 0 || limits[1] != 0 {
			t.Errorf("it said %v", limits)
		}
		t.Logf("%d signed and %d throttled of 10,000 that were asked for in 20 s", signed, throttled)
	})
}

// A backend that needs time gets as many requests as it can serve before their
// deadlines, and the others are told so at once: nobody's turn is spent on a call that
// its caller will not wait for.
func TestBudgetLeavesTimeForTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := signertest.NewFake(t, signertest.FakeOptions{Latency: 120 * time.Millisecond})
		b := signer.NewBudget(signer.NewGuard(fake, signer.GuardOptions{}), signer.BudgetOptions{PerSecond: 20})
		a := askerOf(t, b, "zone", 40)
		a.patient = 600 * time.Millisecond
		a.ask(t.Context(), t, 10*time.Second) // fails for what is neither signed nor throttled
		if a.signed < 180 || a.longest > 600*time.Millisecond {
			t.Errorf("%d of 200 that were possible were signed, the longest took %s", a.signed, a.longest)
		}
	})
}

// Patience is with the wait, whatever was foreseen.
func TestBudgetWaitsNoLongerThanItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, 0)
		b := signer.NewBudget(q, signer.BudgetOptions{PerSecond: 100})
		a := askerOf(t, b, "zone", 1000)
		time.AfterFunc(200*time.Millisecond, func() { q.perSecond.Store(1) }) // then it bears next to nothing
		a.patient = 30 * time.Second
		a.ask(t.Context(), t, time.Second)
		if a.longest > 1100*time.Millisecond {
			t.Errorf("somebody waited %s", a.longest)
		}
	})
}

// One throttled answer where little is asked for bounds nothing, and an hour of rest
// lifts what many have bounded.
func TestBudgetForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, 0)
		b := signer.NewBudget(q, signer.BudgetOptions{})
		a := askerOf(t, b, "zone", 1000)
		sign := func() { _, _ = a.key.SignJWS(t.Context(), []byte("a.b")) }
		for range 10 {
			sign()
			time.Sleep(time.Second)
		}
		q.perSecond.Store(1)
		sign()
		sign()
		if rate := b.Stats().PerSecond; rate != 0 {
			t.Errorf("one throttled answer bounds it to %v a second", rate)
		}
		a.ask(t.Context(), t, time.Second)
		if rate := b.Stats().PerSecond; rate == 0 {
			t.Error("hundreds of throttled answers bound nothing")
		}
		q.perSecond.Store(0)
		time.Sleep(time.Hour)
		a.signed, a.refused = 0, 0
		a.ask(t.Context(), t, time.Second)
		if a.refused != 0 {
			t.Errorf("an hour later %d of 1000 are refused", a.refused)
		}
	})
}

// Keys are probed, and so made, in the midst of a flood.
func TestProbesDoNotStandInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := signer.NewBudget(newQuota(t, 0), signer.BudgetOptions{PerSecond: 20})
		a := askerOf(t, b, "zone", 200)
		done := make(chan struct{})
		go func() { defer close(done); a.ask(t.Context(), t, 10*time.Second) }()
		for range 9 {
			time.Sleep(time.Second)
			if err := a.key.Probe(t.Context()); err != nil {
				t.Error(err)
			}
		}
		<-done
	})
}

// What a caller allows the backend begins when the backend is asked.
func TestPatienceBeginsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := signertest.NewFake(t, signertest.FakeOptions{Latency: 50 * time.Millisecond})
		b := signer.NewBudget(fake, signer.BudgetOptions{PerSecond: 2, Patience: time.Minute})
		a := askerOf(t, b, "zone", 1)
		ctx := signer.WithPatience(t.Context(), 100*time.Millisecond)
		for range 5 {
			if _, err := a.key.SignJWS(ctx, []byte("a.b")); err != nil {
				t.Error(err)
			}
		}
		fake.Inject(signertest.Fault{Op: signertest.OpSign, Delay: time.Hour})
		if _, err := a.key.SignJWS(ctx, []byte("a.b")); signer.CodeOf(err) != signer.Unavailable {
			t.Error(err)
		}
	})
}

// Who leaves frees the place; who cannot be served before the deadline is told so
// at once.
func TestBudgetAndDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, 0)
		b := signer.NewBudget(q, signer.BudgetOptions{PerSecond: 2, Patience: time.Minute})
		a := askerOf(t, b, "zone", 1)
		sign := func(patience time.Duration) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			_, err := a.key.SignJWS(ctx, []byte("a.b"))
			return time.Since(began), err
		}
		if _, err := sign(time.Second); err != nil {
			t.Fatal(err)
		}
		took, err := sign(300 * time.Millisecond)
		if signer.CodeOf(err) != signer.Throttled || took != 0 {
			t.Errorf("after %s: %v", took, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := a.key.SignJWS(ctx, []byte("a.b")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if stats := b.Stats(); stats.Waiting != 0 || stats.GaveUp != 1 {
			t.Errorf("%+v", stats)
		}
		if took, err := sign(time.Second); err != nil || took > 420*time.Millisecond {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

func TestBudgetConforms(t *testing.T) {
	store := signertest.NewFake(t, signertest.FakeOptions{AllowClosedUse: true})
	signertest.Run(t, signertest.Harness{
		Open: func(testing.TB) signer.Backend {
			return signer.NewBudget(signer.NewGuard(store.Connect(), signer.GuardOptions{}), signer.BudgetOptions{PerSecond: 1000})
		},
		UnknownRef:  signer.Ref("no-such-key"),
		PlantNamed:  store.Plant,
		UnknownName: "fake-key-0",
		BreakKey:    func(_ testing.TB, ref signer.Ref) { store.SwapKey(ref) },
	})
}
