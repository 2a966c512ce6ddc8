package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// maxTokenSize is more than any token has, in bytes.
const maxTokenSize = 16 << 10

// Token is a token and what it says of itself, which nobody has verified here.
type Token struct {
	Raw       string    // a JWT in compact form; a secret
	ID        string    // jti
	KeyID     string    // kid
	IssuedAt  time.Time // by the issuer's clock, and a little early
	ExpiresAt time.Time // by the issuer's clock
}

// LogValue leaves the token itself out of logs.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("jti", t.ID), slog.String("kid", t.KeyID),
		slog.Time("expires_at", t.ExpiresAt))
}

// String returns the token's ID.
func (t Token) String() string { return t.ID }

// GoString returns the token's ID.
func (t Token) GoString() string { return t.ID }

// errNoToken is about text that is no token. Errors do not quote it: it may be
// somebody else's secret.
var errNoToken = errors.New("it is not a token")

// parse reads a token, and returns its claims too.
func parse(raw string) (Token, []byte, error) {
	if len(raw) > maxTokenSize || strings.ContainsAny(raw, "\r\n") { // base64 would overlook line ends
		return Token{}, nil, errNoToken
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || parts[2] == "" {
		return Token{}, nil, errNoToken
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	var claims struct {
		ID        string `json:"jti"`
		IssuedAt  int64  `json:"iat"`
		ExpiresAt int64  `json:"exp"`
	}
	if _, err := base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return Token{}, nil, errNoToken
	}
	if _, err := object(parts[0], &header); err != nil {
		return Token{}, nil, err
	}
	payload, err := object(parts[1], &claims)
	if err != nil {
		return Token{}, nil, err
	}
	if claims.ID == "" || claims.IssuedAt <= 0 || claims.ExpiresAt <= claims.IssuedAt {
		return Token{}, nil, errors.New("it has no ID, or does not say from when to when it is valid")
	}
	t := Token{raw, claims.ID, header.KeyID, time.Unix(claims.IssuedAt, 0), time.Unix(claims.ExpiresAt, 0)}
	return t, payload, nil
}

// object reads a part of a token into what v points to.
func object(part string, v any) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil || !bytes.HasPrefix(b, []byte("{")) {
		return nil, errNoToken
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, errNoToken // the cause may quote it
	}
	return b, nil
}

// looksLikeToken says whether text has the form of a token, with white space
// round it or not.
func looksLikeToken(text string) bool {
	_, _, err := parse(strings.TrimSpace(text))
	return !errors.Is(err, errNoToken)
}

// life is from when to when the token is valid.
func (t Token) life() time.Duration { return t.ExpiresAt.Sub(t.IssuedAt) }

// differs says that a token is not what is wanted.
func differs(what string, has, wanted any) error {
	return fmt.Errorf("its %s is %.100q, and %.100q is wanted", what, fmt.Sprint(has), fmt.Sprint(wanted))
}
