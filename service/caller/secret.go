package caller

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// An API token is the prefix, then 256 random bits and their CRC-32 in
// lower-case base32. The prefix lets secret scanners recognise it, the checksum
// lets a mistyped or made-up token be refused without asking the database.
const (
	prefix     = "zmt_"
	secretSize = 32
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ErrMalformed: the text is not an API token.
var ErrMalformed = errors.New("not an API token of this service")

// newSecret makes an API token and the hash by which it is remembered.
func newSecret() (text string, hash []byte) {
	b := make([]byte, secretSize, secretSize+crc32.Size)
	rand.Read(b) // never fails
	sum := sha256.Sum256(b)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return prefix + encoding.EncodeToString(b), sum[:]
}

// hashOf returns the hash of an API token's text.
func hashOf(text string) ([sha256.Size]byte, error) {
	var none [sha256.Size]byte
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(rest) != encoding.EncodedLen(secretSize+crc32.Size) {
		return none, ErrMalformed
	}
	b, err := encoding.DecodeString(rest)
	// The decoder skips line breaks and ignores spare bits at the end.
	if err != nil || encoding.EncodeToString(b) != rest {
		return none, ErrMalformed
	}
	secret, sum := b[:secretSize], binary.BigEndian.Uint32(b[secretSize:])
	if crc32.ChecksumIEEE(secret) != sum {
		return none, ErrMalformed
	}
	return sha256.Sum256(secret), nil
}
