package signer_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// inProcess is the least a backend can be: one key in memory.
type inProcess struct {
	signer.Backend // what is not replaced below is not called
	key            crypto.Signer
}

func (inProcess) Traits() signer.Traits {
	return signer.Traits{Algorithms: signer.Algorithms(), Stateless: true}
}
func (inProcess) Code(error) signer.Code { return signer.Unknown }
func (b inProcess) Open(context.Context, signer.Spec, signer.Ref) (signer.Handle, error) {
	return b, nil
}
func (b inProcess) Public(context.Context) (crypto.PublicKey, error) { return b.key.Public(), nil }
func (b inProcess) Sign(_ context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	return b.key.Sign(rand.Reader, in, alg.Opts())
}

func spec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
}

// keys has one key for each size, made once for the whole test.
func keys(tb testing.TB) func(signer.Algorithm) *signer.Key {
	fake := signertest.NewFake(tb, signertest.FakeOptions{Algorithms: signer.Algorithms()})
	rsaKeys := map[int]*rsa.PrivateKey{}
	return func(alg signer.Algorithm) *signer.Key {
		tb.Helper()
		if bits := alg.RSABits(); bits != 0 {
			if rsaKeys[bits] == nil {
				key, err := rsa.GenerateKey(rand.Reader, bits)
				if err != nil {
					tb.Fatal(err)
				}
				rsaKeys[bits] = key
			}
			return open(tb, inProcess{key: rsaKeys[bits]}, spec(alg), signer.Ref("any"))
		}
		s := spec(alg)
		ref, err := signer.Create(tb.Context(), fake, s)
		if err != nil {
			tb.Fatal(err)
		}
		return open(tb, fake, s, ref)
	}
}

func open(tb testing.TB, b signer.Backend, s signer.Spec, ref signer.Ref) *signer.Key {
	tb.Helper()
	key, err := signer.Open(tb.Context(), b, s, ref, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func TestSignJWS(t *testing.T) {
	keyFor := keys(t)
	b64 := base64.RawURLEncoding.EncodeToString
	for _, alg := range signer.Algorithms() {
		if testing.Short() && alg.RSABits() > 3072 {
			continue
		}
		t.Run(alg.String(), func(t *testing.T) {
			key := keyFor(alg)
			input := b64(fmt.Appendf(nil, `{"alg":%q}`, alg.JWS())) + "." + b64([]byte(`{"sub":"zone-1"}`))
			sig, err := key.SignJWS(t.Context(), []byte(input))
			if err != nil {
				t.Fatal(err)
			}
			if c := alg.Curve(); c != nil && len(sig) != 2*((c.Params().BitSize+7)/8) {
				t.Errorf("signature has %d bytes", len(sig))
			}
			verify := func(token string) error {
				_, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return key.Public(), nil },
					jwt.WithValidMethods([]string{alg.JWS()}))
				return err
			}
			if err := verify(input + "." + b64(sig)); err != nil {
				t.Error(err)
			}
			sig[len(sig)/2] ^= 1
			if err := verify(input + "." + b64(sig)); err == nil {
				t.Error("a spoiled signature verifies")
			}
		})
	}
}

func TestKeyIsCryptoSigner(t *testing.T) {
	keyFor := keys(t)
	for alg, want := range map[signer.Algorithm]x509.SignatureAlgorithm{
		signer.RS256: x509.SHA256WithRSA,
		signer.PS256: x509.SHA256WithRSAPSS,
		signer.ES256: x509.ECDSAWithSHA256,
		signer.ES384: x509.ECDSAWithSHA384,
		signer.EdDSA: x509.PureEd25519,
	} {
		t.Run(alg.String(), func(t *testing.T) {
			key := keyFor(alg)
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "zone"},
				NotAfter: time.Now().Add(time.Hour), SignatureAlgorithm: want,
			}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := cert.CheckSignature(want, cert.RawTBSCertificate, cert.Signature); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSignRefusesOptions(t *testing.T) {
	keyFor := keys(t)
	rs, ps, ed := keyFor(signer.RS256), keyFor(signer.PS256), keyFor(signer.EdDSA)
	digest := sha256.Sum256(nil)
	for _, tc := range []struct {
		name string
		key  *signer.Key
		opts crypto.SignerOpts
		ok   bool
	}{
		{"none", rs, nil, false},
		{"another hash", rs, crypto.SHA384, false},
		{"its hash", rs, crypto.SHA256, true},
		{"PSS of a PKCS #1 key", rs, signer.PS256.Opts(), false},
		{"PKCS #1 of a PSS key", ps, crypto.SHA256, false},
		{"salt as long as can be", ps, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256}, false},
		{"salt of 20 bytes", ps, &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}, false},
		{"salt of 32 bytes", ps, &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}, true},
		{"salt as long as the hash", ps, signer.PS256.Opts(), true},
		{"Ed25519ph", ed, crypto.SHA512, false},
		{"Ed25519ctx", ed, &ed25519.Options{Context: "zone"}, false},
		{"Ed25519", ed, crypto.Hash(0), true},
		{"Ed25519 in full", ed, &ed25519.Options{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := tc.key.Sign(nil, digest[:], tc.opts)
			if tc.ok != (err == nil) {
				t.Errorf("got %v, want success %v", err, tc.ok)
			}
			if !tc.ok && signer.CodeOf(err) != signer.Unsupported {
				t.Errorf("code is %q", signer.CodeOf(err))
			}
		})
	}
}

