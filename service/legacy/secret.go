package legacy

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
)

// Bounds on the length of a secret, in bytes. Those of control planes have about
// 1,200; a PEM of the longest RSA key in use has 3,300.
const (
	MinSecretSize = 32
	MaxSecretSize = 8 << 10
)

// ErrSecret: the bytes cannot be the secret of a key. The text says why and is meant
// for whoever gave them.
var ErrSecret = errors.New("cannot be the secret of a legacy key")

// NewSecret makes a secret as control planes made theirs: a private RSA key of 2048
// bits in PKCS #1, whose bytes serve as the secret.
func NewSecret() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making a legacy key: %w", err)
	}
	return x509.MarshalPKCS1PrivateKey(key), nil
}

// CheckSecret refuses what is no secret, above all public keys: whoever has one
// could make tokens. ErrSecret.
func CheckSecret(secret []byte) error {
	if len(secret) < MinSecretSize || len(secret) > MaxSecretSize {
		return fmt.Errorf("%w: it has %d bytes, not %d to %d", ErrSecret, len(secret), MinSecretSize, MaxSecretSize)
	}
	if len(bytes.TrimLeft(secret, string(secret[:1]))) == 0 {
		return fmt.Errorf("%w: it is one byte over and over", ErrSecret)
	}
	if len(canonical(secret)) < MinSecretSize/2 { // some zeros at the end are chance
		return fmt.Errorf("%w: it ends in zeros, which count for nothing", ErrSecret)
	}
	for _, form := range readings(secret) {
		if isPublic(form) {
			return fmt.Errorf("%w: it is a public key or a certificate, which is no secret", ErrSecret)
		}
	}
	return nil
}

// PublicHalf returns the public key that belongs to a secret, if the secret has the
// form of a private key.
func PublicHalf(secret []byte) (crypto.PublicKey, bool) {
	for _, form := range readings(secret) {
		if key, ok := privateKey(form); ok {
			return key.Public(), true
		}
	}
	return nil, false
}

// readings returns what somebody may mean by the bytes of a file: the bytes, what
// they are the base64 of, and what PEM there is in either.
func readings(b []byte) [][]byte {
	all := [][]byte{b}
	if inner, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b))); err == nil {
		all = append(all, inner)
	}
	for _, form := range all {
		for block, rest := pem.Decode(form); block != nil; block, rest = pem.Decode(rest) {
			all = append(all, block.Bytes)
		}
	}
	return all
}

func isPublic(b []byte) bool {
	if _, err := x509.ParsePKIXPublicKey(b); err == nil {
		return true
	}
	if _, err := x509.ParsePKCS1PublicKey(b); err == nil {
		return true
	}
	if _, err := x509.ParseCertificate(b); err == nil {
		return true
	}
	var jwk map[string]json.RawMessage
	if json.Unmarshal(b, &jwk) != nil {
		return false
	}
	_, key := jwk["kty"]
	_, set := jwk["keys"]
	return key || set
}

func privateKey(b []byte) (crypto.Signer, bool) {
	if key, err := x509.ParsePKCS1PrivateKey(b); err == nil {
		return key, true
	}
	if key, err := x509.ParseECPrivateKey(b); err == nil {
		return key, true
	}
	key, err := x509.ParsePKCS8PrivateKey(b)
	if err != nil {
		return nil, false
	}
	s, ok := key.(crypto.Signer)
	return s, ok
}

// Digest tells secrets apart without being one: two have the same digest in a
// database if they make the same codes.
func Digest(installation [16]byte, secret []byte) []byte {
	h := sha256.New()
	h.Write([]byte("zonemint legacy secret"))
	h.Write(installation[:])
	h.Write(canonical(secret))
	return h.Sum(nil)
}

// canonical returns the shortest secret that makes the same codes. HMAC hashes what
// is longer than a block and fills up with zeros what is shorter (RFC 2104).
func canonical(secret []byte) []byte {
	if len(secret) > sha256.BlockSize {
		sum := sha256.Sum256(secret)
		secret = sum[:]
	}
	return bytes.TrimRight(secret, "\x00")
}
