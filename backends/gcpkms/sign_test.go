package gcpkms_test

import (
	"context"
	"crypto"
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// A signature is one request, of every key, and nothing else is asked meanwhile.
func TestASignatureIsOneRequest(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b := open(t, settings(d))
	for _, alg := range []signer.Algorithm{signer.ES256, signer.EdDSA} {
		_, key := made(t, b, newSpec(alg))
		before, signs := d.Calls(""), d.Calls("AsymmetricSign")
		const n = 200
		for i := range n {
			if _, err := key.SignJWS(t.Context(), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		if all, signs := d.Calls("")-before, d.Calls("AsymmetricSign")-signs; all != n || signs != n {
			t.Errorf("%s: %d signatures took %d requests, %d of them to sign", alg, n, all, signs)
		}
	}
}

func sent[T proto.Message](f func(T)) func(proto.Message) {
	return func(m proto.Message) {
		if t, ok := m.(T); ok {
			f(t)
		}
	}
}

// Whatever is changed on the way there or back is an incident, is not tried again,
// and yields no signature, though the changed one may be a right one.
func TestAChangedSignatureIsAnIncident(t *testing.T) {
	asked, answer := sent[*kmspb.AsymmetricSignRequest], sent[*kmspb.AsymmetricSignResponse]
	for name, c := range map[string]struct {
		alg   signer.Algorithm
		fault gcpkmsdouble.Fault
		says  string
	}{
		"the digest": {signer.ES256, gcpkmsdouble.Fault{Asked: asked(func(r *kmspb.AsymmetricSignRequest) { r.Digest.GetSha256()[0] ^= 1 })},
			"The checksum in field digest_crc32c did not match"},
		"the data": {signer.EdDSA, gcpkmsdouble.Fault{Asked: asked(func(r *kmspb.AsymmetricSignRequest) { r.Data[0] ^= 1 })},
			"The checksum in field data_crc32c did not match"},
		"the digest's checksum": {signer.ES256, gcpkmsdouble.Fault{Asked: asked(func(r *kmspb.AsymmetricSignRequest) { r.DigestCrc32C.Value++ })},
			"The checksum in field digest_crc32c did not match"},
		"the digest's checksum is lost": {signer.ES256, gcpkmsdouble.Fault{Asked: asked(func(r *kmspb.AsymmetricSignRequest) { r.DigestCrc32C = nil })},
			"did not see the checksum"},
		"the data's checksum is lost": {signer.EdDSA, gcpkmsdouble.Fault{Asked: asked(func(r *kmspb.AsymmetricSignRequest) { r.DataCrc32C = nil })},
			"did not see the checksum"},
		"the signature": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.Signature[9] ^= 1 })},
			"does not match its checksum"},
		"the signature is lost": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.Signature = nil })},
			"does not match its checksum"},
		"the signature's checksum": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.SignatureCrc32C = wrapperspb.Int64(7) })},
			"does not match its checksum"},
		"the signature's checksum is lost": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.SignatureCrc32C = nil })},
			"does not match its checksum"},
		"another version has signed": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.Name += "2" })},
			"another key has signed"},
		"nobody says who has signed": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.Name = "" })},
			"another key has signed"},
		"it was not verified": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.VerifiedDigestCrc32C = false })},
			"did not see the checksum"},
		"the other was verified": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.VerifiedDigestCrc32C, r.VerifiedDataCrc32C = false, true })},
			"did not see the checksum"},
		"software has signed": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.ProtectionLevel = kmspb.ProtectionLevel_SOFTWARE })},
			"the protection level is SOFTWARE"},
		"an external manager has signed": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) { r.ProtectionLevel = kmspb.ProtectionLevel_EXTERNAL })},
			"the protection level is EXTERNAL"},
		"nobody says where it was signed": {signer.ES256, gcpkmsdouble.Fault{Answer: answer(func(r *kmspb.AsymmetricSignResponse) {
			r.ProtectionLevel = kmspb.ProtectionLevel_PROTECTION_LEVEL_UNSPECIFIED
		})}, "the protection level is PROTECTION_LEVEL_UNSPECIFIED"},
	} {
		t.Run(name, func(t *testing.T) {
			d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
			spec := newSpec(c.alg)
			b := open(t, settings(d))
			ref, key := made(t, b, spec)
			h, err := b.Open(t.Context(), spec, ref)
			if err != nil {
				t.Fatal(err)
			}
			before := d.Calls("AsymmetricSign")
			defer d.Inject(c.fault)()
			sig, err := h.Sign(t.Context(), c.alg, make([]byte, 32))
			if b.Code(err) != signer.Corrupt || !strings.Contains(err.Error(), c.says) || sig != nil {
				t.Errorf("%v: code %q, want corrupt and %q; %d bytes of signature", err, b.Code(err), c.says, len(sig))
			}
			if n := d.Calls("AsymmetricSign") - before; n != 1 {
				t.Errorf("it was asked for %d times, want 1", n)
			}
			if _, err := key.SignJWS(t.Context(), []byte("a.b")); signer.CodeOf(err) != signer.Corrupt {
				t.Errorf("through package signer: %v", err)
			}
		})
	}
}

