package signer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

// BenchmarkSignJWS shows what a signature costs beside the bare private key.
func BenchmarkSignJWS(b *testing.B) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	input := []byte(strings.Repeat("x", 400)) // as long as a zone token's
	for alg, private := range map[signer.Algorithm]crypto.Signer{signer.RS256: rsaKey, signer.ES256: ecKey} {
		b.Run(alg.JWS()+"/raw", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				digest := sha256.Sum256(input)
				if _, err := private.Sign(rand.Reader, digest[:], alg.Opts()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg.JWS()+"/key", func(b *testing.B) {
			key := open(b, inProcess{key: private}, spec(alg), signer.Ref("any"))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.SignJWS(b.Context(), input); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
