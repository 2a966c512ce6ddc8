package signer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// guarded is a key of a fake behind a guard.
type guarded struct {
	fake    *signertest.Fake
	guard   *signer.Guard
	key     *signer.Key
	seen    []string
	refused int
	changes []bool // whether it was down
}

func newGuarded(t *testing.T, opts signer.GuardOptions) *guarded {
	t.Helper()
	g := &guarded{fake: signertest.NewFake(t, signertest.FakeOptions{})}
	opts.Observe = func(op string, _ time.Duration, err error) {
		g.seen = append(g.seen, op+" "+signer.CodeOf(&signer.Error{Code: g.fake.Code(err)}).String())
	}
	opts.Refused = func(string) { g.refused++ }
	opts.Changed = func(down error) { g.changes = append(g.changes, down != nil) }
	g.guard = signer.NewGuard(g.fake, opts)
	s := spec(signer.ES256)
	ref, err := signer.Create(t.Context(), g.guard, s)
	if err != nil {
		t.Fatal(err)
	}
	if g.key, err = signer.Open(t.Context(), g.guard, s, ref, nil); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *guarded) sign(t *testing.T, want signer.Code) {
	t.Helper()
	_, err := g.key.SignJWS(t.Context(), []byte("a.b"))
	if (err == nil) != (want == signer.Unknown) || err != nil && signer.CodeOf(err) != want {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestGuardConforms(t *testing.T) {
	store := signertest.NewFake(t, signertest.FakeOptions{AllowClosedUse: true})
	signertest.Run(t, signertest.Harness{
		Open:        func(testing.TB) signer.Backend { return signer.NewGuard(store.Connect(), signer.GuardOptions{}) },
		UnknownRef:  signer.Ref("no-such-key"),
		PlantNamed:  store.Plant,
		UnknownName: "fake-key-0",
		BreakKey:    func(_ testing.TB, ref signer.Ref) { store.SwapKey(ref) },
	})
}

// While a backend is down nobody waits for it but one at a time, and the first
// answer ends that.
func TestGuardAnswersForABackendThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, signer.GuardOptions{})
		g.sign(t, signer.Unknown)
		g.fake.Inject(signertest.Fault{Op: signertest.OpSign, Delay: 5 * time.Second, Err: signertest.Fail(signer.Unavailable)})
		start := time.Now()
		for range 3 {
			g.sign(t, signer.Unavailable)
		}
		if err := g.guard.Down(); err == nil || time.Since(start) != 15*time.Second {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
		calls := g.fake.Calls(signertest.OpSign)
		start = time.Now()
		for range 100 {
			g.sign(t, signer.Unavailable)
		}
		if err := g.guard.Refusing(); err == nil {
			t.Error("a signature would be let through")
		}
		if time.Since(start) != 0 || g.fake.Calls(signertest.OpSign) != calls || g.refused != 100 {
			t.Errorf("took %s, %d calls, %d refused", time.Since(start), g.fake.Calls(signertest.OpSign)-calls, g.refused)
		}
		// One is let through, and while it waits the others are refused.
		time.Sleep(100 * time.Millisecond)
		if err := g.guard.Refusing(); err != nil {
			t.Errorf("nobody may try: %v", err)
		}
		done := make(chan struct{})
		go func() { defer close(done); g.sign(t, signer.Unavailable) }()
		synctest.Wait()
		g.sign(t, signer.Unavailable)
		if g.fake.Calls(signertest.OpSign) != calls+1 {
			t.Errorf("%d were let through", g.fake.Calls(signertest.OpSign)-calls)
		}
		<-done

		g.fake.Heal()
		back := time.Now()
		for g.guard.Down() != nil {
			if time.Since(back) > time.Second {
				t.Fatal("not noticed within a second that it is back")
			}
			time.Sleep(10 * time.Millisecond)
			_, _ = g.key.SignJWS(t.Context(), []byte("a.b"))
		}
		g.sign(t, signer.Unknown)
		if !slices.Equal(g.changes, []bool{true, false}) {
			t.Errorf("it was said to be down: %v", g.changes)
		}
	})
}

