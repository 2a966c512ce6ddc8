package vault_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/zonemint/zonemint/backends/vault"
	"github.com/zonemint/zonemint/signer"
)

type batcher interface {
	SignBatch(ctx context.Context, alg signer.Algorithm, ins [][]byte) ([][]byte, []error)
}

func rename(tb testing.TB, from, to string) {
	tb.Helper()
	if err := os.Rename(from, to); err != nil {
		tb.Fatal(err)
	}
}

// hashed is what a backend gets of a message.
func hashed(alg signer.Algorithm, message string) []byte {
	if alg.Hash() == 0 {
		return []byte(message)
	}
	h := alg.Hash().New()
	h.Write([]byte(message))
	return h.Sum(nil)
}

func verifies(public crypto.PublicKey, alg signer.Algorithm, in, sig []byte) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		if opts, ok := alg.Opts().(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(public, alg.Hash(), in, sig, opts) == nil
		}
		return rsa.VerifyPKCS1v15(public, alg.Hash(), in, sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, in, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(public, in, sig)
	default:
		return false
	}
}

func open(tb testing.TB, o vault.Options) *vault.Backend {
	tb.Helper()
	if o.Logger == nil {
		o.Logger = quiet()
	}
	b, err := vault.New(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func writeFile(tb testing.TB, text string) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}
