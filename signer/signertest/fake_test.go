package signertest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

func TestFakeConforms(t *testing.T) {
	fake := signertest.NewFake(t, signertest.FakeOptions{
		ConsistencyWindow: 30 * time.Millisecond,
		AllowClosedUse:    true,
	})
	signertest.Run(t, signertest.Harness{
		Open:         func(testing.TB) signer.Backend { return fake.Connect() },
		UnknownRef:   signer.Ref("fake-key-0"),
		BreakKey:     func(_ testing.TB, ref signer.Ref) { fake.SwapKey(ref) },
		PlantForeign: func(tb testing.TB) signer.Ref { return plantForeign(tb, fake) },
		PlantNamed:   fake.Plant,
		UnknownName:  "fake-key-0",
		Stall:        func(testing.TB) func() { return stall(fake) },
	})
}

// stall makes every call to fake hang.
func stall(fake *signertest.Fake) (resume func()) {
	gate := make(chan struct{})
	for _, op := range signertest.Ops() {
		fake.Inject(signertest.Fault{Op: op, Until: gate})
	}
	return func() {
		fake.Heal()
		close(gate)
	}
}

// plantForeign makes a key as somebody else would: its label only begins like
// one of zonemint's.
func plantForeign(tb testing.TB, b signer.Backend) signer.Ref {
	tb.Helper()
	ref, err := b.Create(tb.Context(), signer.Spec{Keyset: "zone", Serial: 1, Label: "zonemint-backup", Algorithm: signer.ES256})
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

func spec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
}

// TestFakeFaults walks both halves of a failure of every call.
func TestFakeFaults(t *testing.T) {
	errDown := signertest.Fail(signer.Unavailable)
	for _, tc := range []struct {
		name  string
		apply bool
		keys  int // after a failed create
		left  int // after a failed destroy
	}{
		{name: "refused", apply: false, keys: 0, left: 1},
		{name: "reply lost", apply: true, keys: 1, left: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := t.Context()
			fake := signertest.NewFake(t, signertest.FakeOptions{})
			fake.Inject(signertest.Fault{Op: signertest.OpCreate, Times: 1, Err: errDown, Apply: tc.apply})
			_, err := signer.Create(ctx, fake, spec(signer.EdDSA))
			wantCode(t, err, signer.Unavailable)
			if got := len(fake.Keys()); got != tc.keys {
				t.Errorf("%d keys after the failed create, want %d", got, tc.keys)
			}

			fake = signertest.NewFake(t, signertest.FakeOptions{})
			s := spec(signer.EdDSA)
			ref, err := signer.Create(ctx, fake, s)
			if err != nil {
				t.Fatal(err)
			}
			fake.Inject(signertest.Fault{Op: signertest.OpDestroy, Times: 1, Err: errDown, Apply: tc.apply})
			wantCode(t, signer.Destroy(ctx, fake, s, ref), signer.Unavailable)
			if got := len(fake.Keys()); got != tc.left {
				t.Errorf("%d keys after the failed destroy, want %d", got, tc.left)
			}
		})
	}
}

// TestFakeSignFaults shows what callers of a key see of each fault.
func TestFakeSignFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault signertest.Fault
		want  signer.Code
	}{
		{"throttled", signertest.Fault{Err: signertest.Fail(signer.Throttled)}, signer.Throttled},
		{"denied", signertest.Fault{Err: signertest.Fail(signer.Denied)}, signer.Denied},
		{"unclassified", signertest.Fault{Err: errors.New("odd")}, signer.Unknown},
		{"corrupt", signertest.Fault{Mangle: true}, signer.Corrupt},
		{"slow", signertest.Fault{Delay: time.Hour}, signer.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := signertest.NewFake(t, signertest.FakeOptions{Latency: time.Second})
				s := spec(signer.ES256)
				ref, err := signer.Create(t.Context(), fake, s)
				if err != nil {
					t.Fatal(err)
				}
				key, err := signer.Open(t.Context(), fake, s, ref, nil)
				if err != nil {
					t.Fatal(err)
				}
				tc.fault.Op, tc.fault.Times = signertest.OpSign, 2
				fake.Inject(tc.fault)
				for range 2 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					_, err = key.SignJWS(ctx, []byte("a.b"))
					cancel()
					wantCode(t, err, tc.want)
				}
				if _, err := key.SignJWS(t.Context(), []byte("a.b")); err != nil {
					t.Errorf("after the fault: %v", err)
				}
				if got := fake.Calls(signertest.OpSign); got != 3 {
					t.Errorf("counted %d calls, want 3", got)
				}
			})
		})
	}
}

// TestFakeVisibility shows that Find lags behind Create.
func TestFakeVisibility(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 10 * time.Second
		fake := signertest.NewFake(t, signertest.FakeOptions{ConsistencyWindow: window})
		s := spec(signer.EdDSA)
		if _, err := signer.Create(t.Context(), fake, s); err != nil {
			t.Fatal(err)
		}
		time.Sleep(window - time.Nanosecond)
		if refs, err := signer.Find(t.Context(), fake, s); err != nil || len(refs) != 0 {
			t.Errorf("within the window: %v, %v", refs, err)
		}
		time.Sleep(time.Nanosecond)
		if refs, err := signer.Find(t.Context(), fake, s); err != nil || len(refs) != 1 {
			t.Errorf("after the window: %v, %v", refs, err)
		}
	})
}

func wantCode(t *testing.T, err error, want signer.Code) {
	t.Helper()
	if err == nil || signer.CodeOf(err) != want {
		t.Errorf("got %v, want code %q", err, want)
	}
}
