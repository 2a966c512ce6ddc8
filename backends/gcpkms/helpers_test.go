package gcpkms_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// settings are those of a backend at a double in plain text.
func settings(d *gcpkmsdouble.Server) gcpkms.Options {
	return gcpkms.Options{KeyRing: gcpkmsdouble.KeyRing, InsecureEndpoint: d.Addr(), Logger: quiet()}
}

func open(tb testing.TB, o gcpkms.Options) *gcpkms.Backend {
	tb.Helper()
	b, err := gcpkms.New(tb.Context(), o)
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

func writeFile(tb testing.TB, text []byte) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// move puts a file somewhere else.
func move(tb testing.TB, from, to string) {
	tb.Helper()
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func newSpec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "dataplane/default", Serial: 3, Label: signer.NewLabel(), Algorithm: alg}
}

// made creates a key and opens it.
func made(tb testing.TB, b signer.Backend, spec signer.Spec) (signer.Ref, *signer.Key) {
	tb.Helper()
	ref, err := signer.Create(tb.Context(), b, spec)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := signer.Open(tb.Context(), b, spec, ref, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return ref, key
}

// await returns once something holds.
func await(tb testing.TB, holds func() bool) {
	tb.Helper()
	for !holds() {
		if err := tb.Context().Err(); err != nil {
			tb.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// clock is one that stands still until it is told to go on.
type clock struct{ past atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(1_800_000_000, c.past.Load()) }
func (c *clock) pass(d time.Duration) { c.past.Add(int64(d)) }

// abandoned begins to make a key, leaves while it is pending, and returns its reference.
func abandoned(tb testing.TB, d *gcpkmsdouble.Server, b signer.Backend, spec signer.Spec) signer.Ref {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	defer cancel()
	before, done := d.Calls("ListCryptoKeyVersions"), make(chan error, 1)
	go func() {
		_, err := signer.Create(ctx, b, spec)
		done <- err
	}()
	await(tb, func() bool { return d.Calls("ListCryptoKeyVersions") > before })
	cancel()
	if err := <-done; signer.CodeOf(err) != signer.Canceled {
		tb.Fatalf("%v, want canceled", err)
	}
	return signer.Ref(labelled(d, spec)[0].Versions[0].Name)
}

// labelled returns the keys of the double whose label is spec's.
func labelled(d *gcpkmsdouble.Server, spec signer.Spec) (some []gcpkmsdouble.Key) {
	return slices.DeleteFunc(d.Keys(), func(k gcpkmsdouble.Key) bool { return k.Labels["zonemint-label"] != spec.Label })
}

// api speaks to a double in plain text, past the driver.
func api(tb testing.TB, d *gcpkmsdouble.Server) (context.Context, kmspb.KeyManagementServiceClient) {
	tb.Helper()
	conn, err := grpc.NewClient(d.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	ctx := metadata.AppendToOutgoingContext(tb.Context(), "x-goog-request-params",
		"parent="+gcpkmsdouble.KeyRing+"&name="+gcpkmsdouble.KeyRing+"&crypto_key_version.name="+gcpkmsdouble.KeyRing)
	return ctx, kmspb.NewKeyManagementServiceClient(conn)
}

// plant makes a key that is not zonemint's and returns the name of its version.
func plant(tb testing.TB, d *gcpkmsdouble.Server, want *kmspb.CryptoKey) string {
	tb.Helper()
	name, err := d.Plant(gcpkmsdouble.KeyRing, "of-others-"+signer.NewLabel(), want)
	if err != nil {
		tb.Fatal(err)
	}
	return name
}

// signing is a key for a signature algorithm.
func signing(alg kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm, level kmspb.ProtectionLevel) *kmspb.CryptoKey {
	return &kmspb.CryptoKey{
		Purpose:         kmspb.CryptoKey_ASYMMETRIC_SIGN,
		VersionTemplate: &kmspb.CryptoKeyVersionTemplate{Algorithm: alg, ProtectionLevel: level},
	}
}
