package keyring

import (
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// KeysetByID returns a keyset by its ID; ErrNoKeyset if there is none.
func (s *Snapshot) KeysetByID(id uuid.UUID) (*Keyset, error) {
	for _, ks := range s.keysets {
		if ks.ID == id {
			return ks, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoKeyset, id)
}

// OfMesh returns the names of the keysets whose tokens are for a mesh, sorted. The
// slice must not be changed.
func (s *Snapshot) OfMesh(mesh string) []string { return s.meshes[mesh] }

func byMesh(keysets []store.Keyset) map[string][]string {
	meshes := map[string][]string{}
	for _, ks := range keysets {
		if mesh := ks.Mesh(); mesh != "" {
			meshes[mesh] = append(meshes[mesh], ks.Name)
		}
	}
	for _, names := range meshes {
		slices.Sort(names)
	}
	return meshes
}

// PublicKey returns the public key of a row, whatever state the row is in.
func PublicKey(row store.SigningKey) (token.Key, error) {
	alg, err := signer.Parse(row.Algorithm)
	if err != nil {
		return token.Key{}, fmt.Errorf("key %s: %w", row.KID, err)
	}
	public, err := x509.ParsePKIXPublicKey(row.PublicKey)
	if err != nil {
		return token.Key{}, fmt.Errorf("public key of %s: %w", row.KID, err)
	}
	key, err := token.NewKey(row.KID, alg.JWS(), public)
	if err != nil {
		return token.Key{}, fmt.Errorf("public key of %s: %w", row.KID, err)
	}
	return key, nil
}
