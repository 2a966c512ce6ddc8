package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"io"
	"slices"
)

// Create makes a private key in b. See [Backend] for what to do when it fails:
// an error does not mean that no key was made.
func Create(ctx context.Context, b Backend, spec Spec) (Ref, error) {
	const op = "create"
	if err := spec.check(op, b); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, coded(ctx, op, b, err)
	}
	ref, err := b.Create(ctx, spec)
	if err != nil {
		return nil, coded(ctx, op, b, err)
	}
	return ref, nil
}

// Find returns the references of the keys in b that carry spec.Label.
func Find(ctx context.Context, b Backend, spec Spec) ([]Ref, error) {
	const op = "find"
	if err := ctx.Err(); err != nil {
		return nil, coded(ctx, op, b, err)
	}
	refs, err := b.Find(ctx, spec)
	if err != nil {
		return nil, coded(ctx, op, b, err)
	}
	return refs, nil
}

// Destroy makes the key behind ref unusable for ever. For a backend that is
// stateless this does nothing: whoever stores ref has to delete it.
func Destroy(ctx context.Context, b Backend, spec Spec, ref Ref) error {
	const op = "destroy"
	if err := ctx.Err(); err != nil {
		return coded(ctx, op, b, err)
	}
	return coded(ctx, op, b, b.Destroy(ctx, spec, ref))
}

// check refuses, without a call, what no backend or not this one can do.
func (s Spec) check(op string, b Backend) error {
	if !slices.Contains(b.Traits().Algorithms, s.Algorithm) {
		return &Error{Op: op, Code: Unsupported, Err: fmt.Errorf("this backend has no %s keys", s.Algorithm)}
	}
	if err := s.Validate(); err != nil {
		return &Error{Op: op, Code: Misconfigured, Err: err}
	}
	return nil
}

// Key is a private key held by a backend. It is safe for concurrent use.
type Key struct {
	backend Backend
	handle  Handle
	spec    Spec
	public  crypto.PublicKey
	remote  bool
}

var _ crypto.Signer = (*Key)(nil)

// Open returns the key behind ref. public is what the caller knows to be its
// public half, usually from the database; signatures are checked against it.
// If public is nil it is read from the backend, which costs a call.
func Open(ctx context.Context, b Backend, spec Spec, ref Ref, public crypto.PublicKey) (*Key, error) {
	const op = "open"
	if err := spec.check(op, b); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, coded(ctx, op, b, err)
	}
	h, err := b.Open(ctx, spec, ref)
	if err != nil {
		return nil, coded(ctx, op, b, err)
	}
	if public == nil {
		if public, err = h.Public(ctx); err != nil {
			return nil, coded(ctx, op, b, err)
		}
	}
	if err := spec.Algorithm.Fits(public); err != nil {
		return nil, &Error{Op: op, Code: Misconfigured, Err: err}
	}
	return &Key{backend: b, handle: h, spec: spec, public: public, remote: b.Traits().Remote}, nil
}

// Algorithm returns what the key signs with.
func (k *Key) Algorithm() Algorithm { return k.spec.Algorithm }

// Public returns the public half. It makes no call.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Probe signs a fixed message and verifies the result, wherever the signature
// was made. It shows that the private and the public half belong together.
func (k *Key) Probe(ctx context.Context) error {
	ctx = context.WithValue(ctx, probeKey{}, true)
	msg := []byte("zonemint probe " + k.spec.Label)
	in := k.spec.Algorithm.input(msg)
	sig, err := k.sign(ctx, in)
	if err != nil {
		return err
	}
	return k.verify(in, sig)
}

// Sign implements [crypto.Signer]. It cannot be cancelled; use [Key.SignContext]
// where there is a context. The reader is ignored: backends have their own
// source of randomness. opts must ask for what the key's algorithm does.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignContext signs a digest made with the hash of the key's algorithm, or for
// EdDSA the message itself. ECDSA signatures come back in ASN.1 DER.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.spec.Algorithm.accepts(opts); err != nil {
		return nil, &Error{Op: "sign", Code: Unsupported, Err: err}
	}
	return k.signChecked(ctx, digest)
}

