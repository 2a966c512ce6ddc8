package token

import (
	"encoding/base64"
	"unicode/utf8"
)

// EncodeHeader returns the encoded JOSE header (RFC 7515 section 4) of tokens that
// are signed with alg by the key kid. It is the same for every token of a key.
func EncodeHeader(alg, kid string) string {
	h := appendString([]byte(`{"alg":`), alg)
	h = appendString(append(h, `,"kid":`...), kid)
	h = append(h, `,"typ":"JWT"}`...)
	return base64.RawURLEncoding.EncodeToString(h)
}

// AppendSigningInput appends what is signed (RFC 7515 section 5.1): the encoded
// header, as [EncodeHeader] returns it, a dot, and the encoded claims. It
// allocates nothing if dst has enough room.
func AppendSigningInput[C Claims](dst []byte, header string, claims C) []byte {
	dst = append(append(dst, header...), '.')
	start := len(dst)
	dst = claims.AppendJSON(dst)
	end := len(dst)
	// The encoding is longer than what it encodes, so it is made behind the
	// JSON and then moved over it.
	dst = base64.RawURLEncoding.AppendEncode(dst, dst[start:end])
	n := copy(dst[start:], dst[end:])
	return dst[:start+n]
}

// AppendSignature appends a dot and the encoded signature to a signing input,
// which makes it a token (RFC 7515 section 7.1).
func AppendSignature(signingInput, signature []byte) []byte {
	return base64.RawURLEncoding.AppendEncode(append(signingInput, '.'), signature)
}

// appendStrings appends a JSON array of strings, null for nil.
func appendStrings(dst []byte, list []string) []byte {
	if list == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string (RFC 8259 section 7), byte for byte as
// encoding/json would write it: that is how Kuma writes its tokens.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if plain(s[i]) {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if invalid := r == utf8.RuneError && size == 1; r < utf8.RuneSelf || invalid || r == '\u2028' || r == '\u2029' {
			dst = appendEscape(append(dst, s[start:i]...), r)
			start = i + size
		}
		i += size
	}
	return append(append(dst, s[start:]...), '"')
}

// plain says whether a byte stands for itself in a JSON string that may also be
// embedded in HTML.
func plain(c byte) bool {
	switch c {
	case '"', '\\', '<', '>', '&':
		return false
	default:
		return c >= ' ' && c < utf8.RuneSelf
	}
}

// appendEscape appends the escape of a character in the basic plane.
func appendEscape(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	default:
		return append(dst, '\\', 'u', hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
	}
}
