package gcpkms

import (
	"context"

	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/zonemint/zonemint/signer"
)

// Adopt implements [signer.Adopter]. The name is that of a version, in full:
// projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N. Its key ring may be another one
// than that of new keys. The reference holds spec as well: it opens for no other.
func (b *Backend) Adopt(ctx context.Context, spec signer.Spec, name string) (signer.Ref, error) {
	const op = "look at a key in cloud kms"
	_, id, ok := parseVersion(name)
	if !ok {
		return nil, fail(signer.Misconfigured, "a key in cloud kms is named by its version, "+
			"projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N, not by %q", words(name))
	}
	if _, err := keyID(spec); err != nil {
		return nil, err
	}
	ref := adoptedRef(spec, name)
	if _, ours := labelOf(id); ours {
		ref = signer.Ref(name)
		if _, err := versionFor(spec, ref); err != nil {
			return nil, fail(signer.Misconfigured, "%s: it is one of zonemint's own, for another keyset or serial: %w", op, err)
		}
	}
	v, err := b.version(ctx, op, name)
	if err != nil {
		return nil, err
	}
	switch {
	case v.GetState() != kmspb.CryptoKeyVersion_ENABLED:
		return nil, fail(codeOfState(v.GetState()), "%s: %s is not enabled, its state is %s", op, name, v.GetState())
	case v.GetAlgorithm() != algorithmFor(spec.Algorithm):
		return nil, fail(signer.Misconfigured, "%s: %s is for %s and not for %s", op, name, v.GetAlgorithm(), spec.Algorithm)
	case !b.protects(v.GetProtectionLevel()):
		return nil, fail(signer.Misconfigured, "%s: %s has the protection level %s, less than the setting protection_level: "+
			"take it over through a backend of its own with a lower one", op, name, v.GetProtectionLevel())
	}
	return ref, nil
}
