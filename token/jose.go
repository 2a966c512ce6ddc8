package token

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// Bounds on what is parsed before anything about it is known to be authentic.
const (
	// MaxTokenSize is the longest token that is looked at, in bytes.
	MaxTokenSize = 16 << 10
	// MaxKeyIDLength is the longest kid of a key or token.
	MaxKeyIDLength = 255

	maxHeaderSize = 2 << 10 // encoded
)

// strictBase64 refuses padding and trailing bits that are not zero, so that bytes
// have one encoding only (RFC 7515 section 2). It skips line breaks, which are
// therefore refused before.
var strictBase64 = base64.RawURLEncoding.Strict()

// Header is the part of the JOSE header that matters here.
type Header struct {
	Algorithm string // alg
	KeyID     string // kid
}

// UnverifiedHeader returns the header of a token without having verified
// anything. It serves to find out which keyset's verifier to ask. Do not decide
// anything else by it: anybody can write a header.
func UnverifiedHeader(raw string) (Header, error) {
	c, err := parseCompact(raw)
	if err != nil {
		return Header{}, err
	}
	return c.header, nil
}

// compact is a token in its parts (RFC 7515 section 7.1). The payload is
// decoded, but not parsed: that is left until the signature has been verified.
type compact struct {
	header       Header
	signingInput string
	payload      []byte
	signature    []byte
}

func parseCompact(raw string) (compact, error) {
	if len(raw) > MaxTokenSize {
		return compact{}, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxTokenSize)
	}
	if strings.ContainsAny(raw, "\r\n") {
		return compact{}, fmt.Errorf("%w: line break", ErrMalformed)
	}
	parts := strings.SplitN(raw, ".", 4)
	if len(parts) != 3 {
		return compact{}, fmt.Errorf("%w: not three parts", ErrMalformed)
	}
	if len(parts[0]) > maxHeaderSize {
		return compact{}, fmt.Errorf("%w: header is longer than %d bytes", ErrMalformed, maxHeaderSize)
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		var err error
		if decoded[i], err = strictBase64.DecodeString(parts[i]); err != nil {
			return compact{}, fmt.Errorf("%w: %s is not base64url: %w", ErrMalformed, name, err)
		}
	}
	h, err := parseHeader(decoded[0])
	if err != nil {
		return compact{}, err
	}
	signed := len(parts[0]) + 1 + len(parts[1])
	return compact{header: h, signingInput: raw[:signed], payload: decoded[1], signature: decoded[2]}, nil
}

// headerNames returns the header parameters that are read.
func headerNames() []string { return []string{"alg", "kid", "typ"} }

// refusedNames returns the header parameters that are never accepted: those that
// bring or locate a key (RFC 7515 sections 4.1.2 to 4.1.8), and those that
// change what the rest means (section 4.1.11, RFC 7797).
func refusedNames() []string {
	return []string{"crit", "b64", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"}
}

func parseHeader(data []byte) (Header, error) {
	var h Header
	refused, known := refusedNames(), headerNames()
	same := func(name string) func(string) bool {
		return func(s string) bool { return strings.EqualFold(s, name) }
	}
	err := members(data, func(name string, value []byte) error {
		if i := slices.IndexFunc(refused, same(name)); i >= 0 {
			return fmt.Errorf("%w: header parameter %s is not accepted", ErrMalformed, refused[i])
		}
		if i := slices.IndexFunc(known, same(name)); i >= 0 && known[i] != name {
			return fmt.Errorf("%w: header parameter %.20q must be written %q", ErrMalformed, name, known[i])
		}
		return h.read(name, value)
	})
	if err != nil {
		return Header{}, err
	}
	if h.Algorithm == "" {
		return Header{}, fmt.Errorf("%w: header has no alg", ErrMalformed)
	}
	if h.KeyID == "" || len(h.KeyID) > MaxKeyIDLength {
		return Header{}, fmt.Errorf("%w: header has no kid of 1 to %d bytes", ErrMalformed, MaxKeyIDLength)
	}
	return h, nil
}

func (h *Header) read(name string, value []byte) (err error) {
	var typ string
	switch name {
	case "alg":
		h.Algorithm, err = readString(value)
	case "kid":
		h.KeyID, err = readString(value)
	case "typ":
		if typ, err = readString(value); err == nil && typ != "JWT" {
			err = fmt.Errorf("%.20q is not a JWT", typ)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: header parameter %s: %w", ErrMalformed, name, err)
	}
	return nil
}
