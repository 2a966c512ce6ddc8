package kuma

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/zonemint/zonemint/token"
)

// Ref names a secret of a control plane.
type Ref struct {
	// Mesh is the mesh that the secret belongs to; empty for a GlobalSecret.
	Mesh string
	Name string
}

// String returns "GlobalSecret NAME" or "Secret MESH/NAME".
func (r Ref) String() string {
	if r.Mesh == "" {
		return "GlobalSecret " + r.Name
	}
	return "Secret " + r.Mesh + "/" + r.Name
}

// publicKeyPrefix begins the names of the secrets from which zone control planes
// take public keys for zone tokens. Without its "public-" it would begin those of
// private keys, where a public key stops the global control plane from sending
// anything to any zone.
const publicKeyPrefix = "zone-token-signing-public-key-"

// maxNameLength is the longest name of a secret, a subdomain as in RFC 1123.
const maxNameLength = 253

var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// PublicKeySecret returns the secret for a public key of zone tokens. It refuses
// key IDs that make no name, and those that a control plane takes for one of its
// own.
func PublicKeySecret(kid string) (Ref, error) {
	if err := checkKeyID(kid); err != nil {
		return Ref{}, err
	}
	name := publicKeyPrefix + kid
	switch {
	case !subdomain.MatchString(kid):
		return Ref{}, fmt.Errorf("key ID %q cannot be a part of a secret's name: it may have a-z, 0-9, '-' and '.', and must begin and end with a letter or digit", kid)
	case len(name) > maxNameLength:
		return Ref{}, fmt.Errorf("key ID %q is too long for a secret's name", kid)
	}
	return Ref{Name: name}, nil
}

// KeyIDOf returns the key ID of a secret that PublicKeySecret names.
func KeyIDOf(r Ref) (kid string, ok bool) {
	if r.Mesh != "" {
		return "", false
	}
	return strings.CutPrefix(r.Name, publicKeyPrefix)
}

// RevocationSecrets returns the secrets that hold the list of revoked token IDs
// of a profile. For dataplane tokens there are two: the documentation says that it
// is a secret of the mesh, and since Kuma 2.10 control planes read a GlobalSecret
// of that name.
func RevocationSecrets(p token.Profile, mesh string) ([]Ref, error) {
	switch p {
	case token.ProfileZone:
		return []Ref{{Name: "zone-token-revocations"}}, nil
	case token.ProfileUser:
		return []Ref{{Name: "user-token-revocations"}}, nil
	case token.ProfileDataplane:
		if !subdomain.MatchString(mesh) {
			return nil, fmt.Errorf("mesh %q cannot be a part of a secret's name", mesh)
		}
		name := "dataplane-token-revocations-" + mesh
		if len(name) > maxNameLength {
			return nil, fmt.Errorf("mesh %q is too long for a secret's name", mesh)
		}
		return []Ref{{Name: name}, {Mesh: mesh, Name: name}}, nil
	default:
		return nil, fmt.Errorf("control planes have no revocations of %s tokens", p)
	}
}

// ErrOwnKeyID is about key IDs that control planes give to their own keys.
var ErrOwnKeyID = errors.New("is a number, which control planes give to their own keys: a key under it takes the place of theirs")
