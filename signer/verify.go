package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
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

// Verify checks the signature of a message by the key pub: in the form of JWS
// (RFC 7515, RFC 7518 section 3.4), or for ECDSA also in ASN.1 DER, the form that
// openssl writes.
func (a Algorithm) Verify(pub crypto.PublicKey, message, sig []byte) error {
	if err := a.Fits(pub); err != nil {
		return err
	}
	in := a.input(message)
	if key, ok := pub.(*ecdsa.PublicKey); ok && rsMatches(key, in, sig) {
		return nil
	}
	return a.verify(pub, in, sig)
}

// rsMatches checks a signature in the form R ‖ S.
func rsMatches(key *ecdsa.PublicKey, digest, sig []byte) bool {
	size := (key.Params().BitSize + 7) / 8
	if len(sig) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
	return ecdsa.Verify(key, digest, r, s)
}
