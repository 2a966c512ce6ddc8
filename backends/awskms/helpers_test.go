package awskms_test

import (
	"context"
	"crypto"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/awskms"
	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// window is how long new keys of the double may be invisible in these tests.
const window = 400 * time.Millisecond

func start(tb testing.TB) *awskmsdouble.Server {
	tb.Helper()
	s, err := awskmsdouble.Start(awskmsdouble.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	for name, value := range s.Env() {
		tb.Setenv(name, value)
	}
	return s
}

func options(s *awskmsdouble.Server) awskms.Options {
	return awskms.Options{
		Region: s.Options().Region, Endpoint: s.URL(), MinIdle: new(time.Duration), ConsistencyWindow: window, Logger: slog.New(slog.DiscardHandler),
	}
}

func open(tb testing.TB, o awskms.Options) *awskms.Backend {
	tb.Helper()
	b, err := awskms.New(tb.Context(), o)
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

func newSpec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "dataplane/default", Serial: 3, Label: signer.NewLabel(), Algorithm: alg}
}

func create(tb testing.TB, b signer.Backend, spec signer.Spec) signer.Ref {
	tb.Helper()
	ref, err := signer.Create(tb.Context(), b, spec)
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

func openKey(tb testing.TB, b signer.Backend, spec signer.Spec, ref signer.Ref) *signer.Key {
	tb.Helper()
	key, err := signer.Open(tb.Context(), b, spec, ref, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// handle makes a key and returns the driver's own handle of it, past package signer.
func handle(tb testing.TB, b signer.Backend, alg signer.Algorithm) (signer.Handle, signer.Spec, signer.Ref) {
	tb.Helper()
	spec := newSpec(alg)
	ref := create(tb, b, spec)
	h, err := b.Open(tb.Context(), spec, ref)
	if err != nil {
		tb.Fatal(err)
	}
	return h, spec, ref
}

func sign(ctx context.Context, h signer.Handle, alg signer.Algorithm) ([]byte, error) {
	return h.Sign(ctx, alg, input(alg))
}

// input is something to sign.
func input(alg signer.Algorithm) []byte {
	if alg.Hash() == crypto.Hash(0) {
		return []byte("header.payload")
	}
	return make([]byte, alg.Hash().Size())
}

// arnOf takes the ARN out of a reference.
func arnOf(ref signer.Ref) string { return string(ref)[strings.LastIndexByte(string(ref), ' ')+1:] }

func writeFile(tb testing.TB, text string) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// labels counts the keys of the double by the label in their tags.
func labels(s *awskmsdouble.Server) map[string]int {
	count := map[string]int{}
	for _, k := range s.Keys() {
		count[k.Tags["zonemint:label"]]++
	}
	return count
}
