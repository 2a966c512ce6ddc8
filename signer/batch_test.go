package signer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// batching is a backend whose handles sign many at once, with what is wrong with
// its answers.
type batching struct {
	signer.Backend
	calls int
	wrong func(sigs [][]byte, errs []error) ([][]byte, []error)
}

func (b *batching) Open(ctx context.Context, s signer.Spec, ref signer.Ref) (signer.Handle, error) {
	h, err := b.Backend.Open(ctx, s, ref)
	return &batchingHandle{h, b}, err
}

type batchingHandle struct {
	signer.Handle
	b *batching
}

func (h *batchingHandle) SignBatch(ctx context.Context, alg signer.Algorithm, ins [][]byte) ([][]byte, []error) {
	h.b.calls++
	sigs, errs := make([][]byte, len(ins)), make([]error, len(ins))
	for i, in := range ins {
		sigs[i], errs[i] = h.Sign(ctx, alg, in)
	}
	return h.b.wrong(sigs, errs)
}

func TestSignJWSBatch(t *testing.T) {
	type answers = func(sigs [][]byte, errs []error) ([][]byte, []error)
	fine := func(sigs [][]byte, errs []error) ([][]byte, []error) { return sigs, errs }
	for name, c := range map[string]struct {
		wrong answers
		codes [3]signer.Code
	}{
		"fine": {fine, [3]signer.Code{}},
		"one fails": {func(sigs [][]byte, errs []error) ([][]byte, []error) {
			sigs[1], errs[1] = nil, signertest.Fail(signer.Throttled)
			return sigs, errs
		}, [3]signer.Code{1: signer.Throttled}},
		"all fail": {func(sigs [][]byte, errs []error) ([][]byte, []error) {
			return make([][]byte, 3), slices.Repeat([]error{signertest.Fail(signer.Denied)}, 3)
		}, [3]signer.Code{signer.Denied, signer.Denied, signer.Denied}},
		"too few": {func(sigs [][]byte, errs []error) ([][]byte, []error) { return sigs[:2], errs },
			[3]signer.Code{signer.Corrupt, signer.Corrupt, signer.Corrupt}},
		"nothing": {func(sigs [][]byte, errs []error) ([][]byte, []error) { sigs[2] = nil; return sigs, errs },
			[3]signer.Code{2: signer.Corrupt}},
		"in another order": {func(sigs [][]byte, errs []error) ([][]byte, []error) {
			sigs[0], sigs[1] = sigs[1], sigs[0]
			return sigs, errs
		},
			[3]signer.Code{signer.Corrupt, signer.Corrupt}},
	} {
		for _, alg := range []signer.Algorithm{signer.ES256, signer.EdDSA, signer.RS256} {
			t.Run(name+" "+alg.String(), func(t *testing.T) {
				b := &batching{Backend: signertest.NewFake(t, signertest.FakeOptions{}), wrong: fine}
				key := opened(t, signer.NewGuard(b, signer.GuardOptions{}), alg)
				b.wrong, b.calls = c.wrong, 0
				wantBatch(t, key, c.codes)
				if b.calls != 1 || !key.SignsBatches() {
					t.Errorf("%d calls", b.calls)
				}
			})
		}
	}
}

// A backend without batches is called for each.
func TestSignJWSBatchOneByOne(t *testing.T) {
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	key := opened(t, signer.NewGuard(fake, signer.GuardOptions{}), signer.ES256)
	before := fake.Calls(signertest.OpSign)
	wantBatch(t, key, [3]signer.Code{})
	if got := fake.Calls(signertest.OpSign) - before; got != 3 || key.SignsBatches() {
		t.Errorf("%d calls", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range key.SignJWSBatch(ctx, [][]byte{[]byte("a.b")}) {
		if !errors.Is(r.Err, context.Canceled) {
			t.Error(r.Err)
		}
	}
}

func opened(t *testing.T, b signer.Backend, alg signer.Algorithm) *signer.Key {
	t.Helper()
	s := spec(alg)
	ref, err := signer.Create(t.Context(), b, s)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.Open(t.Context(), b, s, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// wantBatch signs three inputs and wants signatures, as single ones are, or codes.
func wantBatch(t *testing.T, key *signer.Key, codes [3]signer.Code) {
	t.Helper()
	inputs := [][]byte{[]byte("a.b"), []byte("c.d"), []byte("e.f")}
	for i, r := range key.SignJWSBatch(t.Context(), inputs) {
		if codes[i] != signer.Unknown {
			if signer.CodeOf(r.Err) != codes[i] || r.Signature != nil {
				t.Errorf("%d: %v, want %v", i, r.Err, codes[i])
			}
			continue
		}
		if r.Err != nil {
			t.Errorf("%d: %v", i, r.Err)
			continue
		}
		if err := key.Algorithm().Verify(key.Public(), inputs[i], r.Signature); err != nil {
			t.Error(fmt.Errorf("%d: %w", i, err))
		}
	}
}
