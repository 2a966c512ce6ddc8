package token_test

import (
	"testing"

	"github.com/zonemint/zonemint/token"
)

func BenchmarkVerify(b *testing.B) {
	v := zoneVerifier(b, testIssuers().keySet(b), token.Options{})
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		raw := testIssuers()[alg].token(payload())
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefuse is what a stranger can make a verifier do for each token.
func BenchmarkRefuse(b *testing.B) {
	v := zoneVerifier(b, testIssuers().keySet(b), token.Options{})
	raw := foreignIssuer().token(payload())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), raw); err == nil {
			b.Fatal("accepted")
		}
	}
}

func BenchmarkAppendSigningInput(b *testing.B) {
	c := token.ZoneClaims{Zone: "west", Scope: token.DefaultScopes(), Registered: registered()}
	header := token.EncodeHeader("RS256", "zone-3-9f86d081")
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = token.AppendSigningInput(buf[:0], header, c)
	}
}

func BenchmarkParseKeySet(b *testing.B) {
	data := []byte(setBody(b, token.Algorithms()...))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.ParseKeySet(data); err != nil {
			b.Fatal(err)
		}
	}
}
