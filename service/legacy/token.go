package legacy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Kind is one of the old kinds of token. No key serves two.
type Kind string

// The kinds.
const (
	// ControlPlane is the control-plane token of Kong Mesh 1.x.
	ControlPlane Kind = "control-plane"
	// ZoneIngress is the zone-ingress token of Kuma 1.x.
	ZoneIngress Kind = "zone-ingress"
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{ControlPlane, ZoneIngress} }

// SecretName is the name of the GlobalSecret in which a control plane has a key.
func (k Kind) SecretName(serial int) string {
	if k == ZoneIngress {
		return "zone-ingress-token-signing-key"
	}
	return fmt.Sprintf("control-plane-signing-key-%04d", serial)
}

// Bounds on what is parsed before anything about it is known to be authentic.
const (
	// MaxTokenSize is the longest token that is looked at, in bytes.
	MaxTokenSize = 2 << 10
	// MaxZoneLength is the longest name of a zone. Control planes of that time
	// checked nothing about it.
	MaxZoneLength = 253
)

// encodedHeader is {"alg":"HS256","typ":"JWT"}, the one header of these tokens. It
// is compared and not parsed, so that no token can choose how it is verified.
const encodedHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// The ways in which a token is not good.
var (
	// ErrMalformed: not in compact form, or with another header.
	ErrMalformed = errors.New("not an old HS256 token")
	// ErrClaims: the claims are not those of the kind.
	ErrClaims = errors.New("not the claims of this kind of token")
	// ErrUnknownKey: there is no key with the token's serial, or none at all.
	ErrUnknownKey = errors.New("no trusted key has the token's serial")
	// ErrSignature: the code is not the key's.
	ErrSignature = errors.New("signature does not verify")
)

// Reason returns a short word for why a token is not good, the same as for other
// tokens. The words are stable.
func Reason(err error) string {
	for _, r := range []struct {
		err  error
		word string
	}{{ErrMalformed, "malformed"}, {ErrClaims, "claims"}, {ErrUnknownKey, "unknown_key"}, {ErrSignature, "signature"}} {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return "other"
}

// Token is what a token says.
type Token struct {
	Zone string
	// Serial is that of the key. Zone-ingress tokens have none: 0.
	Serial int
}

// The claims, with the names and in the order in which control planes wrote them.
type (
	controlPlaneClaims struct {
		Zone              string
		TokenSerialNumber int
	}
	zoneIngressClaims struct {
		Zone string
	}
)

func (t Token) claims(kind Kind) (any, error) {
	switch {
	case t.Zone == "" || len(t.Zone) > MaxZoneLength:
		return nil, fmt.Errorf("%w: the zone has not 1 to %d bytes", ErrClaims, MaxZoneLength)
	case kind == ControlPlane && t.Serial > 0:
		return controlPlaneClaims{t.Zone, t.Serial}, nil
	case kind == ZoneIngress && t.Serial == 0:
		return zoneIngressClaims{t.Zone}, nil
	default:
		return nil, fmt.Errorf("%w: %s with serial %d", ErrClaims, kind, t.Serial)
	}
}

// payload returns the one encoding of the claims.
func (t Token) payload(kind Kind) ([]byte, error) {
	claims, err := t.claims(kind)
	if err != nil {
		return nil, err
	}
	return json.Marshal(claims)
}

// Encode makes a token.
func (t Token) Encode(kind Kind, key MAC) (string, error) {
	payload, err := t.payload(kind)
	if err != nil {
		return "", err
	}
	input := encodedHeader + "." + base64.RawURLEncoding.EncodeToString(payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(key.Sum([]byte(input))), nil
}

// Unverified is a token whose code was not looked at yet.
type Unverified struct {
	token Token
	input string
	code  []byte
}

// Parse takes a token of a kind apart. It accepts what [Token.Encode] makes, to the
// byte, and nothing else: no other header, no member more or less, twice or in
// another case, order or spelling.
func Parse(kind Kind, raw string) (Unverified, error) {
	if len(raw) > MaxTokenSize {
		return Unverified{}, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxTokenSize)
	}
	parts := strings.SplitN(raw, ".", 4)
	if len(parts) != 3 || parts[0] != encodedHeader {
		return Unverified{}, fmt.Errorf("%w: its header is not that of one", ErrMalformed)
	}
	payload, err := decode(parts[1])
	if err != nil {
		return Unverified{}, fmt.Errorf("%w: the payload is not base64url", ErrMalformed)
	}
	code, err := decode(parts[2])
	if err != nil || len(code) != codeSize {
		return Unverified{}, fmt.Errorf("%w: the signature is not of HS256", ErrMalformed)
	}
	var claims controlPlaneClaims
	if json.Unmarshal(payload, &claims) != nil {
		return Unverified{}, fmt.Errorf("%w: not a JSON object with a zone", ErrClaims)
	}
	t := Token{Zone: claims.Zone, Serial: claims.TokenSerialNumber}
	only, err := t.payload(kind)
	if err != nil {
		return Unverified{}, err
	}
	if !bytes.Equal(only, payload) {
		return Unverified{}, fmt.Errorf("%w: not written as control planes write them", ErrClaims)
	}
	return Unverified{t, parts[0] + "." + parts[1], code}, nil
}

// decode refuses padding, line breaks and spare bits.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // which the decoder would skip
		return nil, errors.New("line break")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// Serial says which key is to be asked, 0 if any may have been used. Nothing else
// may be decided by it.
func (u Unverified) Serial() int { return u.token.Serial }

// Verify returns what the token says, ErrSignature if the key has not made it.
func (u Unverified) Verify(key MAC) (Token, error) {
	if !key.Verify([]byte(u.input), u.code) {
		return Token{}, ErrSignature
	}
	return u.token, nil
}
