package legacy

import (
	"encoding/binary"
	"errors"
)

// AEAD encrypts under the instance key.
type AEAD interface {
	Encrypt(plaintext, associatedData []byte) ([]byte, error)
	Decrypt(ciphertext, associatedData []byte) ([]byte, error)
}

// Vault seals secrets for the database. What it seals is bound to the database, the
// kind and the serial: moved to another row it does not open.
type Vault struct {
	AEAD         AEAD
	Installation [16]byte
}

// formSealed is the first byte of a sealed secret: the secret, encrypted, with
// binding as associated data. Another form gets another byte.
const formSealed = 0x01

var (
	errSeal   = errors.New("the instance key does not encrypt")
	errUnseal = errors.New("the secret of a legacy key does not open: it belongs to another row, database or instance key, or was damaged")
)

func (v Vault) binding(kind Kind, serial int) []byte {
	out := append([]byte("zonemint legacy key"), formSealed)
	out = append(out, v.Installation[:]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(kind)))
	out = append(out, kind...)
	return binary.BigEndian.AppendUint64(out, uint64(serial))
}

// Seal encrypts a secret.
func (v Vault) Seal(kind Kind, serial int, secret []byte) ([]byte, error) {
	ciphertext, err := v.AEAD.Encrypt(secret, v.binding(kind, serial))
	if err != nil {
		return nil, errSeal // the cause's text is not ours
	}
	return append([]byte{formSealed}, ciphertext...), nil
}

// Open decrypts a secret.
func (v Vault) Open(kind Kind, serial int, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != formSealed {
		return nil, errUnseal
	}
	secret, err := v.AEAD.Decrypt(sealed[1:], v.binding(kind, serial))
	if err != nil {
		return nil, errUnseal
	}
	return secret, nil
}

// Key opens a secret for use.
func (v Vault) Key(kind Kind, serial int, sealed []byte) (MAC, error) {
	secret, err := v.Open(kind, serial, sealed)
	if err != nil {
		return nil, err
	}
	return NewMAC(secret)
}
