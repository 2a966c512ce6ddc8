package local

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"

	"github.com/zonemint/zonemint/signer"
)

// handle is a private key in memory.
type handle struct {
	backend   *Backend
	algorithm signer.Algorithm
	key       crypto.Signer
}

// Public implements [signer.Handle].
func (h *handle) Public(ctx context.Context) (crypto.PublicKey, error) {
	if err := h.backend.check(ctx); err != nil {
		return nil, err
	}
	return h.key.Public(), nil
}

// Sign implements [signer.Handle].
func (h *handle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	if err := h.backend.check(ctx); err != nil {
		return nil, err
	}
	if alg != h.algorithm {
		return nil, &codedError{signer.Unsupported, fmt.Errorf("a key for %s does not sign with %s", h.algorithm, alg)}
	}
	return h.key.Sign(rand.Reader, in, alg.Opts())
}
