package awskms_test

import (
	"testing"
	"time"

	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// TestConformance runs with keys and tags that become visible late, and keys that
// sign later than they are seen.
func TestConformance(t *testing.T) {
	s := start(t)
	s.SetDelays(awskmsdouble.Delays{Keys: 100 * time.Millisecond, Sign: 200 * time.Millisecond, Creating: 150 * time.Millisecond, Tags: time.Hour})
	o := options(s)
	o.AliasPrefix = "conformance/"
	plant := func(tb testing.TB, p awskmsdouble.Planted) string {
		arn, err := s.Plant(p)
		if err != nil {
			tb.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // others' keys have been there for longer
		return arn
	}
	region := "arn:aws:kms:" + s.Options().Region + ":" + s.Options().Account
	signertest.Run(t, signertest.Harness{
		Open:       func(tb testing.TB) signer.Backend { return open(tb, o) },
		UnknownRef: signer.Ref(signer.NewLabel() + " zone 1 ES256 " + region + ":key/1234abcd-12ab-34cd-56ef-1234567890ab"),
		Secrets:    []string{s.Options().SecretAccessKey, "AWS4-HMAC", "SignedHeaders"},
		BreakKey: func(tb testing.TB, ref signer.Ref) {
			if err := s.Break(arnOf(ref)); err != nil {
				tb.Fatal(err)
			}
		},
		PlantForeign: func(tb testing.TB) signer.Ref {
			plant(tb, awskmsdouble.Planted{Spec: "SYMMETRIC_DEFAULT", Manager: "AWS", Description: "Default key that protects my EBS volumes"})
			return signer.Ref(plant(tb, awskmsdouble.Planted{Spec: "ECC_NIST_P256", Description: "zonemint-backup: serial 1 of keyset zone, ES256"}))
		},
		PlantNamed: func(tb testing.TB, alg signer.Algorithm) string {
			spec := map[string]string{"RS256-2048": "RSA_2048", "ES256": "ECC_NIST_P256", "EdDSA": "ECC_NIST_EDWARDS25519"}[alg.String()]
			s.SetAlias("alias/mesh-2025", plant(tb, awskmsdouble.Planted{Spec: spec}))
			return "alias/mesh-2025"
		},
		UnknownName: "alias/mesh-1999",
		Stall:       func(testing.TB) func() { return s.Stall() },
	})
}