func TestSignChecksLength(t *testing.T) {
	fake := signertest.NewFake(t, signertest.FakeOptions{Algorithms: []signer.Algorithm{signer.ES384}})
	s := spec(signer.ES384)
	ref, err := signer.Create(t.Context(), fake, s)
	if err != nil {
		t.Fatal(err)
	}
	key := open(t, fake, s, ref)
	for _, n := range []int{0, 32, 47, 49, 64} {
		if _, err := key.SignContext(t.Context(), make([]byte, n), crypto.SHA384); signer.CodeOf(err) != signer.Misconfigured {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if got := fake.Calls(signertest.OpSign); got != 0 {
		t.Errorf("%d calls reached the backend", got)
	}
}

// TestOpenWithPublic shows that knowing the public key saves the call for it,
// and what happens if it is the wrong one.
func TestOpenWithPublic(t *testing.T) {
	ctx := t.Context()
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	s, other := spec(signer.ES256), spec(signer.ES256)
	ref, err := signer.Create(ctx, fake, s)
	if err != nil {
		t.Fatal(err)
	}
	otherRef, err := signer.Create(ctx, fake, other)
	if err != nil {
		t.Fatal(err)
	}
	public, wrong := open(t, fake, s, ref).Public(), open(t, fake, other, otherRef).Public()
	before := fake.Calls(signertest.OpPublic)

	key, err := signer.Open(ctx, fake, s, ref, public)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Probe(ctx); err != nil {
		t.Error(err)
	}
	if got := fake.Calls(signertest.OpPublic); got != before {
		t.Errorf("%d calls for the public key", got-before)
	}

	key, err = signer.Open(ctx, fake, s, ref, wrong)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.SignJWS(ctx, []byte("a.b")); signer.CodeOf(err) != signer.Corrupt {
		t.Errorf("a signature by another key: %v", err)
	}
	if _, err := signer.Open(ctx, fake, s, ref, rsaPublic(2048)); signer.CodeOf(err) != signer.Misconfigured {
		t.Errorf("a public key of another kind: %v", err)
	}
}

func TestErrorKeepsCause(t *testing.T) {
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	cause := errors.New("the HSM is on fire")
	fake.Inject(signertest.Fault{Op: signertest.OpFind, Err: fmt.Errorf("slot 3: %w", cause)})
	_, err := signer.Find(t.Context(), fake, spec(signer.ES256))
	if !errors.Is(err, cause) {
		t.Errorf("%v does not wrap its cause", err)
	}
	if got, want := err.Error(), "find: unknown: slot 3: the HSM is on fire"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestErrorOfEndedContext: however an SDK words it, an ended context is found
// with errors.Is, and what the backend itself knows is not lost over it.
func TestErrorOfEndedContext(t *testing.T) {
	for _, tc := range []struct {
		name  string
		end   error
		fails error
		want  signer.Code
	}{
		{"cancelled, as is", context.Canceled, context.Canceled, signer.Canceled},
		{"cancelled, in other words", context.Canceled, errors.New("rpc error: code = Canceled"), signer.Canceled},
		{"cancelled while unavailable", context.Canceled, signertest.Fail(signer.Unavailable), signer.Canceled},
		{"cancelled while denied", context.Canceled, signertest.Fail(signer.Denied), signer.Denied},
		{"out of time, in other words", context.DeadlineExceeded, errors.New("i/o timeout"), signer.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// In a bubble no time passes before the backend is asked.
			synctest.Test(t, func(t *testing.T) {
				fake := signertest.NewFake(t, signertest.FakeOptions{})
				ctx, cancel := context.WithCancel(t.Context())
				if errors.Is(tc.end, context.DeadlineExceeded) {
					ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
				}
				defer cancel()
				b := ending{fake, func() {
					if errors.Is(tc.end, context.Canceled) {
						cancel()
					}
					<-ctx.Done()
				}, tc.fails}
				_, err := signer.Find(ctx, b, spec(signer.ES256))
				if !errors.Is(err, tc.end) || !errors.Is(err, tc.fails) {
					t.Errorf("%v wraps not both causes", err)
				}
				if got := signer.CodeOf(err); got != tc.want {
					t.Errorf("%v: code is %q, want %q", err, got, tc.want)
				}
			})
		})
	}
}

// ending is a backend under whose Find the context ends.
type ending struct {
	*signertest.Fake
	end   func()
	fails error
}

func (e ending) Find(context.Context, signer.Spec) ([]signer.Ref, error) {
	e.end()
	return nil, e.fails
}

func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	for _, code := range signer.Codes() {
		if text := code.String(); text == "" || seen[text] {
			t.Errorf("code %d has the text %q", int(code), text)
		} else {
			seen[text] = true
		}
	}
	if got := signer.Code(99).String(); got != "code 99" {
		t.Errorf("an unknown code is %q", got)
	}
	if got := signer.CodeOf(errors.New("not ours")); got != signer.Unknown {
		t.Errorf("an error of others has code %q", got)
	}
}
