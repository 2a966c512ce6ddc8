package local

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"

	"github.com/zonemint/zonemint/signer"
)

// A reference is one byte that says which of these forms it has, and the rest:
//
//	sealed  the PKCS #8 key, encrypted with the instance key; the associated
//	        data is what binding returns
//	plain   what binding returns, then the PKCS #8 key
//
// Bytes are never given another meaning: a new form gets a new one.
const (
	formSealed = 0x01
	formPlain  = 0x02
)

// binding is the canonical encoding of a key's identity and of the form. It
// ties a reference to its row: a database writer cannot make the key of one
// keyset sign as another's, or an old serial's as the present one's. Every
// variable part is preceded by its length, so that no two identities encode alike.
func binding(form byte, spec signer.Spec) []byte {
	out := append([]byte("zonemint local key"), form)
	for _, part := range []string{spec.Keyset, spec.Label, spec.Algorithm.String()} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return binary.BigEndian.AppendUint64(out, uint64(spec.Serial))
}

// store turns a key into a reference of the form that new keys have.
func (b *Backend) store(spec signer.Spec, key crypto.Signer) (signer.Ref, error) {
	if !b.insecure {
		return b.encrypt(spec, key)
	}
	der, err := marshal(key)
	if err != nil {
		return nil, err
	}
	return append(append(signer.Ref{formPlain}, binding(formPlain, spec)...), der...), nil
}

// encrypt turns a key into a sealed reference.
func (b *Backend) encrypt(spec signer.Spec, key crypto.Signer) (signer.Ref, error) {
	if b.aead == nil {
		return nil, errNoKey
	}
	der, err := marshal(key)
	if err != nil {
		return nil, err
	}
	defer clear(der) // at best: the key itself, and what the runtime copied, stay
	ciphertext, err := b.aead.Encrypt(der, binding(formSealed, spec))
	if err != nil {
		return nil, errors.New("the instance key does not encrypt")
	}
	return append(signer.Ref{formSealed}, ciphertext...), nil
}

// unseal turns a reference of either form back into the key.
func (b *Backend) unseal(spec signer.Spec, ref signer.Ref) (crypto.Signer, error) {
	if len(ref) == 0 {
		return nil, errFormat
	}
	switch form, rest := ref[0], ref[1:]; form {
	case formSealed:
		return b.decrypt(spec, rest)
	case formPlain:
		return b.readPlain(spec, rest)
	default:
		return nil, errFormat
	}
}

func (b *Backend) decrypt(spec signer.Spec, ciphertext []byte) (crypto.Signer, error) {
	if b.aead == nil {
		return nil, errNoKey
	}
	der, err := b.aead.Decrypt(ciphertext, binding(formSealed, spec))
	if err != nil {
		return nil, errNotOpened
	}
	defer clear(der)
	return unmarshal(der, spec.Algorithm)
}

// readPlain refuses, above all: if a plain key were accepted from a store of
// encrypted ones, writing to the database would be enough to plant a key. The
// binding of a plain key catches mistakes, not attackers.
func (b *Backend) readPlain(spec signer.Spec, rest []byte) (crypto.Signer, error) {
	if !b.insecure {
		return nil, errPlain
	}
	der, bound := bytes.CutPrefix(rest, binding(formPlain, spec))
	if !bound {
		return nil, errPlainMoved
	}
	return unmarshal(der, spec.Algorithm)
}
