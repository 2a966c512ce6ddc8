package integration

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// pemFromJWKS returns the public key with that kid in a JWK set. It goes by
// other people's code, so that ours is not its own witness.
func pemFromJWKS(t *testing.T, set []byte, kid string) []byte {
	t.Helper()
	parsed := decode[jose.JSONWebKeySet](t, string(set))
	keys := parsed.Key(kid)
	if len(keys) != 1 {
		t.Fatalf("the JWK set has %d keys with the kid %q\n%s", len(keys), kid, set)
	}
	der, err := x509.MarshalPKIXPublicKey(keys[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// wantOpenSSL wants openssl to find the signature of an RS256 token good, and
// that of a token changed in one place bad.
func wantOpenSSL(t *testing.T, publicPEM []byte, text string) {
	t.Helper()
	dot := strings.LastIndexByte(text, '.')
	signature, err := base64.RawURLEncoding.DecodeString(text[dot+1:])
	if err != nil {
		t.Fatal(err)
	}
	if o := opensslVerify(t, publicPEM, text[:dot], signature); o.code != 0 || strings.TrimSpace(o.stdout) != "Verified OK" {
		t.Errorf("openssl does not verify the token: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if o := opensslVerify(t, publicPEM, text[:dot]+"A", signature); o.code == 0 {
		t.Error("openssl verifies a changed token, so it shows nothing")
	}
}

func opensslVerify(t *testing.T, publicPEM []byte, input string, signature []byte) output {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return run(t, "openssl", "dgst", "-sha256", "-verify", file("public.pem", publicPEM),
		"-signature", file("signature", signature), file("input", []byte(input)))
}
