package gcpkms

import (
	"context"
	"encoding/json"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// attestation is what an HSM has said of a key, in the service's words. The
// certificates say who vouches for the HSM ("Verifying attestations").
type attestation struct {
	Provider             string    `json:"provider"`
	Key                  string    `json:"key"` // name of the version
	ProtectionLevel      string    `json:"protection_level"`
	Algorithm            string    `json:"algorithm"`
	GeneratedAt          time.Time `json:"generated_at"`
	Format               string    `json:"format"`  // of the content, e.g. CAVIUM_V2_COMPRESSED
	Content              []byte    `json:"content"` // base64 in JSON
	CaviumCerts          []string  `json:"cavium_certs,omitempty"`
	GoogleCardCerts      []string  `json:"google_card_certs,omitempty"`
	GooglePartitionCerts []string  `json:"google_partition_certs,omitempty"`
}

// Attest implements [signer.Attester]. Keys in software, and those of others' key
// managers, have no attestation.
func (b *Backend) Attest(ctx context.Context, spec signer.Spec, ref signer.Ref) ([]byte, error) {
	const op = "read the attestation of a key in cloud kms"
	name, err := versionFor(spec, ref)
	if err != nil {
		return nil, err
	}
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	v, err := b.version(ctx, op, name)
	if err != nil {
		return nil, err
	}
	said := v.GetAttestation()
	if len(said.GetContent()) == 0 {
		return nil, nil
	}
	chains := said.GetCertChains()
	return json.Marshal(attestation{
		Provider: "Google Cloud KMS", Key: name, ProtectionLevel: v.GetProtectionLevel().String(), Algorithm: v.GetAlgorithm().String(),
		GeneratedAt: v.GetGenerateTime().AsTime(), Format: said.GetFormat().String(), Content: said.GetContent(),
		CaviumCerts: chains.GetCaviumCerts(), GoogleCardCerts: chains.GetGoogleCardCerts(), GooglePartitionCerts: chains.GetGooglePartitionCerts(),
	})
}