// What a backend answers, however unkindly, shows that it is there; a caller who
// leaves shows nothing.
func TestGuardLooksAtAvailabilityOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, signer.GuardOptions{})
		for _, code := range []signer.Code{signer.Throttled, signer.Denied, signer.NotFound, signer.Corrupt, signer.Misconfigured} {
			g.fake.Inject(signertest.Fault{Op: signertest.OpSign, Times: 5, Err: signertest.Fail(code)})
			for range 5 {
				g.sign(t, code)
			}
		}
		g.fake.Inject(signertest.Fault{Op: signertest.OpSign, Delay: time.Hour})
		for range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if _, err := g.key.SignContext(ctx, make([]byte, 32), nil); signer.CodeOf(err) != signer.Canceled && err == nil {
				t.Error(err)
			}
		}
		if err := g.guard.Down(); err != nil {
			t.Error(err)
		}
		// Deadlines that pass do count.
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := g.key.SignJWS(ctx, []byte("a.b"))
			cancel()
			if signer.CodeOf(err) != signer.Unavailable {
				t.Error(err)
			}
		}
		if err := g.guard.Down(); err == nil || !strings.Contains(err.Error(), "down since") {
			t.Error(err)
		}
		// A good answer in between begins the count anew.
		g.fake.Heal()
		time.Sleep(time.Second)
		g.sign(t, signer.Unknown)
		g.fake.Inject(signertest.Fault{Op: signertest.OpSign, Times: 2, Err: signertest.Fail(signer.Unavailable)})
		g.sign(t, signer.Unavailable)
		g.sign(t, signer.Unavailable)
		g.sign(t, signer.Unknown)
		if err := g.guard.Down(); err != nil {
			t.Error(err)
		}
	})
}

// Callers choose their deadlines: those of the hurried must not switch a slow backend
// off for the patient.
func TestGuardForgivesHurriedCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, signer.GuardOptions{})
		g.fake.Inject(signertest.Fault{Op: signertest.OpSign, Delay: 700 * time.Millisecond})
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := g.key.SignJWS(ctx, []byte("a.b")); err == nil {
				t.Error("a signature came before it was ready")
			}
			cancel()
		}
		if err := g.guard.Down(); err != nil {
			t.Error(err)
		}
		g.sign(t, signer.Unknown)
	})
}

// Makers of keys have a schedule of their own, and are how a backend that nobody
// signs with is seen to be back.
func TestGuardLetsActsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, signer.GuardOptions{Failures: 1, Pause: time.Hour, MaxPause: time.Hour})
		g.fake.Inject(signertest.Fault{Op: signertest.OpSign, Times: 1, Err: signertest.Fail(signer.Unavailable)})
		g.sign(t, signer.Unavailable)
		g.sign(t, signer.Unavailable)
		if g.refused != 1 {
			t.Errorf("%d refused", g.refused)
		}
		if _, err := signer.Find(t.Context(), g.guard, spec(signer.ES256)); err != nil {
			t.Error(err)
		}
		g.sign(t, signer.Unknown)
		if got := strings.Join(g.seen, ", "); got != "create unknown, open unknown, public unknown, sign unavailable, find unknown, sign unknown" {
			t.Errorf("measured were %s", got)
		}
	})
}

func TestGuardOfAClosedBackend(t *testing.T) {
	g := signer.NewGuard(signertest.NewFake(t, signertest.FakeOptions{AllowClosedUse: true}), signer.GuardOptions{})
	if err := errors.Join(g.Close(), g.Close()); err != nil {
		t.Error(err)
	}
	if _, err := signer.Find(t.Context(), g, spec(signer.ES256)); signer.CodeOf(err) != signer.Closed || g.Down() != nil {
		t.Errorf("%v, %v", err, g.Down())
	}
}
