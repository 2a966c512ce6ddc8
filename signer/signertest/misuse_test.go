package signertest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// TestFakeBites shows which callers a Fake fails, and which it does not.
func TestFakeBites(t *testing.T) {
	const window = time.Minute
	create := func(ctx context.Context, f *signertest.Fake, s signer.Spec) { _, _ = f.Create(ctx, s) }
	find := func(ctx context.Context, f *signertest.Fake, s signer.Spec) { _, _ = f.Find(ctx, s) }
	refused := signertest.Fault{Op: signertest.OpCreate, Times: 1, Err: signertest.Fail(signer.Unavailable)}
	for _, tc := range []struct {
		name  string
		bites bool
		play  func(context.Context, *signertest.Fake, signer.Spec)
	}{
		{"create twice", true, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			create(ctx, f, s)
			create(ctx, f, s)
		}},
		{"create again after an unknown outcome", true, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			f.Inject(refused)
			create(ctx, f, s)
			time.Sleep(window)
			create(ctx, f, s)
		}},
		{"look too early", true, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			f.Inject(refused)
			create(ctx, f, s)
			find(ctx, f, s)
			create(ctx, f, s)
		}},
		{"wait, look, create", false, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			f.Inject(refused)
			create(ctx, f, s)
			time.Sleep(window)
			find(ctx, f, s)
			create(ctx, f, s)
		}},
		{"create again after a clear refusal", false, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			f.Inject(signertest.Fault{Op: signertest.OpCreate, Times: 1, Err: signertest.Fail(signer.Throttled)})
			create(ctx, f, s)
			create(ctx, f, s)
		}},
		{"create without a serial", true, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			s.Serial = 0
			create(ctx, f, s)
		}},
		{"sign a digest of a wrong length", true, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			h := handle(ctx, f, s)
			_, _ = h.Sign(ctx, s.Algorithm, make([]byte, 31))
		}},
		{"sign with another algorithm", true, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			h := handle(ctx, f, s)
			_, _ = h.Sign(ctx, signer.ES384, make([]byte, 48))
		}},
		{"use after close", true, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			_ = f.Close()
			find(ctx, f, s)
		}},
		{"use of another connection after close", false, func(ctx context.Context, f *signertest.Fake, s signer.Spec) {
			other := f.Connect()
			_ = f.Close()
			find(ctx, other, s)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec := &signertest.Recorder{TB: t}
				fake := signertest.NewFake(rec, signertest.FakeOptions{ConsistencyWindow: window})
				tc.play(t.Context(), fake, spec(signer.ES256))
				if rec.Failed() != tc.bites {
					t.Errorf("failed the test: %v, want %v: %q", rec.Failed(), tc.bites, rec.Failures())
				}
			})
		})
	}
}

func handle(ctx context.Context, f *signertest.Fake, s signer.Spec) signer.Handle {
	ref, err := f.Create(ctx, s)
	if err != nil {
		panic(err)
	}
	h, err := f.Open(ctx, s, ref)
	if err != nil {
		panic(err)
	}
	return h
}
