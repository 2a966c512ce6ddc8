package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// MaxKeySetSize is the longest JWK set that is looked at, in bytes.
const MaxKeySetSize = 256 << 10

// ParseKeySet reads a JWK set (RFC 7517 section 5).
//
// An entry that cannot be used is skipped and does not fail the set: a key type,
// curve or algorithm that is not known here, a key without kid or alg, one that is
// not for signatures, one that is too short or malformed. [KeySet.Skipped] tells
// which. Otherwise one bad entry would keep the removal of another, perhaps of a
// key that was stolen, from taking effect. For the same reason a set may be empty.
//
// The set as a whole is refused if it is not a JWK set, if a name occurs twice in
// an object, if two entries have the same kid, or if an entry holds a private or
// symmetric key: it has then been published, and somebody must look.
func ParseKeySet(data []byte) (*KeySet, error) {
	if len(data) > MaxKeySetSize {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrKeySet, MaxKeySetSize)
	}
	entries, err := keySetEntries(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeySet, err)
	}
	set := &KeySet{}
	seen := make(map[string]bool, len(entries))
	for i, entry := range entries {
		j, err := readJWK(entry)
		if err != nil {
			return nil, fmt.Errorf("%w: entry %d: %w", ErrKeySet, i, err)
		}
		if j.Kid != "" && seen[j.Kid] {
			return nil, fmt.Errorf("%w: two entries are called %.64q", ErrKeySet, j.Kid)
		}
		seen[j.Kid] = true
		if k, err := j.key(); err != nil {
			set.skipped = append(set.skipped, SkippedKey{ID: j.Kid, Err: err})
		} else {
			set.keys = append(set.keys, k)
		}
	}
	return set, nil
}

// keySetEntries returns the elements of the member "keys".
func keySetEntries(data []byte) ([]json.RawMessage, error) {
	var entries []json.RawMessage
	err := members(data, func(name string, value []byte) error {
		if name != "keys" {
			return nil // RFC 7517 section 5: ignored
		}
		if err := json.Unmarshal(value, &entries); err != nil || entries == nil {
			return errors.New("keys is not an array")
		}
		return nil
	})
	if err == nil && entries == nil {
		err = errors.New("it has no member keys")
	}
	return entries, err
}

// jwk holds the members of an entry that are read. Its JSON form has only those
// that make up a public key.
type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`

	Kid string   `json:"-"`
	Alg string   `json:"-"`
	Use string   `json:"-"`
	Ops []string `json:"-"`

	invalid error // why the entry is to be skipped, if already known
}

// readJWK reads one entry. Its error refuses the whole set.
func readJWK(entry []byte) (jwk, error) {
	var j jwk
	err := members(entry, func(name string, value []byte) error {
		switch name {
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k": // RFC 7518 section 6
			return errors.New("it holds a private or symmetric key")
		case "key_ops":
			var err error
			if j.Ops, err = readStrings(value); err != nil {
				j.invalid = errors.New("key_ops is not an array of strings")
			}
			return nil
		}
		field := j.member(name)
		if field == nil {
			return nil
		}
		var err error
		if *field, err = readString(value); err != nil {
			j.invalid = fmt.Errorf("%s is not a string", name)
		}
		return nil
	})
	if err == nil && j.Kty == "oct" {
		err = errors.New("it is a symmetric key")
	}
	return j, err
}

func (j *jwk) member(name string) *string {
	switch name {
	case "kty":
		return &j.Kty
	case "crv":
		return &j.Crv
	case "n":
		return &j.N
	case "e":
		return &j.E
	case "x":
		return &j.X
	case "y":
		return &j.Y
	case "kid":
		return &j.Kid
	case "alg":
		return &j.Alg
	case "use":
		return &j.Use
	default:
		return nil
	}
}

// key turns an entry into a key. Its error skips the entry.
func (j jwk) key() (Key, error) {
	switch {
	case j.invalid != nil:
		return Key{}, j.invalid
	case j.Use != "sig":
		return Key{}, fmt.Errorf("use is %.20q, not sig", j.Use)
	case j.Ops != nil && !slices.Contains(j.Ops, "verify"):
		return Key{}, errors.New("key_ops has no verify")
	case j.Kid == "":
		return Key{}, errors.New("it has no kid")
	case j.Alg == "":
		return Key{}, errors.New("it has no alg")
	}
	public, err := j.public()
	if err != nil {
		return Key{}, err
	}
	return NewKey(j.Kid, j.Alg, public.Key)
}

// public decodes the key itself. What the decoder made of it must encode to the
// same text: it cuts numbers that are too long and lets some base64 pass that has
// a second form.
func (j jwk) public() (jose.JSONWebKey, error) {
	want := jwk{Kty: j.Kty, Crv: j.Crv, N: j.N, E: j.E, X: j.X, Y: j.Y}
	in, err := json.Marshal(want)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(in); err != nil {
		return jose.JSONWebKey{}, err
	}
	out, err := k.MarshalJSON()
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	got, err := readJWK(out)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	if got.Kty != want.Kty || got.Crv != want.Crv || got.N != want.N || got.E != want.E || got.X != want.X || got.Y != want.Y {
		return jose.JSONWebKey{}, errors.New("its numbers are not in the form of RFC 7518 section 6")
	}
	return k, nil
}
