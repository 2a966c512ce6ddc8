package token

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// KeySource is where a [Verifier] finds the public keys of its keyset. [KeySet]
// and [RemoteKeys] are two.
type KeySource interface {
	// Key returns the key with that ID. It fails with [ErrUnknownKey] if the
	// keys at hand do not include it, and with another error if there are none
	// to look at. It may be called concurrently and returns soon after ctx ends.
	Key(ctx context.Context, id string) (Key, error)
}

// KeySet is the public keys of one keyset. It never changes.
type KeySet struct {
	keys    []Key
	skipped []SkippedKey
}

// SkippedKey is an entry of a JWK set that cannot be used.
type SkippedKey struct {
	ID  string // "" if it has none
	Err error
}

// NewKeySet returns a set of keys, whose IDs must differ.
func NewKeySet(keys ...Key) (*KeySet, error) {
	for i, k := range keys {
		if k.method == nil {
			return nil, fmt.Errorf("%w: key %d is empty", ErrKeySet, i)
		}
		same := func(other Key) bool { return other.id == k.id }
		if slices.ContainsFunc(keys[:i], same) {
			return nil, fmt.Errorf("%w: two keys are called %.64q", ErrKeySet, k.id)
		}
	}
	return &KeySet{keys: slices.Clone(keys)}, nil
}

// Key returns the key with that ID. It implements [KeySource].
func (s *KeySet) Key(_ context.Context, id string) (Key, error) {
	i := slices.IndexFunc(s.keys, func(k Key) bool { return k.id == id })
	if i < 0 {
		return Key{}, fmt.Errorf("%w: %.64q", ErrUnknownKey, id)
	}
	return s.keys[i], nil
}

// Keys returns the keys in the order of the set.
func (s *KeySet) Keys() []Key { return slices.Clone(s.keys) }

// IDs returns the IDs of the keys in the order of the set.
func (s *KeySet) IDs() []string {
	ids := make([]string, len(s.keys))
	for i, k := range s.keys {
		ids[i] = k.id
	}
	return ids
}

// Skipped returns the entries that [ParseKeySet] found but could not use.
func (s *KeySet) Skipped() []SkippedKey { return slices.Clone(s.skipped) }

// MarshalJSON renders the set as a JWK set (RFC 7517 section 5). Every key has
// use "sig", alg and kid. The same keys in the same order give the same bytes.
func (s *KeySet) MarshalJSON() ([]byte, error) {
	dst := []byte(`{"keys":[`)
	for i, k := range s.keys {
		jwk, err := jose.JSONWebKey{Key: k.public, KeyID: k.id, Algorithm: k.Algorithm(), Use: "sig"}.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("render key %.64q: %w", k.id, err)
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, jwk...)
	}
	return append(dst, "]}"...), nil
}
