// Package local is the signing backend for private keys that live in this
// process: a reference is the private key itself, encrypted under the instance
// key and bound to the one serial that it was made for. The package stores
// nothing. Whoever stores the reference, next to the public key, can use it
// only together with the instance key.
package local

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/zonemint/zonemint/signer"
)

// Options shape a [Backend]. The zero value is fit for production.
type Options struct {
	// Insecure stores new private keys unencrypted and opens such keys. Anyone
	// who can read the database, or a backup of it, can then sign, and anyone
	// who can write it chooses the keys that sign. It is for trying things out.
	// Keys that were encrypted before still open if there is an instance key.
	Insecure bool

	// Logger is told about Insecure. Nil means slog.Default().
	Logger *slog.Logger
}

// Backend implements [signer.Backend]. Close waits for keys that are being
// generated for callers who have left.
type Backend struct {
	aead     tink.AEAD // nil if there is no instance key
	insecure bool
	slots    chan struct{} // held while a key is generated

	mu         sync.RWMutex // guards closed, and starting generators against Close
	closed     bool
	generators sync.WaitGroup
}

var _ signer.Backend = (*Backend)(nil)

// maxGenerators bounds how many keys are generated at a time. A search for RSA
// primes cannot be interrupted: without a bound, callers who give up and try
// again would take every processor from those who sign.
const maxGenerators = 2

// New returns a backend whose keys are encrypted with aead. A nil aead is
// good for insecure keys only.
func New(aead tink.AEAD, opts Options) *Backend {
	if opts.Insecure {
		log := opts.Logger
		if log == nil {
			log = slog.Default()
		}
		log.Warn("INSECURE: new private keys are stored unencrypted; whoever reads the database can sign",
			slog.String("backend", "local"))
	}
	return &Backend{aead: aead, insecure: opts.Insecure, slots: make(chan struct{}, maxGenerators)}
}

// Traits implements [signer.Backend].
func (b *Backend) Traits() signer.Traits {
	return signer.Traits{Algorithms: signer.Algorithms(), Stateless: true}
}

// Create implements [signer.Backend]: the reference is the only copy of the key.
func (b *Backend) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	key, err := b.generate(ctx, spec.Algorithm)
	if err != nil {
		return nil, err
	}
	return b.store(spec, key)
}

// Import encrypts an existing private key, in PEM, as the key of spec, and
// returns its public half. The caller should wipe pem afterwards.
func (b *Backend) Import(ctx context.Context, spec signer.Spec, pem []byte) (signer.Ref, crypto.PublicKey, error) {
	if err := b.check(ctx); err != nil {
		return nil, nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, nil, &codedError{signer.Misconfigured, err}
	}
	key, err := parsePEM(pem)
	if err != nil {
		return nil, nil, &codedError{signer.Misconfigured, err}
	}
	if err := spec.Algorithm.Fits(key.Public()); err != nil {
		return nil, nil, &codedError{signer.Misconfigured, fmt.Errorf("the private key to import: %w", err)}
	}
	ref, err := b.store(spec, key)
	if err != nil {
		return nil, nil, err
	}
	return ref, key.Public(), nil
}

// Reseal encrypts the key behind ref anew, under what is now the primary key of
// the instance key: the step between rotating that and pruning it. The key
// itself stays the same. It always encrypts, so that it also is the way out of
// Options.Insecure.
func (b *Backend) Reseal(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Ref, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	key, err := b.unseal(spec, ref)
	if err != nil {
		return nil, err
	}
	return b.encrypt(spec, key)
}

// Find implements [signer.Backend]: there is nothing to find.
func (b *Backend) Find(ctx context.Context, _ signer.Spec) ([]signer.Ref, error) {
	return nil, b.check(ctx)
}

// List implements [signer.Backend]: there is nothing to list.
func (b *Backend) List(ctx context.Context, _ func(signer.Labelled) error) error {
	return b.check(ctx)
}

// Open implements [signer.Backend]. It decrypts the key, which the handle keeps
// in memory: nothing but the signature itself remains to be done for a token.
func (b *Backend) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	key, err := b.unseal(spec, ref)
	if err != nil {
		return nil, err
	}
	return &handle{backend: b, algorithm: spec.Algorithm, key: key}, nil
}

// Destroy implements [signer.Backend] by doing nothing: the key is gone when
// the last copy of its reference is.
func (b *Backend) Destroy(ctx context.Context, _ signer.Spec, _ signer.Ref) error {
	return b.check(ctx)
}

// Close implements [signer.Backend].
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.generators.Wait()
	return nil
}

func (b *Backend) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return errClosed
	}
	return nil
}

// codedError is a failure whose kind is known where it happens.
type codedError struct {
	code signer.Code
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

var (
	errClosed = &codedError{signer.Closed, errors.New("the local backend is closed")}

	// A wrong instance key and a changed row cannot be told apart, and either
	// has to be looked into by a person.
	errNotOpened = &codedError{signer.Corrupt, errors.New("the instance key does not open this private key: " +
		"either this is not the instance key that it was encrypted with, or its row was changed or belongs to another key")}
	errPlainMoved = &codedError{signer.Corrupt, errors.New("this unencrypted private key belongs to another keyset, serial, label or algorithm")}
	errNotKey     = &codedError{signer.Corrupt, errors.New("what was stored as a private key is none, or not one for its algorithm")}
	errFormat     = &codedError{signer.Corrupt, errors.New("this is not a private key as this version of zonemint stores them")}
	errPlain      = &codedError{signer.Denied, errors.New("this private key is stored unencrypted, which only the setting insecure allows")}
	errNoKey      = &codedError{signer.Misconfigured, errors.New("there is no instance key to encrypt local private keys with")}
)

// Code implements [signer.Backend].
func (b *Backend) Code(err error) signer.Code {
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	return signer.Unknown
}

// marshal and unmarshal are the one encoding of private keys inside references.
func marshal(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return der, nil
}

// unmarshal returns a key that has been checked and, if it is RSA, precomputed.
func unmarshal(der []byte, alg signer.Algorithm) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errNotKey // the parser's own words may quote the key
	}
	key, ok := parsed.(crypto.Signer)
	if !ok || alg.Fits(key.Public()) != nil {
		return nil, errNotKey
	}
	return key, nil
}
