package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// The sizes of RSA modulus that are accepted. Longer ones make verifying too
// expensive to be offered to strangers.
const (
	MinRSABits = 2048
	MaxRSABits = 8192
)

// Algorithms returns the JWS names of the signature algorithms (RFC 7518 section
// 3.1, RFC 8037).
func Algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"}
}

// signingMethod returns what verifies signatures of alg, nil for an algorithm
// that is not accepted here.
func signingMethod(alg string) jwt.SigningMethod {
	switch alg {
	case "RS256":
		return jwt.SigningMethodRS256
	case "RS384":
		return jwt.SigningMethodRS384
	case "RS512":
		return jwt.SigningMethodRS512
	case "PS256":
		// The library's own takes any length of salt. RFC 7518 section 3.5
		// wants that of the hash.
		return &jwt.SigningMethodRSAPSS{
			SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA,
			VerifyOptions:    &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
		}
	case "ES256":
		return jwt.SigningMethodES256
	case "ES384":
		return jwt.SigningMethodES384
	case "EdDSA":
		return jwt.SigningMethodEdDSA
	default:
		return nil
	}
}

// Key is a public key together with its ID and the one algorithm that it may be
// used with. The zero Key verifies nothing.
type Key struct {
	id     string
	public crypto.PublicKey
	method jwt.SigningMethod
}

// NewKey returns a key that verifies signatures made with alg. public is an
// *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
func NewKey(id, alg string, public crypto.PublicKey) (Key, error) {
	if id == "" || len(id) > MaxKeyIDLength {
		return Key{}, fmt.Errorf("%w: a key ID has 1 to %d bytes", ErrKeySet, MaxKeyIDLength)
	}
	method := signingMethod(alg)
	if method == nil {
		return Key{}, fmt.Errorf("%w: unknown algorithm %.20q", ErrKeySet, alg)
	}
	if err := fits(method, public); err != nil {
		return Key{}, fmt.Errorf("%w: key %.64q: %w", ErrKeySet, id, err)
	}
	return Key{id: id, public: public, method: method}, nil
}

// ParseKey returns the key in a PEM file that holds one public key and nothing
// else, as "PUBLIC KEY" (RFC 5280) or "RSA PUBLIC KEY" (RFC 8017).
func ParseKey(id, alg string, data []byte) (Key, error) {
	block, rest := pem.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) != 0 {
		return Key{}, fmt.Errorf("%w: not exactly one PEM block", ErrKeySet)
	}
	var (
		public crypto.PublicKey
		err    error
	)
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		err = fmt.Errorf("PEM block is a %.30q", block.Type)
	}
	if err != nil {
		return Key{}, fmt.Errorf("%w: not a public key: %w", ErrKeySet, err)
	}
	return NewKey(id, alg, public)
}

// ID returns the kid.
func (k Key) ID() string { return k.id }

// Algorithm returns the JWS name of the algorithm, "" for the zero Key.
func (k Key) Algorithm() string {
	if k.method == nil {
		return ""
	}
	return k.method.Alg()
}

// Public returns the public key itself.
func (k Key) Public() crypto.PublicKey { return k.public }

// verify checks a JWS signature (RFC 7515 section 5.2).
func (k Key) verify(signingInput string, signature []byte) error {
	if k.method == nil || k.method.Verify(signingInput, signature, k.public) != nil {
		return ErrSignature
	}
	return nil
}

// fits says whether a public key is of the type and strength that an algorithm
// is used with.
func fits(method jwt.SigningMethod, public crypto.PublicKey) error {
	switch pub := public.(type) {
	case *rsa.PublicKey:
		return fitsRSA(method, pub)
	case *ecdsa.PublicKey:
		return fitsECDSA(method, pub)
	case ed25519.PublicKey:
		if method.Alg() != "EdDSA" || len(pub) != ed25519.PublicKeySize {
			return fmt.Errorf("%s does not use this Ed25519 key", method.Alg())
		}
		return nil
	default:
		return fmt.Errorf("%T is not a public key", public)
	}
}

func fitsRSA(method jwt.SigningMethod, pub *rsa.PublicKey) error {
	switch method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
	default:
		return fmt.Errorf("%s does not use RSA keys", method.Alg())
	}
	if pub.N == nil || pub.N.BitLen() < MinRSABits || pub.N.BitLen() > MaxRSABits {
		return fmt.Errorf("RSA keys have %d to %d bits", MinRSABits, MaxRSABits)
	}
	if pub.N.Bit(0) == 0 || pub.E < 3 || pub.E > 1<<31-1 || pub.E%2 == 0 {
		return errors.New("not an RSA public key")
	}
	return nil
}

func fitsECDSA(method jwt.SigningMethod, pub *ecdsa.PublicKey) error {
	var want elliptic.Curve
	switch method.Alg() {
	case "ES256":
		want = elliptic.P256()
	case "ES384":
		want = elliptic.P384()
	default:
		return fmt.Errorf("%s does not use elliptic curve keys", method.Alg())
	}
	if pub.Curve != want {
		return fmt.Errorf("%s uses keys on %s", method.Alg(), want.Params().Name)
	}
	_, err := pub.ECDH() // fails if the point is not on the curve
	return err
}
