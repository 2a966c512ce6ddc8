package local

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"

	"github.com/zonemint/zonemint/signer"
)

// generate makes a key and returns early when ctx ends. The search for primes
// goes on then, since nothing can stop it, and its result is dropped; it
// belongs to the backend, whose Close waits for it.
func (b *Backend) generate(ctx context.Context, alg signer.Algorithm) (crypto.Signer, error) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	type result struct {
		key crypto.Signer
		err error
	}
	done := make(chan result, 1)
	if !b.start(func() {
		defer func() { <-b.slots }()
		key, err := newKey(alg)
		done <- result{key, err} // never blocks, whether or not anybody waits
	}) {
		<-b.slots
		return nil, errClosed
	}
	select {
	case r := <-done:
		if r.err == nil {
			r.err = ctx.Err() // both may have happened
		}
		return r.key, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start runs f in a goroutine that Close waits for, unless Close has begun.
func (b *Backend) start(f func()) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return false
	}
	b.generators.Go(f)
	return true
}

func newKey(alg signer.Algorithm) (crypto.Signer, error) {
	switch {
	case alg.RSABits() != 0:
		return rsa.GenerateKey(rand.Reader, alg.RSABits())
	case alg.Curve() != nil:
		return ecdsa.GenerateKey(alg.Curve(), rand.Reader)
	default:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
}
