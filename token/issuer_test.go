package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zonemint/zonemint/token"
)

// issuer signs whatever it is told to, with one key.
type issuer struct {
	kid, alg string
	private  crypto.Signer
}

// issuers holds one issuer per algorithm, by its name. RSA keys are dear to make,
// so those algorithms share one; each still has its own kid.
type issuers map[string]issuer

var testIssuers = sync.OnceValue(func() issuers {
	shared := must(rsa.GenerateKey(rand.Reader, 2048))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	all := issuers{
		"ES256": {private: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))},
		"ES384": {private: must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))},
		"EdDSA": {private: ed},
	}
	for i, alg := range token.Algorithms() {
		is, ok := all[alg]
		if !ok {
			is.private = shared
		}
		is.alg, is.kid = alg, fmt.Sprintf("zone-%d-%s", i+1, strings.ToLower(alg))
		all[alg] = is
	}
	return all
})

// foreignIssuer is one whose key no verifier knows.
var foreignIssuer = sync.OnceValue(func() issuer {
	return issuer{kid: "zone-9-foreign", alg: "RS256", private: must(rsa.GenerateKey(rand.Reader, 2048))}
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (all issuers) keySet(t testing.TB) *token.KeySet {
	t.Helper()
	var keys []token.Key
	for _, alg := range token.Algorithms() {
		keys = append(keys, all[alg].key(t))
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func (is issuer) key(t testing.TB) token.Key {
	t.Helper()
	k, err := token.NewKey(is.kid, is.alg, is.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// as returns an issuer that signs under another kid.
func (is issuer) as(kid string) issuer {
	is.kid = kid
	return is
}

func (is issuer) header() string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, is.alg, is.kid)
}

// token signs a payload under the usual header.
func (is issuer) token(payload string) string { return is.tokenWith(is.header(), payload) }

// tokenWith signs a payload under any header.
func (is issuer) tokenWith(header, payload string) string {
	return is.tokenOf(b64(header), b64(payload))
}

// tokenOf signs parts that are encoded already, well or badly.
func (is issuer) tokenOf(header, payload string) string {
	return header + "." + payload + "." + b64(string(is.sign(header+"."+payload)))
}

func (is issuer) sign(input string) []byte {
	return must(jwt.GetSigningMethod(is.alg).Sign(input, is.private))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
