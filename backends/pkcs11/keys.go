//go:build cgo

package pkcs11

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/eclipse-keypont/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/zonemint/zonemint/signer"
)

const idSize = 16 // random bytes of CKA_ID

func isPSS(alg signer.Algorithm) bool {
	_, ok := alg.Opts().(*rsa.PSSOptions)
	return ok
}

// create makes a key pair, and sees that it is what it should be and alone.
func (c connection) create(spec signer.Spec) (signer.Ref, error) {
	id := make([]byte, idSize)
	rand.Read(id)
	r := reference{id, spec.Label}
	if err := r.check(); err != nil {
		return nil, &codedError{signer.Misconfigured, err}
	}
	if taken, err := c.ctx.FindPrivateKeys(id, nil); err != nil {
		return nil, fmt.Errorf("look whether a PKCS#11 id is free: %w", err)
	} else if len(taken) > 0 {
		return nil, failf(signer.Corrupt, "a PKCS#11 key has the id that was drawn at random: the token or the source of randomness is broken")
	}
	key, err := c.generate(r, spec.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("generate a PKCS#11 key: %w", err)
	}
	if err := c.checkProtected(key); err != nil {
		return nil, errors.Join(err, key.Delete()) // nobody has seen it
	}
	if _, err := c.pair(r); err != nil {
		return nil, err
	}
	return r.encode(), nil
}

func (c connection) generate(r reference, alg signer.Algorithm) (crypto11.Signer, error) {
	private, err := attributes(r, map[crypto11.AttributeType]any{
		crypto11.CkaToken: true, crypto11.CkaPrivate: true, crypto11.CkaSensitive: true, crypto11.CkaExtractable: false,
		crypto11.CkaSign: true,
	})
	if err != nil {
		return nil, err
	}
	public, err := attributes(r, map[crypto11.AttributeType]any{crypto11.CkaToken: true, crypto11.CkaVerify: true})
	if err != nil {
		return nil, err
	}
	if curve := alg.Curve(); curve != nil {
		return c.ctx.GenerateECDSAKeyPairWithAttributes(public, private, curve)
	}
	// A key that signs does nothing else. crypto11 would have it decrypt as well.
	if err := errors.Join(private.Set(crypto11.CkaDecrypt, false), public.Set(crypto11.CkaEncrypt, false)); err != nil {
		return nil, err
	}
	return c.ctx.GenerateRSAKeyPairWithAttributes(public, private, alg.RSABits())
}

// attributes returns the id and the label of r, and more.
func attributes(r reference, more map[crypto11.AttributeType]any) (crypto11.AttributeSet, error) {
	set := crypto11.NewAttributeSet()
	if len(r.id) > 0 {
		if err := set.Set(crypto11.CkaId, r.id); err != nil {
			return nil, err
		}
	}
	if r.label != "" {
		if err := set.Set(crypto11.CkaLabel, []byte(r.label)); err != nil {
			return nil, err
		}
	}
	for name, value := range more {
		if err := set.Set(name, value); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// checkProtected sees that a token has done what it was told: some ignore what
// they do not like in a template.
func (c connection) checkProtected(key crypto11.Signer) error {
	for _, want := range []struct {
		name      string
		attribute crypto11.AttributeType
		value     byte
	}{
		{"CKA_PRIVATE", crypto11.CkaPrivate, 1},
		{"CKA_SENSITIVE", crypto11.CkaSensitive, 1},
		{"CKA_EXTRACTABLE", crypto11.CkaExtractable, 0},
		{"CKA_NEVER_EXTRACTABLE", crypto11.CkaNeverExtractable, 1},
	} {
		got, err := c.ctx.GetAttribute(key, want.attribute)
		if err != nil {
			return fmt.Errorf("read %s of a new PKCS#11 key: %w", want.name, err)
		}
		if got == nil || len(got.Value) != 1 || got.Value[0] != want.value {
			return failf(signer.Corrupt, "the PKCS#11 token made a key that is not protected: %s is not %d", want.name, want.value)
		}
	}
	return nil
}

// pair returns the one key pair that r names.
func (c connection) pair(r reference) (crypto11.Signer, error) {
	set, err := attributes(r, nil)
	if err != nil {
		return nil, err
	}
	pairs, err := c.ctx.FindKeyPairsWithAttributes(set)
	if err != nil {
		return nil, fmt.Errorf("find a PKCS#11 key: %w", err)
	}
	switch len(pairs) {
	case 0:
		return nil, failf(signer.NotFound, "the PKCS#11 token has no key pair with the id %x and the label %q", r.id, r.label)
	case 1:
		return pairs[0], nil
	default:
		return nil, failf(signer.Corrupt, "%d private keys of the PKCS#11 token share the id %x and the label %q: nobody can tell which of them signs",
			len(pairs), r.id, r.label)
	}
}

// search returns the references of all keys with that label, or of all that have
// one if it is empty. It goes by the type of key: crypto11 fails a search that
// meets a type it does not know, and tokens may be shared.
func (c connection) search(label string) (found []reference, err error) {
	for _, keyType := range []uint{p11.CKK_RSA, p11.CKK_EC} {
		set, err := attributes(reference{label: label}, map[crypto11.AttributeType]any{crypto11.CkaKeyType: keyType})
		if err != nil {
			return nil, err
		}
		keys, err := c.ctx.FindPrivateKeysWithAttributes(set)
		if err != nil {
			return nil, fmt.Errorf("find PKCS#11 keys: %w", err)
		}
		for _, key := range keys {
			r, err := c.reference(key)
			if stale(err) {
				continue // it was destroyed meanwhile
			}
			if err != nil {
				return nil, err
			}
			if r.check() == nil {
				found = append(found, r)
			}
		}
	}
	return found, nil
}

// reference returns what names key.
func (c connection) reference(key any) (reference, error) {
	set, err := c.ctx.GetAttributes(key, []crypto11.AttributeType{crypto11.CkaId, crypto11.CkaLabel})
	if err != nil {
		return reference{}, fmt.Errorf("read the name of a PKCS#11 key: %w", err)
	}
	var r reference
	if id := set[crypto11.CkaId]; id != nil {
		r.id = id.Value
	}
	if label := set[crypto11.CkaLabel]; label != nil {
		r.label = string(label.Value)
	}
	return r, nil
}

func (c connection) destroy(r reference) error {
	key, err := c.pair(r)
	if err != nil {
		return err
	}
	if err := key.Delete(); err != nil {
		return fmt.Errorf("destroy a PKCS#11 key: %w", err)
	}
	return nil
}

func (c connection) adopt(spec signer.Spec, wanted reference) (signer.Ref, error) {
	key, err := c.pair(wanted)
	if err != nil {
		return nil, err
	}
	if err := spec.Algorithm.Fits(key.Public()); err != nil {
		return nil, failf(signer.Misconfigured, "the PKCS#11 key to adopt: %w", err)
	}
	r, err := c.reference(key)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.check(), r.of(spec)); err != nil {
		return nil, failf(signer.Misconfigured, "the PKCS#11 key to adopt: %w", err)
	}
	if _, err := c.pair(r); err != nil { // its id may be another's as well
		return nil, err
	}
	return r.encode(), nil
}
