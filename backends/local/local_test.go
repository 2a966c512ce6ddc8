package local_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/zonemint/zonemint/backends/local"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// instanceKey returns a fresh key in the place of the instance key.
func instanceKey(tb testing.TB) tink.AEAD {
	tb.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	return aesGCM(tb, key)
}

func aesGCM(tb testing.TB, key []byte) tink.AEAD {
	tb.Helper()
	aead, err := subtle.NewAESGCM(key)
	if err != nil {
		tb.Fatal(err)
	}
	return aead
}

func newBackend(tb testing.TB, aead tink.AEAD, opts local.Options) *local.Backend {
	tb.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	b := local.New(aead, opts)
	tb.Cleanup(func() { _ = b.Close() })
	return b
}

func spec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
}

func create(tb testing.TB, b signer.Backend, s signer.Spec) signer.Ref {
	tb.Helper()
	ref, err := signer.Create(tb.Context(), b, s)
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

// tryOpen opens ref and signs with it.
func tryOpen(tb testing.TB, b signer.Backend, s signer.Spec, ref signer.Ref) error {
	tb.Helper()
	key, err := signer.Open(tb.Context(), b, s, ref, nil)
	if err != nil {
		return err
	}
	return key.Probe(tb.Context())
}

func wantCode(tb testing.TB, what string, err error, want signer.Code) {
	tb.Helper()
	if err == nil || signer.CodeOf(err) != want {
		tb.Errorf("%s: got %v, want code %q", what, err, want)
	}
}

func TestConformance(t *testing.T) {
	aead := instanceKey(t)
	for name, opts := range map[string]local.Options{"sealed": {}, "insecure": {Insecure: true}} {
		t.Run(name, func(t *testing.T) {
			signertest.Run(t, signertest.Harness{
				Open: func(tb testing.TB) signer.Backend { return newBackend(tb, aead, opts) },
				// The other sizes and hashes of RSA: TestEveryAlgorithm.
				Algorithms: []signer.Algorithm{signer.ES256, signer.ES384, signer.EdDSA, signer.RS256, signer.PS256},
			})
		})
	}
}

// TestTamper changes each byte of a reference, and cuts it at each length.
func TestTamper(t *testing.T) {
	b := newBackend(t, instanceKey(t), local.Options{})
	s := spec(signer.EdDSA)
	ref := create(t, b, s)
	for i := range ref {
		for _, bit := range []byte{0x01, 0x80} {
			spoiled := bytes.Clone(ref)
			spoiled[i] ^= bit
			wantCode(t, "one bit changed", tryOpen(t, b, s, spoiled), signer.Corrupt)
		}
		wantCode(t, "cut short", tryOpen(t, b, s, ref[:i]), signer.Corrupt)
	}
	wantCode(t, "one byte more", tryOpen(t, b, s, append(bytes.Clone(ref), 0)), signer.Corrupt)
	if err := tryOpen(t, b, s, ref); err != nil {
		t.Errorf("unspoiled: %v", err)
	}
}

// TestBinding tries a reference on every row that differs in one thing, also
// where the texts of two columns only meet at another place.
func TestBinding(t *testing.T) {
	b := newBackend(t, instanceKey(t), local.Options{})
	own := signer.Spec{Keyset: "zone", Serial: 1, Label: "label", Algorithm: signer.RS256}
	ref, _, err := b.Import(t.Context(), own, readPEM(t, "rsa2048-pkcs1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tryOpen(t, b, own, ref); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]signer.Spec{
		"keyset":         {Keyset: "user", Serial: 1, Label: "label", Algorithm: signer.RS256},
		"serial":         {Keyset: "zone", Serial: 2, Label: "label", Algorithm: signer.RS256},
		"label":          {Keyset: "zone", Serial: 1, Label: "lable", Algorithm: signer.RS256},
		"shifted":        {Keyset: "zonel", Serial: 1, Label: "abel", Algorithm: signer.RS256},
		"shifted back":   {Keyset: "zon", Serial: 1, Label: "elabel", Algorithm: signer.RS256},
		"padding scheme": {Keyset: "zone", Serial: 1, Label: "label", Algorithm: signer.PS256},
		"kind of key":    {Keyset: "zone", Serial: 1, Label: "label", Algorithm: signer.ES256},
	} {
		wantCode(t, name, tryOpen(t, b, other, ref), signer.Corrupt)
	}
}

func TestWrongInstanceKey(t *testing.T) {
	s := spec(signer.ES256)
	ref := create(t, newBackend(t, instanceKey(t), local.Options{}), s)
	err := tryOpen(t, newBackend(t, instanceKey(t), local.Options{}), s, ref)
	wantCode(t, "opened with another instance key", err, signer.Corrupt)
	if !strings.Contains(err.Error(), "the instance key does not open this private key") {
		t.Errorf("%v does not say what is wrong", err)
	}
}

// TestInsecure walks what each kind of backend makes of each kind of reference.
func TestInsecure(t *testing.T) {
	aead := instanceKey(t)
	secure := newBackend(t, aead, local.Options{})
	insecure := newBackend(t, aead, local.Options{Insecure: true})
	keyless := newBackend(t, nil, local.Options{})
	both := newBackend(t, nil, local.Options{Insecure: true})

	s := spec(signer.EdDSA)
	sealed, plain := create(t, secure, s), create(t, insecure, s)
	const ok = signer.Code(-1)
	for _, tc := range []struct {
		name    string
		backend *local.Backend
		create  signer.Code
		sealed  signer.Code
		plain   signer.Code
	}{
		{"instance key", secure, ok, ok, signer.Denied},
		{"instance key, insecure", insecure, ok, ok, ok},
		{"no instance key", keyless, signer.Misconfigured, signer.Misconfigured, signer.Denied},
		{"no instance key, insecure", both, ok, signer.Misconfigured, ok},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check := func(what string, err error, want signer.Code) {
				t.Helper()
				if want != ok {
					wantCode(t, what, err, want)
				} else if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, err := signer.Create(t.Context(), tc.backend, spec(signer.EdDSA))
			check("create", err, tc.create)
			check("open sealed", tryOpen(t, tc.backend, s, sealed), tc.sealed)
			check("open plain", tryOpen(t, tc.backend, s, plain), tc.plain)
		})
	}
	wantCode(t, "a sealed key said to be plain", tryOpen(t, insecure, s, append(signer.Ref{plain[0]}, sealed[1:]...)), signer.Corrupt)
	wantCode(t, "a plain key said to be sealed", tryOpen(t, insecure, s, append(signer.Ref{sealed[0]}, plain[1:]...)), signer.Corrupt)
}

func TestInsecureIsLoud(t *testing.T) {
	for _, insecure := range []bool{false, true} {
		var log bytes.Buffer
		b := local.New(instanceKey(t), local.Options{Insecure: insecure, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		create(t, b, spec(signer.EdDSA))
		create(t, b, spec(signer.EdDSA))
		want := 0
		if insecure {
			want = 1
		}
		if got := strings.Count(log.String(), "level=WARN msg=\"INSECURE"); got != want {
			t.Errorf("insecure %v: %d warnings, want %d: %s", insecure, got, want, &log)
		}
	}
}

func TestReseal(t *testing.T) {
	ctx := t.Context()
	before, after := instanceKey(t), instanceKey(t)
	s := spec(signer.ES256)
	old := newBackend(t, before, local.Options{})
	ref := create(t, old, s)
	key, err := signer.Open(ctx, old, s, ref, nil)
	if err != nil {
		t.Fatal(err)
	}

	resealed, err := newBackend(t, rotated{after, before}, local.Options{}).Reseal(ctx, s, ref)
	if err != nil {
		t.Fatal(err)
	}
	again, err := signer.Open(ctx, newBackend(t, after, local.Options{}), s, resealed, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Probe(ctx); err != nil {
		t.Error(err)
	}

	plain := create(t, newBackend(t, nil, local.Options{Insecure: true}), s)
	sealed, err := newBackend(t, after, local.Options{Insecure: true}).Reseal(ctx, s, plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := tryOpen(t, newBackend(t, after, local.Options{}), s, sealed); err != nil {
		t.Errorf("a plain key that was resealed: %v", err)
	}
	if _, err := newBackend(t, after, local.Options{}).Reseal(ctx, s, plain); err == nil {
		t.Error("a plain key was resealed without the setting insecure: whoever plants one has it encrypted for them")
	}
}

// rotated encrypts with the first key and decrypts with either.
type rotated struct {
	tink.AEAD
	old tink.AEAD
}

func (r rotated) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	if plaintext, err := r.AEAD.Decrypt(ciphertext, associatedData); err == nil {
		return plaintext, nil
	}
	return r.old.Decrypt(ciphertext, associatedData)
}

// TestCreateCanceled shows that nobody waits for primes, that those who gave
// up do not keep all processors busy, and that Close leaves nothing behind.
func TestCreateCanceled(t *testing.T) {
	b := newBackend(t, instanceKey(t), local.Options{})
	took := time.Hour
	for range 5 { // where the machine stands still, once more
		start := time.Now()
		for range 4 { // twice as many as are generated at a time
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err := signer.Create(ctx, b, spec(signer.RS384))
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's error", err)
			}
		}
		if took = min(took, time.Since(start)); took < time.Second {
			break
		}
	}
	if took > time.Second {
		t.Errorf("four callers who waited for a millisecond took %v", took)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Create(t.Context(), spec(signer.EdDSA)); b.Code(err) != signer.Closed {
		t.Errorf("after close: %v", err)
	}
}

// TestVector opens a reference of the first released form.
func TestVector(t *testing.T) {
	b := newBackend(t, aesGCM(t, vectorKey()), local.Options{})
	key, err := signer.Open(t.Context(), b, vectorSpec(), vectorRef(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := b.Import(t.Context(), vectorSpec(), readPEM(t, "ed25519-pkcs8.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if !signer.SamePublicKey(key.Public(), public) {
		t.Error("the reference holds another key")
	}
}

func vectorRef(tb testing.TB) signer.Ref {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "sealed-v1.hex"))
	if err != nil {
		tb.Fatal(err)
	}
	ref, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

func vectorKey() []byte {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	return key
}

func vectorSpec() signer.Spec {
	return signer.Spec{Keyset: "zone", Serial: 7, Label: "zonemint-vector", Algorithm: signer.EdDSA}
}

// FuzzOpen feeds references to a backend that would take plain ones too.
func FuzzOpen(f *testing.F) {
	b := newBackend(f, aesGCM(f, vectorKey()), local.Options{Insecure: true})
	secure := newBackend(f, aesGCM(f, vectorKey()), local.Options{})
	s := vectorSpec()
	sealed := vectorRef(f)
	plain, _, err := b.Import(f.Context(), s, readPEM(f, "ed25519-pkcs8.pem"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(sealed))
	f.Add([]byte(plain))
	f.Fuzz(func(t *testing.T, ref []byte) {
		if err := tryOpen(t, b, s, ref); err != nil && signer.CodeOf(err) != signer.Corrupt {
			t.Errorf("%v", err)
		}
		if err := tryOpen(t, secure, s, ref); err == nil && !bytes.Equal(ref, sealed) {
			t.Errorf("%x opens, which nobody has encrypted", ref)
		}
	})
}
