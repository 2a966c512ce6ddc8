package pkcs11

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/zonemint/zonemint/signer"
)

// reference names a key pair of a token by the two attributes that its halves
// share. As a [signer.Ref] it is "pkcs11:v1:", CKA_ID in hexadecimal, a colon
// and CKA_LABEL. The label of an adopted key is whatever its maker chose.
type reference struct {
	id    []byte
	label string
}

const (
	refPrefix = "pkcs11:v1:"
	maxID     = 255 // bytes of CKA_ID, more than any token takes
	maxLabel  = 255 // bytes of CKA_LABEL
)

func (r reference) encode() signer.Ref {
	return signer.Ref(refPrefix + hex.EncodeToString(r.id) + ":" + r.label)
}

// parseRef is strict: what it accepts, encode returns byte for byte. Errors do not
// quote it, since what is no reference may be anything.
func parseRef(ref signer.Ref) (reference, error) {
	rest, ok := strings.CutPrefix(string(ref), refPrefix)
	id, label, colon := strings.Cut(rest, ":")
	if !ok || !colon {
		return reference{}, failf(signer.Corrupt, "this is not a reference to a PKCS#11 key")
	}
	raw, err := hex.DecodeString(id)
	if err != nil || id != strings.ToLower(id) {
		return reference{}, failf(signer.Corrupt, "the id in the reference to a PKCS#11 key is not in lower-case hexadecimal")
	}
	r := reference{raw, label}
	if err := r.check(); err != nil {
		return reference{}, &codedError{signer.Corrupt, err}
	}
	return r, nil
}

func (r reference) check() error {
	if len(r.id) == 0 || len(r.id) > maxID {
		return fmt.Errorf("a PKCS#11 key needs a CKA_ID of 1 to %d bytes, this has %d", maxID, len(r.id))
	}
	if len(r.label) > maxLabel || !utf8.ValidString(r.label) {
		return fmt.Errorf("a PKCS#11 key needs a CKA_LABEL in UTF-8 of at most %d bytes", maxLabel)
	}
	return nil
}

// of parses ref and refuses it if it belongs to another key of zonemint. A label
// that zonemint did not make is one of an adopted key, and says nothing.
func (r reference) of(spec signer.Spec) error {
	if signer.IsLabel(r.label) && r.label != spec.Label {
		return failf(signer.Corrupt, "the reference is to the PKCS#11 key with the label %s, which is another key", r.label)
	}
	return nil
}
