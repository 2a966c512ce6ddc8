package gcpkms_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

func TestAdoptRefusesWhatDoesNotFit(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	const p256, hsm = kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256, kmspb.ProtectionLevel_HSM
	good := plant(t, d, signing(p256, hsm))
	disabled, scheduled := plant(t, d, signing(p256, hsm)), plant(t, d, signing(p256, hsm))
	ctx, c := api(t, d)
	if _, err := c.DestroyCryptoKeyVersion(ctx, &kmspb.DestroyCryptoKeyVersionRequest{Name: scheduled}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UpdateCryptoKeyVersion(ctx, &kmspb.UpdateCryptoKeyVersionRequest{
		CryptoKeyVersion: &kmspb.CryptoKeyVersion{Name: disabled, State: kmspb.CryptoKeyVersion_DISABLED},
		UpdateMask:       &fieldmaskpb.FieldMask{Paths: []string{"state"}},
	}); err != nil {
		t.Fatal(err)
	}
	ours, _ := made(t, b, newSpec(signer.ES256))
	key := strings.TrimSuffix(good, "/cryptoKeyVersions/1")
	for name, c := range map[string]struct {
		version string
		want    signer.Code
	}{
		"in software":               {plant(t, d, signing(p256, kmspb.ProtectionLevel_SOFTWARE)), signer.Misconfigured},
		"another algorithm":         {plant(t, d, signing(kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384, hsm)), signer.Misconfigured},
		"another curve":             {plant(t, d, signing(kmspb.CryptoKeyVersion_EC_SIGN_ED25519, hsm)), signer.Misconfigured},
		"not for signing":           {plant(t, d, &kmspb.CryptoKey{Purpose: kmspb.CryptoKey_ENCRYPT_DECRYPT}), signer.Misconfigured},
		"disabled":                  {disabled, signer.Denied},
		"scheduled to be destroyed": {scheduled, signer.NotFound},
		"another of zonemint's":     {string(ours), signer.Misconfigured},
		"another version":           {key + "/cryptoKeyVersions/2", signer.NotFound},
		"no version":                {key, signer.Misconfigured},
		"version 0":                 {key + "/cryptoKeyVersions/0", signer.Misconfigured},
		"a full URL":                {"https://cloudkms.googleapis.com/v1/" + good, signer.Misconfigured},
		"more after it":             {good + "/", signer.Misconfigured},
		"nothing":                   {"", signer.Misconfigured},
	} {
		if ref, err := signer.Adopt(t.Context(), b, spec, c.version); signer.CodeOf(err) != c.want {
			t.Errorf("%s: %q, %v, want %q", name, ref, err, c.want)
		}
	}
	ref, err := signer.Adopt(t.Context(), b, spec, good)
	if err != nil || !strings.HasSuffix(string(ref), " "+good) {
		t.Errorf("adopted as %q, %v", ref, err)
	}
}

// The reference of a key that was taken over opens, and destroys, for the serial that
// took it over and for no other.
func TestAnAdoptedKeyIsBound(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	name := plant(t, d, signing(kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256, kmspb.ProtectionLevel_HSM))
	ref, err := signer.Adopt(t.Context(), b, spec, name)
	if err != nil {
		t.Fatal(err)
	}
	before := d.Calls("")
	refuses := func(what string, spec signer.Spec, ref signer.Ref, want signer.Code) {
		t.Helper()
		if _, err := b.Open(t.Context(), spec, ref); b.Code(err) != want {
			t.Errorf("%s: open: %v, want %q", what, err, want)
		}
		if _, err := b.Attest(t.Context(), spec, ref); b.Code(err) != want {
			t.Errorf("%s: attest: %v, want %q", what, err, want)
		}
		if err := b.Destroy(t.Context(), spec, ref); b.Code(err) != want {
			t.Errorf("%s: destroy: %v, want %q", what, err, want)
		}
	}
	for what, change := range map[string]func(*signer.Spec){
		"another label":     func(s *signer.Spec) { s.Label = signer.NewLabel() },
		"another keyset":    func(s *signer.Spec) { s.Keyset = "zone" },
		"another serial":    func(s *signer.Spec) { s.Serial++ },
		"another algorithm": func(s *signer.Spec) { s.Algorithm = signer.ES384 },
	} {
		other := spec
		change(&other)
		refuses(what, other, ref, signer.NotFound)
	}
	refuses("the bare name", spec, signer.Ref(name), signer.Corrupt)
	refuses("more of it", spec, append([]byte("x "), ref...), signer.NotFound)
	refuses("cut off", spec, ref[:len(ref)-1], signer.Corrupt)
	if n := d.Calls("") - before; n != 0 {
		t.Errorf("the service was asked %d times", n)
	}
	ours, err := signer.Create(t.Context(), b, spec)
	if err != nil {
		t.Fatal(err)
	}
	before = d.Calls("")
	refuses("ours as if adopted", spec, signer.Ref(strings.TrimSuffix(string(ref), name)+string(ours)), signer.Corrupt)
	if n := d.Calls("") - before; n != 0 {
		t.Errorf("the service was asked %d times", n)
	}
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Error(err)
	}
}

