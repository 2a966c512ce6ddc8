package gcpkms_test

import (
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// nameOf is the service's name of an algorithm that the suite adopts keys for.
func nameOf(alg signer.Algorithm) kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm {
	return map[signer.Algorithm]kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm{
		signer.RS256: kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_2048_SHA256, signer.ES256: kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256,
		signer.ES384: kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384, signer.EdDSA: kmspb.CryptoKeyVersion_EC_SIGN_ED25519,
	}[alg]
}

func harness(d *gcpkmsdouble.Server, o gcpkms.Options) signertest.Harness {
	return signertest.Harness{
		Open:       func(tb testing.TB) signer.Backend { return open(tb, o) },
		UnknownRef: signer.Ref(gcpkmsdouble.KeyRing + "/cryptoKeys/" + signer.NewLabel() + "-0123456789abcdef/cryptoKeyVersions/1"),
		BreakKey: func(tb testing.TB, ref signer.Ref) {
			if err := d.SwapKey(string(ref)); err != nil {
				tb.Fatal(err)
			}
		},
		PlantForeign: func(tb testing.TB) signer.Ref {
			plant(tb, d, &kmspb.CryptoKey{Purpose: kmspb.CryptoKey_ENCRYPT_DECRYPT})
			return signer.Ref(plant(tb, d, signing(kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256, kmspb.ProtectionLevel_HSM)))
		},
		PlantNamed: func(tb testing.TB, alg signer.Algorithm) string {
			return plant(tb, d, signing(nameOf(alg), kmspb.ProtectionLevel_HSM))
		},
		UnknownName: gcpkmsdouble.KeyRing + "/cryptoKeys/nobodys/cryptoKeyVersions/1",
		Stall:       func(testing.TB) func() { return d.Stall() },
	}
}

// In plain text, as an emulator has it, with keys that are seen late and are pending
// for a while.
func TestConformance(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Generation: 80 * time.Millisecond, Visibility: 150 * time.Millisecond, MaxPage: 2})
	h := harness(d, settings(d))
	h.Algorithms = []signer.Algorithm{signer.RS256, signer.ES256, signer.ES384, signer.EdDSA}
	signertest.Run(t, h)
}

// Over TLS, with the credential of a service account, which no error shows.
func TestConformanceWithCredentials(t *testing.T) {
	t.Setenv("GOOGLE_SDK_GO_LOGGING_LEVEL", "debug") // which would log requests
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	credential, err := d.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	o := gcpkms.Options{
		Project: "zonemint-test", Location: "europe-west4", KeyRing: "mesh", Endpoint: d.Addr(), ProtectionLevel: "software",
		CAFile: writeFile(t, d.CA()), CredentialsFile: writeFile(t, credential), Logger: quiet(),
	}
	h := harness(d, o)
	h.Secrets = []string{"eyJ", "Bearer", "PRIVATE KEY", "zonemint@"}
	signertest.Run(t, h)
}
