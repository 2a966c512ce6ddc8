package signer

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// BatchHandle is a [Handle] whose backend signs many inputs in one call.
type BatchHandle interface {
	Handle

	// SignBatch signs each of ins as Sign would, and returns for each, in their
	// order, a signature or an error. It splits what is too much for one call.
	SignBatch(ctx context.Context, alg Algorithm, ins [][]byte) (sigs [][]byte, errs []error)
}

// BatchResult is what became of one input of a batch.
type BatchResult struct {
	Signature []byte
	Err       error
}

// SignsBatches says whether SignJWSBatch takes fewer calls than there are inputs.
func (k *Key) SignsBatches() bool {
	_, ok := k.handle.(BatchHandle)
	return ok
}

// SignJWSBatch does for each of inputs what [Key.SignJWS] does, in one call if the
// backend can. Results are in the order of the inputs.
func (k *Key) SignJWSBatch(ctx context.Context, inputs [][]byte) []BatchResult {
	results := make([]BatchResult, len(inputs))
	b, ok := k.handle.(BatchHandle)
	if !ok {
		for i, in := range inputs {
			results[i].Signature, results[i].Err = k.SignJWS(ctx, in)
		}
		return results
	}
	ins := make([][]byte, len(inputs))
	for i, in := range inputs {
		ins[i] = k.spec.Algorithm.input(in)
	}
	sigs, errs := k.signBatch(ctx, b, ins)
	for i := range results {
		results[i].Signature, results[i].Err = k.finish(ctx, ins[i], sigs[i], errs[i])
	}
	return results
}

// signBatch returns as many of both as there are inputs.
func (k *Key) signBatch(ctx context.Context, b BatchHandle, ins [][]byte) (sigs [][]byte, errs []error) {
	if err := ctx.Err(); err != nil {
		return make([][]byte, len(ins)), slices.Repeat([]error{err}, len(ins))
	}
	sigs, errs = b.SignBatch(ctx, k.spec.Algorithm, ins)
	if len(sigs) != len(ins) || len(errs) != len(ins) {
		err := &Error{Op: "sign", Code: Corrupt, Err: fmt.Errorf("%d signatures and %d errors for %d inputs", len(sigs), len(errs), len(ins))}
		return make([][]byte, len(ins)), slices.Repeat([]error{err}, len(ins))
	}
	return sigs, errs
}

// finish does with one signature of a batch what SignJWS does with its own.
func (k *Key) finish(ctx context.Context, in, sig []byte, err error) ([]byte, error) {
	if known, ok := errors.AsType[*Error](err); ok {
		return nil, known
	}
	if err != nil {
		return nil, coded(ctx, "sign", k.backend, err)
	}
	if err := k.check(in, sig); err != nil {
		return nil, err
	}
	return k.jws(sig)
}