// SignJWS returns the JWS signature of input, which is the ASCII of the encoded
// header, a dot and the encoded payload (RFC 7515 section 5.1). ECDSA
// signatures are the fixed-width concatenation of R and S (RFC 7518 section 3.4).
func (k *Key) SignJWS(ctx context.Context, input []byte) ([]byte, error) {
	sig, err := k.signChecked(ctx, k.spec.Algorithm.input(input))
	if err != nil {
		return nil, err
	}
	return k.jws(sig)
}

// jws gives a signature of a backend the form of JWS.
func (k *Key) jws(sig []byte) ([]byte, error) {
	c := k.spec.Algorithm.Curve()
	if c == nil {
		return sig, nil
	}
	sig, err := concatRS(sig, c)
	if err != nil {
		return nil, &Error{Op: "sign", Code: Corrupt, Err: err}
	}
	return sig, nil
}

// signChecked signs and checks the signature.
func (k *Key) signChecked(ctx context.Context, in []byte) ([]byte, error) {
	if err := k.spec.Algorithm.checkInput(in); err != nil {
		return nil, &Error{Op: "sign", Code: Misconfigured, Err: err}
	}
	sig, err := k.sign(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := k.check(in, sig); err != nil {
		return nil, err // nobody gets a signature that does not verify
	}
	return sig, nil
}

// check verifies a signature that was made outside this process: a backend that
// signs with another key, hash or padding is caught here and not by every verifier. A
// signature made here needs no check; verifying ECDSA would cost three times the
// signature.
func (k *Key) check(in, sig []byte) error {
	if !k.remote {
		return nil
	}
	return k.verify(in, sig)
}

func (k *Key) sign(ctx context.Context, in []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, coded(ctx, "sign", k.backend, err)
	}
	sig, err := k.handle.Sign(ctx, k.spec.Algorithm, in)
	if err != nil {
		return nil, coded(ctx, "sign", k.backend, err)
	}
	return sig, nil
}

func (k *Key) verify(in, sig []byte) error {
	if err := k.spec.Algorithm.verify(k.public, in, sig); err != nil {
		return &Error{Op: "verify", Code: Corrupt, Err: fmt.Errorf("key %s/%d: %w", k.spec.Keyset, k.spec.Serial, err)}
	}
	return nil
}

// input turns a message into what is signed: its digest, or itself for EdDSA.
func (a Algorithm) input(msg []byte) []byte {
	if a.Hash() == 0 {
		return msg
	}
	h := a.Hash().New()
	h.Write(msg)
	return h.Sum(nil)
}

// accepts says whether opts ask for this algorithm. PSS with a salt of another
// length is another algorithm, which JWS verifiers would refuse, and so is
// Ed25519 with a context.
func (a Algorithm) accepts(opts crypto.SignerOpts) error {
	if opts == nil || opts.HashFunc() != a.Hash() {
		return fmt.Errorf("this key signs with %s only", a)
	}
	t, _ := traitsOf(a.jws)
	pss, isPSS := opts.(*rsa.PSSOptions)
	if isPSS != t.pss {
		return fmt.Errorf("this key signs with %s only", a)
	}
	if isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != a.Hash().Size() {
		return fmt.Errorf("%s has a salt of %d bytes", a, a.Hash().Size())
	}
	if ed, ok := opts.(*ed25519.Options); ok && ed.Context != "" {
		return fmt.Errorf("%s has no context", a)
	}
	return nil
}

// SamePublicKey says whether two public keys are equal.
func SamePublicKey(a, b crypto.PublicKey) bool {
	eq, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && eq.Equal(b)
}

// SameRef says whether two references are equal.
func SameRef(a, b Ref) bool { return bytes.Equal(a, b) }