// The same holds for public keys, which decide what is believed later.
func TestAChangedPublicKeyIsAnIncident(t *testing.T) {
	answer := sent[*kmspb.PublicKey]
	for name, c := range map[string]struct {
		change func(*kmspb.PublicKey)
		want   signer.Code
	}{
		"a letter of it":      {func(p *kmspb.PublicKey) { p.Pem = strings.Replace(p.GetPem(), "M", "N", 1) }, signer.Corrupt},
		"its checksum":        {func(p *kmspb.PublicKey) { p.PemCrc32C.Value++ }, signer.Corrupt},
		"its checksum lost":   {func(p *kmspb.PublicKey) { p.PemCrc32C = nil }, signer.Corrupt},
		"another version":     {func(p *kmspb.PublicKey) { p.Name += "0" }, signer.Corrupt},
		"no version":          {func(p *kmspb.PublicKey) { p.Name = "" }, signer.Corrupt},
		"another algorithm":   {func(p *kmspb.PublicKey) { p.Algorithm = kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384 }, signer.Misconfigured},
		"software":            {func(p *kmspb.PublicKey) { p.ProtectionLevel = kmspb.ProtectionLevel_SOFTWARE }, signer.Misconfigured},
		"no PEM, well summed": {func(p *kmspb.PublicKey) { p.Pem, p.PemCrc32C = "", wrapperspb.Int64(0) }, signer.Corrupt},
	} {
		t.Run(name, func(t *testing.T) {
			d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
			spec, b := newSpec(signer.ES256), open(t, settings(d))
			ref, _ := made(t, b, spec)
			defer d.Inject(gcpkmsdouble.Fault{Answer: answer(c.change)})()
			before := d.Calls("GetPublicKey")
			if _, err := signer.Open(t.Context(), b, spec, ref, nil); signer.CodeOf(err) != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n := d.Calls("GetPublicKey") - before; n != 1 {
				t.Errorf("it was asked for %d times, want 1", n)
			}
		})
	}
}

// Over quota is said at once, for one request, and bears the code that has others
// come back later.
func TestOverQuotaIsSaidAtOnce(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	_, key := made(t, open(t, settings(d)), newSpec(signer.ES256))
	d.Limit("AsymmetricSign", 1e-6)
	before := d.Calls("AsymmetricSign")
	var codes []signer.Code
	for range 3 {
		_, err := key.SignJWS(t.Context(), []byte("a.b"))
		codes = append(codes, signer.CodeOf(err))
	}
	if codes[0] != signer.Unknown || codes[1] != signer.Throttled || codes[2] != signer.Throttled {
		t.Errorf("codes %q, want one signature and then throttled", codes)
	}
	if n := d.Calls("AsymmetricSign") - before; n != 3 {
		t.Errorf("%d requests for 3 signatures", n)
	}
}

// Restarts of the service and of what is on the way cost the signatures that were
// under way, and no more.
func TestSignsAgainAfterConnectionsWereCut(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	_, key := made(t, open(t, settings(d)), newSpec(signer.ES256))
	heal := d.Inject(gcpkmsdouble.Fault{Op: "AsymmetricSign", Cut: true, Apply: true})
	before := d.Calls("AsymmetricSign")
	_, err := key.SignJWS(t.Context(), []byte("a.b"))
	if signer.CodeOf(err) != signer.Unavailable || d.Calls("AsymmetricSign") != before+1 {
		t.Errorf("cut off: %v, %d requests", err, d.Calls("AsymmetricSign")-before)
	}
	heal()
	for _, cut := range []bool{false, true} {
		if cut {
			d.CutConnections()
		}
		await(t, func() bool {
			_, err = key.SignJWS(t.Context(), []byte("a.b"))
			return signer.CodeOf(err) != signer.Unavailable
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// The digest that is sent has the kind that the key is for.
func TestEveryHashSigns(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b := open(t, settings(d))
	rs512, err := signer.Parse("RS512-4096")
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[crypto.Hash]bool{}
	for _, alg := range []signer.Algorithm{signer.EdDSA, signer.ES256, signer.ES384, rs512, signer.PS256} {
		_, key := made(t, b, newSpec(alg))
		if err := key.Probe(t.Context()); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		hashes[alg.Hash()] = true
	}
	for _, alg := range b.Traits().Algorithms {
		if !hashes[alg.Hash()] {
			t.Errorf("%s hashes with %s, of which nothing was signed", alg, alg.Hash())
		}
	}
}

func TestACallEndsWithItsTimeout(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	o := settings(d)
	spec := newSpec(signer.ES256)
	ref, _ := made(t, open(t, o), spec)
	o.RequestTimeout = 1
	b := open(t, o)
	h, err := b.Open(t.Context(), spec, ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sign(context.Background(), spec.Algorithm, make([]byte, 32)); b.Code(err) != signer.Unavailable {
		t.Errorf("%v: %q", err, b.Code(err))
	}
}
