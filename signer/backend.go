package signer

import (
	"context"
	"crypto"
	"errors"
	"time"
)

// Spec identifies one signing key: which serial of which keyset it is, the
// random label by which its backend can find it again, and its algorithm.
type Spec struct {
	Keyset    string // name of the keyset, e.g. "zone"
	Serial    int    // position in the keyset, from 1
	Label     string // random, unique everywhere, fixed before the key exists
	Algorithm Algorithm
}

// Validate says whether the spec is complete.
func (s Spec) Validate() error {
	if s.Keyset == "" || s.Serial < 1 || s.Label == "" {
		return errors.New("a key needs a keyset, a serial and a label")
	}
	return nil
}

// Ref is how a backend finds one of its keys again: an ARN, a key name with a
// version, an object identifier, or the encrypted private key itself. It is
// opaque to everybody else, is stored beside the public key, and holds nothing
// that would let its reader sign.
type Ref []byte

// Backend is the contract of a driver. Callers do not use it directly but
// through [Create], [Find], [List], [Open] and [Key], which add what all
// backends share.
//
// All methods may be called concurrently. Every remote call honours ctx and
// returns soon after it ends. Drivers retry nothing that is not idempotent, and
// return errors as they got them: Code sorts them, once, for all methods. No
// error text holds a credential, a PIN or a URL with either.
type Backend interface {
	// Traits says what this backend can do. It is constant and makes no call.
	Traits() Traits

	// Create makes a new private key for spec and returns its reference. It
	// is not idempotent: after an unknown outcome the caller waits for
	// Traits().ConsistencyWindow and asks Find before it creates again. A
	// backend that keeps keys must store spec.Label with the key, in the same
	// step that makes it.
	Create(ctx context.Context, spec Spec) (Ref, error)

	// Find returns the references of all keys that were created with
	// spec.Label, none if there are none. A backend whose references are the
	// keys themselves has nothing to find and returns none.
	Find(ctx context.Context, spec Spec) ([]Ref, error)

	// List calls each, one call at a time, for every key whose label is one of
	// zonemint's ([IsLabel]), and once for each of them, in no particular
	// order. Keys of others, which may well share the store, are passed over.
	// A key that is made or destroyed meanwhile, or was made less than
	// Traits().ConsistencyWindow ago, may be missing; one that was destroyed
	// may also still be listed. An error of each ends the listing and is returned
	// as it is. each does not call the backend: a driver may hold a session or
	// a lock while it runs. Nothing is ever destroyed because of a listing. A
	// backend whose references are the keys themselves lists none.
	List(ctx context.Context, each func(Labelled) error) error

	// Open returns a handle for the key behind ref. The handle remains valid
	// until the backend is closed, across reconnections, and needs no closing.
	// What cannot be a reference to the key of spec is refused here, or at the
	// latest by Public: a key that the backend does not have is NotFound, one
	// that belongs to another spec, where the backend can tell, is not opened.
	// A stateless backend says Corrupt to both.
	Open(ctx context.Context, spec Spec, ref Ref) (Handle, error)

	// Destroy makes the key behind ref unusable for ever, or begins to where
	// the backend imposes a waiting period. It is called for a person's
	// explicit wish and never by itself. Destroying a key again succeeds or
	// fails with NotFound. A backend whose references are the keys themselves
	// does nothing and succeeds: the caller deletes the reference.
	Destroy(ctx context.Context, spec Spec, ref Ref) error

	// Code classifies an error that another method, or a Handle, returned,
	// also when it is wrapped. It is Unknown for errors of others.
	Code(err error) Code

	// Close releases what the backend holds. Calls after it, of the backend
	// and of its handles, fail with an error whose code is Closed, except that
	// closing again does nothing.
	Close() error
}

// Handle is one private key inside a backend.
type Handle interface {
	// Public asks the backend for the public half.
	Public(ctx context.Context) (crypto.PublicKey, error)

	// Sign signs in, which has been checked: it is a digest made with
	// alg.Hash(), or for EdDSA the message itself. alg is the algorithm that
	// the handle was opened for. ECDSA signatures are returned in ASN.1 DER,
	// as crypto.Signer has them.
	Sign(ctx context.Context, alg Algorithm, in []byte) ([]byte, error)
}

// Traits are the constant properties of a backend.
type Traits struct {
	// Algorithms lists what keys can be created and used for.
	Algorithms []Algorithm

	// Remote says that signatures are made outside this process. They are
	// verified before anybody sees them.
	Remote bool

	// Stateless says that a Ref is the key itself and the backend keeps
	// nothing: a key whose creation was interrupted has never existed.
	Stateless bool

	// Custody is how private keys are kept.
	Custody Custody

	// ConsistencyWindow is how long after an unknown outcome of Create a key
	// may still be invisible to Find and List.
	ConsistencyWindow time.Duration
}