// The attestation of an HSM is passed on as the service gave it; software has none.
func TestAttest(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref, _ := made(t, b, spec)
	ctx, c := api(t, d)
	v, err := c.GetCryptoKeyVersion(ctx, &kmspb.GetCryptoKeyVersionRequest{Name: string(ref)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := signer.Attest(t.Context(), b, spec, ref)
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Key, Format, Content string
		GeneratedAt          time.Time `json:"generated_at"`
		Level                string    `json:"protection_level"`
		Cavium               []string  `json:"cavium_certs"`
		Card                 []string  `json:"google_card_certs"`
		Partition            []string  `json:"google_partition_certs"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		t.Fatal(err)
	}
	content, err := base64.StdEncoding.DecodeString(said.Content)
	if err != nil || !bytes.Equal(content, v.GetAttestation().GetContent()) {
		t.Errorf("content %q, %v", said.Content, err)
	}
	if said.Key != string(ref) || said.Format != "CAVIUM_V2_COMPRESSED" || said.Level != "HSM" || !said.GeneratedAt.Equal(v.GetGenerateTime().AsTime()) ||
		len(said.Cavium) != 1 || len(said.Card) != 1 || len(said.Partition) != 1 {
		t.Errorf("it says %s", text)
	}

	o := settings(d)
	o.ProtectionLevel = "software"
	soft := open(t, o)
	spec = newSpec(signer.ES256)
	ref, _ = made(t, soft, spec)
	if text, err := signer.Attest(t.Context(), soft, spec, ref); err != nil || text != nil {
		t.Errorf("in software: %s, %v", text, err)
	}
}

// The setting is the least that is signed with: a key in software is refused where
// hardware was asked for, and the reverse is not.
func TestProtectionLevelIsTheLeast(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	o := settings(d)
	hard := open(t, o)
	o.ProtectionLevel = "software"
	soft := open(t, o)
	if h, s := hard.Traits().Custody, soft.Traits().Custody; h != signer.CustodyHardware || s != signer.CustodyService {
		t.Errorf("custody %s and %s", h, s)
	}
	spec := newSpec(signer.ES256)
	ref, _ := made(t, hard, spec)
	key, err := signer.Open(t.Context(), soft, spec, ref, nil)
	if err == nil {
		err = key.Probe(t.Context())
	}
	if err != nil {
		t.Errorf("a key in hardware, where software would do: %v", err)
	}
	spec = newSpec(signer.ES256)
	ref, key = made(t, soft, spec)
	if _, err := signer.Open(t.Context(), hard, spec, ref, nil); signer.CodeOf(err) != signer.Misconfigured {
		t.Errorf("a key in software, where hardware was asked for: %v", err)
	}
	if key, err = signer.Open(t.Context(), hard, spec, ref, key.Public()); err != nil {
		t.Fatal(err)
	}
	if err := key.Probe(t.Context()); signer.CodeOf(err) != signer.Corrupt {
		t.Errorf("its signature: %v", err)
	}
}
