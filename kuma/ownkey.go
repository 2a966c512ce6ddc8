package kuma

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zonemint/zonemint/token"
)

// OwnKey is a key with which a control plane issues tokens, or verifies them, by
// itself. Printing one shows nothing of a private key.
type OwnKey struct {
	Ref    Ref
	ID     string // that its tokens carry
	Public PublicKey

	sign func(message []byte) ([]byte, error)
}

// Sign signs a message with RS256. It fails with ErrPublicOnly if the control
// plane's secret had the public half only.
func (k OwnKey) Sign(message []byte) ([]byte, error) {
	if k.sign == nil {
		return nil, ErrPublicOnly
	}
	return k.sign(message)
}

// CanSign says whether the private half was in the secret.
func (k OwnKey) CanSign() bool { return k.sign != nil }

// Forget drops the private half.
func (k *OwnKey) Forget() { k.sign = nil }

// ErrPublicOnly is about keys of which only the public half could be read.
var ErrPublicOnly = errors.New("only the public half of the key is there")

// UnusableError says why a key in a secret cannot be taken over.
type UnusableError struct {
	Ref    Ref
	ID     string
	Legacy bool // it is of a kind that cannot be taken over at all
	Reason string
}

func (e *UnusableError) Error() string { return fmt.Sprintf("%s: %s", e.Ref, e.Reason) }

// signingKeyName returns how the names of the secrets begin that have private keys
// for tokens of a profile. They are read and never written: see publicKeyPrefix.
func signingKeyName(p token.Profile, mesh string) Ref {
	switch p {
	case token.ProfileZone:
		return Ref{Name: "zone-token-signing-key"}
	case token.ProfileDataplane:
		return Ref{Mesh: mesh, Name: "dataplane-token-signing-key-" + mesh}
	case token.ProfileUser:
		return Ref{Name: "user-token-signing-key"}
	default:
		return Ref{}
	}
}

// ownKeyID returns the ID of the key in a secret, and whether it is a private key.
func ownKeyID(r Ref, p token.Profile, mesh string) (kid string, private, ok bool) {
	if kid, ok = KeyIDOf(r); ok && p == token.ProfileZone {
		return kid, false, true
	}
	name := signingKeyName(p, mesh)
	if name.Name == "" || r.Mesh != name.Mesh {
		return "", false, false
	}
	if r.Name == name.Name {
		return "0", true, true
	}
	kid, ok = strings.CutPrefix(r.Name, name.Name+"-")
	return kid, true, ok
}

// Concerns says whether a secret has a key or the revocations of tokens of a
// profile, and for dataplane tokens of a mesh.
func (r Ref) Concerns(p token.Profile, mesh string) bool {
	if _, _, ok := ownKeyID(r, p, mesh); ok {
		return true
	}
	lists, err := RevocationSecrets(p, mesh)
	return err == nil && slices.Contains(lists, r)
}

// OwnKeys returns the keys among the secrets for tokens of a profile, in the order
// of their names. The private half is preferred where both are there. Keys that
// cannot be used are returned as errors.
func OwnKeys(secrets []Secret, p token.Profile, mesh string) (keys []OwnKey, unusable []*UnusableError) {
	sorted := slices.SortedFunc(slices.Values(secrets), func(a, b Secret) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range sorted {
		kid, private, ok := ownKeyID(s.Ref, p, mesh)
		if !ok {
			continue
		}
		if kid == "0" && private {
			unusable = append(unusable, &UnusableError{s.Ref, kid, true, "it is a key of Kuma 1.3 or older, with a secret in place of a key pair (HS256): " +
				"issue new tokens in place of those that it has signed, Kuma 3 refuses them too"})
			continue
		}
		key, err := parseOwnKey(s, kid, private)
		if err != nil {
			unusable = append(unusable, &UnusableError{Ref: s.Ref, ID: kid, Reason: err.Error()})
			continue
		}
		keys = append(keys, key)
	}
	return withoutHalves(keys), unusable
}

// withoutHalves leaves out public keys whose private half is there too.
func withoutHalves(keys []OwnKey) []OwnKey {
	return slices.DeleteFunc(slices.Clone(keys), func(k OwnKey) bool {
		return !k.CanSign() && slices.ContainsFunc(keys, func(o OwnKey) bool { return o.CanSign() && o.Public == k.Public })
	})
}

func parseOwnKey(s Secret, kid string, private bool) (OwnKey, error) {
	if kid == "" {
		return OwnKey{}, errors.New("its name has no key ID at its end")
	}
	k := OwnKey{Ref: s.Ref, ID: kid}
	der, kind := s.Data, ""
	if block, _ := pem.Decode(s.Data); block != nil {
		der, kind = block.Bytes, block.Type
	}
	var err error
	if !private {
		var public crypto.PublicKey
		if public, err = parsePublic(der, kind); err == nil {
			k.Public, err = newPublicKey(kid, public)
		}
		return k, err
	}
	key, err := parsePrivate(der, kind)
	if kind != "" {
		clear(der) // it is a copy
	}
	if err != nil {
		return OwnKey{}, err
	}
	k.sign = func(message []byte) ([]byte, error) {
		digest := sha256.Sum256(message)
		return key.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
	k.Public, err = newPublicKey(kid, key.Public())
	return k, err
}

// parsePublic reads a key in one of the forms that control planes read: PEM, and
// from old versions PKCS #1 without it.
func parsePublic(der []byte, kind string) (crypto.PublicKey, error) {
	var key crypto.PublicKey
	var err error
	switch kind {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(der)
	case "RSA PUBLIC KEY", "":
		key, err = x509.ParsePKCS1PublicKey(der)
	default:
		return nil, fmt.Errorf("it is a %q and not a public key", kind)
	}
	if err != nil {
		return nil, errors.New("it is not a public key that control planes read")
	}
	return key, nil
}

func parsePrivate(der []byte, kind string) (*rsa.PrivateKey, error) {
	switch kind {
	case "RSA PRIVATE KEY", "":
		if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
			return key, nil
		}
	case "PRIVATE KEY":
		if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			if key, ok := key.(*rsa.PrivateKey); ok {
				return key, nil
			}
		}
	}
	return nil, errors.New("it is not an RSA private key: control planes cannot use it either, and one under this name stops a global control plane from sending anything to its zones")
}
