package legacy

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
)

// codeSize is the length of a code, in bytes.
const codeSize = sha256.Size

// MAC is a key of old tokens: it computes the code of a message and compares one
// with it in constant time. It is safe for concurrent use.
//
// It is no crypto.Signer and cannot be made one, and nothing outside this package
// can be a MAC: what signs for a keyset can never be asked for a code, and the
// reverse.
type MAC interface {
	Sum(message []byte) []byte
	Verify(message, code []byte) bool

	legacy()
}

// NewMAC returns the key whose secret is given. It keeps the secret.
func NewMAC(secret []byte) (MAC, error) {
	if len(secret) < MinSecretSize {
		return nil, errors.New("the secret of a legacy key is too short")
	}
	return local{secret}, nil
}

// local is HMAC with SHA-256 in this process.
type local struct{ secret []byte }

func (l local) legacy() {}

func (l local) Sum(message []byte) []byte {
	h := hmac.New(sha256.New, l.secret)
	h.Write(message)
	return h.Sum(nil)
}

func (l local) Verify(message, code []byte) bool { return hmac.Equal(code, l.Sum(message)) }

// String keeps the secret out of whatever prints a key.
func (l local) String() string { return "legacy key" }

// GoString does the same for %#v.
func (l local) GoString() string { return l.String() }
