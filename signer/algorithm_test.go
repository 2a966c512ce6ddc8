package signer_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"slices"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

func TestParseAlgorithm(t *testing.T) {
	for _, alg := range signer.Algorithms() {
		if got, err := signer.Parse(alg.String()); err != nil || got != alg {
			t.Errorf("Parse(%q) = %v, %v", alg, got, err)
		}
	}
	for text, want := range map[string]signer.Algorithm{
		"RS256": signer.RS256, "RS384": signer.RS384, "RS512": signer.RS512, "PS256": signer.PS256,
		"RS256-2048": signer.RS256, "RS256-3072": signer.RS256With3072, "RS256-4096": signer.RS256With4096,
		"RS384-3072": signer.RS384, "ES256": signer.ES256, "ES384": signer.ES384, "EdDSA": signer.EdDSA,
	} {
		if got, err := signer.Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "none", "HS256", "rs256", "RS256-", "RS256-1024", "RS256-02048", "RS256-2048 ", "ES256-256", "EdDSA-", "ES512", "PS384",
	} {
		if got, err := signer.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", text, got)
		}
	}
	if got := (signer.Algorithm{}).String(); got != "none" {
		t.Errorf("the zero Algorithm is %q", got)
	}
}

// TestAlgorithms checks that the list is whole and that everything about its
// members can be asked for.
func TestAlgorithms(t *testing.T) {
	all := signer.Algorithms()
	for _, alg := range []signer.Algorithm{
		signer.RS256, signer.RS256With3072, signer.RS256With4096, signer.RS384, signer.RS512,
		signer.PS256, signer.ES256, signer.ES384, signer.EdDSA,
	} {
		if !slices.Contains(all, alg) {
			t.Errorf("%s is missing", alg)
		}
	}
	for _, alg := range all {
		if !slices.Contains(signer.Names(), alg.JWS()) {
			t.Errorf("%s has no name", alg)
		}
		if alg.Opts().HashFunc() != alg.Hash() {
			t.Errorf("%s: options ask for %v, hash is %v", alg, alg.Opts().HashFunc(), alg.Hash())
		}
		if alg.RSABits() != 0 && alg.RSABits() < signer.MinRSABits {
			t.Errorf("%s is too short", alg)
		}
		if alg.RSABits() != 0 && alg.Curve() != nil {
			t.Errorf("%s has a modulus and a curve", alg)
		}
	}
}

// rsaPublic returns a number of the right length in place of a modulus, which
// is all that fitting looks at.
func rsaPublic(bits int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
}

func TestFits(t *testing.T) {
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.PublicKey{
		"RSA-2048": rsaPublic(2048), "RSA-3072": rsaPublic(3072), "RSA-4096": rsaPublic(4096),
		"RSA-1024": rsaPublic(1024), "RSA-2047": rsaPublic(2047),
		"P-256":   &ecdsa.PublicKey{Curve: elliptic.P256()},
		"P-384":   &ecdsa.PublicKey{Curve: elliptic.P384()},
		"P-521":   &ecdsa.PublicKey{Curve: elliptic.P521()},
		"Ed25519": ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)),
		"X25519":  x25519.PublicKey(),
		"none":    nil,
	}
	fitting := map[string]string{"ES256": "P-256", "ES384": "P-384", "EdDSA": "Ed25519"}
	for _, alg := range append(signer.Algorithms(), signer.Algorithm{}) {
		want := fitting[alg.JWS()]
		switch alg.RSABits() {
		case 2048:
			want = "RSA-2048"
		case 3072:
			want = "RSA-3072"
		case 4096:
			want = "RSA-4096"
		}
		for name, key := range keys {
			if err := alg.Fits(key); (err == nil) != (name == want) {
				t.Errorf("%s with a key of %s: %v", alg, name, err)
			}
		}
	}
	for name, want := range map[string]string{
		"RSA-2048": "RS256-2048", "RSA-3072": "RS256-3072", "RSA-4096": "RS256-4096",
		"P-256": "ES256", "P-384": "ES384", "Ed25519": "EdDSA",
		"RSA-1024": "none", "P-521": "none", "X25519": "none",
	} {
		if got, err := signer.AlgorithmFor(keys[name]); got.String() != want || (err == nil) != (want != "none") {
			t.Errorf("AlgorithmFor(%s) = %v, %v, want %s", name, got, err, want)
		}
	}
}
