// Package instancekey holds the one secret that a zonemint instance keeps
// outside its database: a key that encrypts local private keys and one that
// authenticates the rows which decide who can sign. Whoever has read the
// database alone learns no private key, and whoever can write it alone cannot
// make zonemint sign with a key, or for a caller, of theirs.
//
// Both are Tink keysets and can be rotated: what older keys encrypted or
// authenticated remains readable until they are pruned.
package instancekey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Key is an instance key. It is immutable and safe for concurrent use.
// Its text form names it without revealing anything.
type Key struct {
	aeadKeys, macKeys *keyset.Handle

	aead tink.AEAD
	mac  tink.MAC
}

// document is the JSON form: two Tink keysets in Tink's own JSON.
type document struct {
	AEAD json.RawMessage `json:"aead"`
	MAC  json.RawMessage `json:"mac"`
}

// Errors of this package never wrap those of a JSON or keyset parser, whose
// texts quote what they could not read.
var (
	errNotJSON   = errors.New(`not an instance key: want a JSON object with the members "aead" and "mac"`)
	errNotKeyset = errors.New("is not a Tink keyset in JSON")
	errWrite     = errors.New("the instance key cannot be written as JSON")
)

// Generate returns a new instance key.
func Generate() (*Key, error) {
	aeadKeys, err := rotated(keyset.NewManager(), forAEAD)
	if err != nil {
		return nil, err
	}
	macKeys, err := rotated(keyset.NewManager(), forMAC)
	if err != nil {
		return nil, err
	}
	return newKey(aeadKeys, macKeys)
}

// Parse reads the JSON form of an instance key, for example the value of an
// environment variable. For files see [ReadFile].
func Parse(data []byte) (*Key, error) {
	var doc document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if dec.Decode(&doc) != nil || len(doc.AEAD) == 0 || len(doc.MAC) == 0 {
		return nil, errNotJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotJSON
	}
	defer clear(doc.AEAD)
	defer clear(doc.MAC)
	aeadKeys, err := readKeyset(doc.AEAD, forAEAD)
	if err != nil {
		return nil, fmt.Errorf(`member "aead" of the instance key %w`, err)
	}
	macKeys, err := readKeyset(doc.MAC, forMAC)
	if err != nil {
		return nil, fmt.Errorf(`member "mac" of the instance key %w`, err)
	}
	return newKey(aeadKeys, macKeys)
}

// readKeyset uses Tink's cleartext form on purpose: an instance key is the root
// that all other encryption hangs on, so there is nothing to encrypt it with.
// What protects it is the file's mode and owner, which [ReadFile] insists on.
func readKeyset(data []byte, p purpose) (*keyset.Handle, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		return nil, errNotKeyset
	}
	return handle, p.check(handle)
}

func newKey(aeadKeys, macKeys *keyset.Handle) (*Key, error) {
	// These cannot fail on keysets that were checked; if they do, the text of
	// the error is Tink's and stays here.
	a, err := aead.New(aeadKeys)
	if err != nil {
		return nil, errors.New("the instance key cannot be used for encryption")
	}
	m, err := mac.New(macKeys)
	if err != nil {
		return nil, errors.New("the instance key cannot be used for authentication")
	}
	return &Key{aeadKeys: aeadKeys, macKeys: macKeys, aead: a, mac: m}, nil
}

// AEAD encrypts with AES-256-GCM under the primary key and decrypts under any.
func (k *Key) AEAD() tink.AEAD { return k.aead }

// MAC computes HMAC-SHA-256 with the primary key and verifies with any.
func (k *Key) MAC() tink.MAC { return k.mac }

// Marshal returns the JSON form, which is the secret itself.
func (k *Key) Marshal() ([]byte, error) {
	aeadKeys, err := writeKeyset(k.aeadKeys)
	if err != nil {
		return nil, err
	}
	defer clear(aeadKeys)
	macKeys, err := writeKeyset(k.macKeys)
	if err != nil {
		return nil, err
	}
	defer clear(macKeys)
	data, err := json.MarshalIndent(document{AEAD: aeadKeys, MAC: macKeys}, "", "  ")
	if err != nil {
		return nil, errWrite
	}
	return append(data, '\n'), nil
}

func writeKeyset(handle *keyset.Handle) ([]byte, error) {
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buf)); err != nil {
		return nil, errWrite
	}
	return buf.Bytes(), nil
}

// ID names the key by the random IDs of its two primary keys, for logs and for
// comparing replicas. It tells nothing about the key material.
func (k *Key) ID() string {
	return fmt.Sprintf("%08x-%08x", k.aeadKeys.KeysetInfo().GetPrimaryKeyId(), k.macKeys.KeysetInfo().GetPrimaryKeyId())
}

// String returns "instance key" and the ID.
func (k *Key) String() string { return "instance key " + k.ID() }

// GoString keeps the %#v form as discreet as the others.
func (k *Key) GoString() string { return k.String() }

// Member describes one of the keys that an instance key consists of.
type Member struct {
	Purpose string // "aead" or "mac"
	ID      string
	Primary bool // encrypts or authenticates; the others only read
}

// Members lists the keys, for each purpose the oldest first.
func (k *Key) Members() []Member {
	var members []Member
	for _, set := range []struct {
		purpose string
		handle  *keyset.Handle
	}{{"aead", k.aeadKeys}, {"mac", k.macKeys}} {
		info := set.handle.KeysetInfo()
		for _, key := range info.GetKeyInfo() {
			members = append(members, Member{
				Purpose: set.purpose,
				ID:      fmt.Sprintf("%08x", key.GetKeyId()),
				Primary: key.GetKeyId() == info.GetPrimaryKeyId(),
			})
		}
	}
	return members
}
