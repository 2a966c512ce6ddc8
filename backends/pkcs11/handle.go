//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/rand"
	"slices"
	"sync"

	"github.com/eclipse-keypont/crypto11"

	"github.com/zonemint/zonemint/signer"
)

// handle names a key and remembers where it was found last. What was found is
// good for one link, so it is looked for again after every reconnection.
type handle struct {
	backend   *Backend
	ref       reference
	algorithm signer.Algorithm

	mu     sync.Mutex
	link   *link            // through which it was found last
	key    crypto11.Signer  // as found through link, nil once the token did not know it
	public crypto.PublicKey // as found first
}

// Public implements [signer.Handle].
func (h *handle) Public(ctx context.Context) (crypto.PublicKey, error) {
	if err := h.backend.check(); err != nil {
		return nil, err
	}
	return with(ctx, h.backend.token, h.backend.read(), func(c connection) (crypto.PublicKey, error) {
		key, _, err := h.find(c)
		if err != nil {
			return nil, err
		}
		return key.Public(), nil
	})
}

// Sign implements [signer.Handle].
func (h *handle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	if err := h.backend.check(); err != nil {
		return nil, err
	}
	in = slices.Clone(in) // the call may outlive its caller
	return with(ctx, h.backend.token, h.backend.read(), func(c connection) ([]byte, error) {
		return h.sign(c, alg, in)
	})
}

// sign looks for the key once more if the token does not know it any longer by
// its handle: a key that was restored from a backup has another one.
func (h *handle) sign(c connection, alg signer.Algorithm, in []byte) ([]byte, error) {
	for {
		key, fresh, err := h.find(c)
		if err != nil {
			return nil, err
		}
		sig, err := key.Sign(rand.Reader, in, alg.Opts())
		if !stale(err) || fresh {
			return sig, err
		}
		h.forget(key)
	}
}

// find returns the key, and whether it was looked for just now.
func (h *handle) find(c connection) (key crypto11.Signer, fresh bool, err error) {
	h.mu.Lock()
	before := h.link == c.link
	if before {
		key = h.key
	}
	h.mu.Unlock()
	if key != nil {
		return key, false, nil
	}
	if key, err = c.pair(h.ref); err != nil {
		if code, _ := known(err); code == signer.NotFound && before {
			err = c.vanished(err)
		}
		return nil, true, err
	}
	return key, true, h.found(c.link, key)
}

// vanished is what to make of a key that was there and is not any more. Somebody
// may have destroyed it; but a token that shows no key at all may have lost what
// is under it, and some, SoftHSM among them, do not find that again before they
// are connected to anew. Then the key is found or is NotFound.
func (c connection) vanished(err error) error {
	if others, failed := c.search(""); failed != nil || len(others) > 0 {
		return err
	}
	err = failf(signer.Unavailable, "the PKCS#11 token shows no keys any more: %w", err)
	c.owner.broke(c.link, err)
	return err
}

// found keeps the key, if it is the one that was found before.
func (h *handle) found(l *link, key crypto11.Signer) error {
	public := key.Public()
	if err := h.algorithm.Fits(public); err != nil {
		return failf(signer.Misconfigured, "the PKCS#11 key with the id %x: %w", h.ref.id, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.public != nil && !signer.SamePublicKey(h.public, public) {
		return failf(signer.Corrupt, "the PKCS#11 key with the id %x has become another key", h.ref.id)
	}
	h.link, h.key, h.public = l, key, public
	return nil
}

func (h *handle) forget(key crypto11.Signer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.key == key {
		h.key = nil
	}
}
