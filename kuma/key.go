package kuma

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// minModulus is the shortest RSA modulus that zonemint gives to control planes, in
// bits.
const minModulus = 2048

// PublicKey is a public key as a control plane is given it.
type PublicKey struct {
	ID  string
	PEM string // PKIX, "PUBLIC KEY"
}

// NewPublicKey returns a key that a control plane can read, or says why it would
// choke on this one: control planes verify RS256 and nothing else, and one with a
// broken or another kind of key in its configuration does not start.
func NewPublicKey(kid string, key crypto.PublicKey) (PublicKey, error) {
	if err := checkKeyID(kid); err != nil {
		return PublicKey{}, err
	}
	return newPublicKey(kid, key)
}

// newPublicKey does the same for keys that may be a control plane's own.
func newPublicKey(kid string, key crypto.PublicKey) (PublicKey, error) {
	pub, ok := key.(*rsa.PublicKey)
	if !ok {
		return PublicKey{}, fmt.Errorf("key %q is a %T, and control planes verify RS256 only: use a keyset whose algorithm is RS256", kid, key)
	}
	if bits := pub.N.BitLen(); bits < minModulus {
		return PublicKey{}, fmt.Errorf("key %q has %d bits, %d are the least", kid, bits, minModulus)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return PublicKey{}, fmt.Errorf("key %q: %w", kid, err)
	}
	return PublicKey{kid, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, nil
}

// ParsePublicKey reads a public key in PEM, in either form that control planes
// read, and checks it as NewPublicKey does.
func ParsePublicKey(kid, text string) (PublicKey, error) {
	if err := checkKeyID(kid); err != nil {
		return PublicKey{}, err
	}
	return parsePublicKey(kid, text)
}

func parsePublicKey(kid, text string) (PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return PublicKey{}, fmt.Errorf("key %q is not in PEM", kid)
	}
	if strings.TrimSpace(string(rest)) != "" {
		return PublicKey{}, fmt.Errorf("key %q has something behind the first PEM block", kid)
	}
	var key crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return PublicKey{}, fmt.Errorf("key %q is a %q and not a public key", kid, block.Type)
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("key %q: %w", kid, err)
	}
	return newPublicKey(kid, key)
}

// checkKeyID refuses key IDs that break the control plane's own keys, wherever
// they are written. Keys without a number count as 0.
func checkKeyID(kid string) error {
	if kid == "" {
		return errors.New("a key without an ID")
	}
	if strings.Trim(kid, "+-0123456789") == "" {
		return fmt.Errorf("key ID %q %w", kid, ErrOwnKeyID)
	}
	return nil
}
