package awskms

import (
	"testing"

	"github.com/zonemint/zonemint/signer"
)

const arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

func TestDescriptions(t *testing.T) {
	for _, alg := range signer.Algorithms() {
		spec := signer.Spec{Keyset: "dataplane/default", Serial: 12, Label: signer.NewLabel(), Algorithm: alg}
		if got, ok := parseDescription(describe(spec)); !ok || got != spec {
			t.Errorf("%q is read as %+v", describe(spec), got)
		}
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string][2]string{
		"RS256-2048": {"RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256"}, "RS256-4096": {"RSA_4096", "RSASSA_PKCS1_V1_5_SHA_256"},
		"RS384-3072": {"RSA_3072", "RSASSA_PKCS1_V1_5_SHA_384"}, "RS512-4096": {"RSA_4096", "RSASSA_PKCS1_V1_5_SHA_512"},
		"PS256-3072": {"RSA_3072", "RSASSA_PSS_SHA_256"}, "ES256": {"ECC_NIST_P256", "ECDSA_SHA_256"},
		"ES384": {"ECC_NIST_P384", "ECDSA_SHA_384"}, "EdDSA": {"ECC_NIST_EDWARDS25519", "ED25519_SHA_512"},
	} {
		alg, err := signer.Parse(text)
		if err != nil || string(keySpec(alg)) != want[0] || string(signingAlgorithm(alg)) != want[1] {
			t.Errorf("%s is %s and %s, %v", text, keySpec(alg), signingAlgorithm(alg), err)
		}
	}
}

// What is read as a description or a reference is one that was written.
func FuzzRef(f *testing.F) {
	spec := signer.Spec{Keyset: "zone", Serial: 1, Label: "zonemint-abcdefghijklmnopqrstuvwxyz", Algorithm: signer.ES256}
	f.Add(describe(spec), string(newRef(spec, arn)))
	f.Add("zonemint-abcdefghijklmnopqrstuvwxyz: serial 01 of keyset zone, ES256", "a b 1 c "+arn)
	f.Add("x: serial 99999999999999999999 of keyset zone, ES256", string(newRef(spec, arn))+"\n")
	b := &Backend{region: "eu-central-1"}
	f.Fuzz(func(t *testing.T, description, ref string) {
		if got, ok := parseDescription(description); ok && describe(got) != description {
			t.Errorf("%q is read as %+v", description, got)
		}
		if got, err := b.arnFor(spec, signer.Ref(ref)); err == nil && string(newRef(spec, got)) != ref {
			t.Errorf("%q is read as %q", ref, got)
		}
	})
}
