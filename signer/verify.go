package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
)

var errMismatch = errors.New("signature does not verify with the key's public half")

// verify checks a signature as a Handle returns it: DER for ECDSA.
func (a Algorithm) verify(pub crypto.PublicKey, in, sig []byte) error {
	t, _ := traitsOf(a.jws)
	var ok bool
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if t.pss {
			ok = rsa.VerifyPSS(pub, t.hash, in, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(pub, t.hash, in, sig) == nil
		}
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(pub, in, sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(pub, in, sig)
	default:
		return fmt.Errorf("cannot verify with a key of type %T", pub)
	}
	if !ok {
		return errMismatch
	}
	return nil
}
