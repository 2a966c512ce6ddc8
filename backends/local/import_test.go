package local_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/backends/local"
	"github.com/zonemint/zonemint/signer"
)

func pkcs8(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestEveryAlgorithm signs with all that are declared. RSA keys are made once
// for each size.
func TestEveryAlgorithm(t *testing.T) {
	b := newBackend(t, instanceKey(t), local.Options{})
	rsaPEM := map[int][]byte{}
	for _, alg := range b.Traits().Algorithms {
		bits := alg.RSABits()
		if bits != 0 && rsaPEM[bits] == nil {
			key, err := rsa.GenerateKey(rand.Reader, bits)
			if err != nil {
				t.Fatal(err)
			}
			rsaPEM[bits] = pkcs8(t, key)
		}
		t.Run(alg.String(), func(t *testing.T) {
			s := spec(alg)
			var ref signer.Ref
			if bits == 0 {
				ref = create(t, b, s)
			} else {
				var err error
				if ref, _, err = b.Import(t.Context(), s, rsaPEM[bits]); err != nil {
					t.Fatal(err)
				}
			}
			if err := tryOpen(t, b, s, ref); err != nil {
				t.Error(err)
			}
		})
	}
	if got, want := len(b.Traits().Algorithms), len(signer.Algorithms()); got != want {
		t.Errorf("%d algorithms are declared of %d", got, want)
	}
}

// TestCreateSizes makes one RSA key of another size than the usual one.
func TestCreateSizes(t *testing.T) {
	b := newBackend(t, instanceKey(t), local.Options{})
	s := spec(signer.RS384)
	key, err := signer.Open(t.Context(), b, s, create(t, b, s), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := key.Public().(*rsa.PublicKey).N.BitLen(); got != 3072 {
		t.Errorf("the modulus has %d bits", got)
	}
}

func TestImport(t *testing.T) {
	b := newBackend(t, instanceKey(t), local.Options{})
	for file, alg := range map[string]signer.Algorithm{
		"rsa2048-pkcs1.pem":             signer.RS256,
		"rsa2048-pkcs8.pem":             signer.PS256,
		"p256-sec1-with-parameters.pem": signer.ES256,
		"p384-pkcs8.pem":                signer.ES384,
		"ed25519-pkcs8.pem":             signer.EdDSA,
	} {
		t.Run(file, func(t *testing.T) {
			s := spec(alg)
			ref, public, err := b.Import(t.Context(), s, readPEM(t, file))
			if err != nil {
				t.Fatal(err)
			}
			key, err := signer.Open(t.Context(), b, s, ref, public)
			if err != nil {
				t.Fatal(err)
			}
			if err := key.Probe(t.Context()); err != nil {
				t.Error(err)
			}

			s.Algorithm = map[bool]signer.Algorithm{true: signer.RS384, false: signer.ES256}[alg == signer.ES256]
			if _, _, err := b.Import(t.Context(), s, readPEM(t, file)); b.Code(err) != signer.Misconfigured {
				t.Errorf("as a key for %s: %v", s.Algorithm, err)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	b := newBackend(t, instanceKey(t), local.Options{})
	good := string(readPEM(t, "ed25519-pkcs8.pem"))
	for name, tc := range map[string]struct{ text, want string }{
		"1024 bits":            {string(readPEM(t, "refused-rsa1024-pkcs1.pem")), "1024 bits, at least 2048"},
		"encrypted PKCS #8":    {string(readPEM(t, "refused-encrypted-pkcs8.pem")), "encrypted with a passphrase"},
		"encrypted SEC 1":      {string(readPEM(t, "refused-encrypted-sec1.pem")), "encrypted with a passphrase"},
		"X25519":               {string(readPEM(t, "refused-x25519-pkcs8.pem")), "cannot be read"},
		"secp256k1":            {string(readPEM(t, "refused-secp256k1-sec1.pem")), "cannot be read"},
		"a public key":         {string(readPEM(t, "refused-public-key.pem")), "holds a PUBLIC KEY"},
		"two keys":             {string(readPEM(t, "refused-two-keys.pem")), "more in the PEM"},
		"a key and text":       {good + "more", "more in the PEM"},
		"another type of key":  {strings.ReplaceAll(good, "PRIVATE", "EC PRIVATE"), "cannot be read"},
		"a type of no meaning": {strings.ReplaceAll(good, "PRIVATE KEY", "SECRET hunter2"), "block of another type"},
		"empty":                {"", "no private key"},
		"no PEM":               {"zonemint", "no private key"},
		"DER":                  {"\x30\x2e\x02\x01\x00", "no private key"},
		"parameters alone":     {"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n", "no private key"},
	} {
		t.Run(name, func(t *testing.T) {
			ref, _, err := b.Import(t.Context(), spec(signer.EdDSA), []byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if b.Code(err) != signer.Misconfigured || ref != nil {
				t.Errorf("code is %q, reference %x", b.Code(err), ref)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v quotes its input", err)
			}
		})
	}
	if _, _, err := b.Import(t.Context(), signer.Spec{Algorithm: signer.EdDSA}, []byte(good)); b.Code(err) != signer.Misconfigured {
		t.Errorf("for an incomplete spec: %v", err)
	}
}

func readPEM(tb testing.TB, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "pem", name))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}
