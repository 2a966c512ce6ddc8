// Package controlplane reads and writes the few secrets of a global control plane
// of Kuma or Kong Mesh that hold public keys and revocations, through its REST API
// or, where that is read-only, through the Kubernetes API.
//
// Both stores refuse to write or delete anything else, and to write anything that
// a control plane would choke on or misread: see [Check].
package controlplane

import (
	"errors"
	"fmt"
	"strings"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/token"
)

// The label that marks a secret as made by zonemint. Control planes before Kuma
// 2.7 drop labels.
const (
	OwnerLabel = "app.kubernetes.io/managed-by"
	Owner      = "zonemint"
)

// Secret is a secret of a control plane.
type Secret struct {
	Ref    kuma.Ref
	Labels map[string]string
	Data   []byte

	// Version is what a store that can compare and swap wants back unchanged, so
	// that it replaces or deletes just what was read. Empty: the secret was not
	// there, and is to be made.
	Version string
}

// Owned says whether the secret is marked as made by zonemint.
func (s Secret) Owned() bool { return s.Labels[OwnerLabel] == Owner }

// What callers tell apart. Any other error is one that trying again does not mend
// by itself.
var (
	ErrNotFound = errors.New("there is no such secret")
	// ErrNoMesh is about a secret of a mesh that does not exist.
	ErrNoMesh = errors.New("there is no such mesh in the control plane")
	// ErrConflict says that somebody else has changed the secret since it was read.
	ErrConflict = errors.New("somebody else has changed the secret meanwhile")
	// ErrDenied is about the credential.
	ErrDenied = errors.New("the control plane refuses the credential")
	// ErrReadOnly is about a control plane on Kubernetes, or of a zone.
	ErrReadOnly = errors.New("the control plane's REST API is read-only")
	// ErrTaken says that a secret of another kind has the name: on Kubernetes
	// there is one Secret for a GlobalSecret and a mesh's Secret of the same name.
	ErrTaken = errors.New("the name is taken by a secret of another kind")
	// ErrUnavailable is about a control plane that does not answer as it should.
	ErrUnavailable = errors.New("the control plane is not available")
	// ErrForbidden is about what must never be written. It is a fault of the caller.
	ErrForbidden = errors.New("refused to write")
)

// Check refuses, with [ErrForbidden], to write a secret that is none of those that
// zonemint keeps up to date, or not in the form that control planes read: one
// public key for its own name, or a list of token IDs that is not empty and
// exactly as [kuma.List.Encode] writes it.
//
// An empty list is one empty entry to a control plane. It matches tokens without an
// ID.
func Check(s Secret) error {
	if err := CheckName(s.Ref); err != nil {
		return err
	}
	if kid, ok := kuma.KeyIDOf(s.Ref); ok {
		if _, err := kuma.ParsePublicKey(kid, string(s.Data)); err != nil {
			return fmt.Errorf("%w %s: %w", ErrForbidden, s.Ref, err)
		}
		return nil
	}
	text, err := kuma.ParseList(string(s.Data)).Encode()
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrForbidden, s.Ref, err)
	}
	if text == "" || text != string(s.Data) {
		return fmt.Errorf("%w %s: it is not a list as control planes read it", ErrForbidden, s.Ref)
	}
	return nil
}

// CheckName refuses, with [ErrForbidden], every name but those of public keys for
// zone tokens and of lists of revoked tokens. Under other names one write can stop a
// mesh.
func CheckName(r kuma.Ref) error {
	if kid, ok := kuma.KeyIDOf(r); ok {
		want, err := kuma.PublicKeySecret(kid)
		if err != nil {
			return fmt.Errorf("%w %s: %w", ErrForbidden, r, err)
		}
		if want == r {
			return nil
		}
	}
	for _, p := range []token.Profile{token.ProfileZone, token.ProfileUser, token.ProfileDataplane} {
		if isList(r, p) {
			return nil
		}
	}
	return fmt.Errorf("%w %s: it is neither a public key for zone tokens nor a list of revoked tokens", ErrForbidden, r)
}

// isList says whether the secret is a list of revoked tokens of the profile.
func isList(r kuma.Ref, p token.Profile) bool {
	mesh := ""
	if p == token.ProfileDataplane {
		mesh = r.Mesh
		if mesh == "" {
			mesh = strings.TrimPrefix(r.Name, "dataplane-token-revocations-")
		}
	}
	refs, err := kuma.RevocationSecrets(p, mesh)
	if err != nil {
		return false
	}
	for _, ref := range refs {
		if ref == r {
			return true
		}
	}
	return false
}
