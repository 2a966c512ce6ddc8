package awskms

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/zonemint/zonemint/signer"
)

// Adopt implements [signer.Adopter]. The name is the ARN of a key, or the name or ARN
// of an alias, which is followed this once: the reference has the key's own ARN.
func (b *Backend) Adopt(ctx context.Context, spec signer.Spec, name string) (signer.Ref, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	byARN := nameARN.MatchString(name)
	if !byARN && !nameAlias.MatchString(name) {
		return nil, failf(signer.Misconfigured, "a key in AWS KMS is named by its ARN (arn:aws:kms:REGION:ACCOUNT:key/ID) or by an alias (alias/NAME), not by %.100q", name)
	}
	key, err := b.read(ctx, "look for a key in AWS KMS", name)
	if err != nil {
		return nil, err
	}
	arn := *key.Arn
	if byARN && arn != name {
		return nil, failf(signer.Corrupt, "asked for the key %s, the answer is for %.200q", name, arn)
	}
	if err := mayAdopt(spec, key); err != nil {
		return nil, err
	}
	ref := newRef(spec, arn)
	if _, err := b.arnFor(spec, ref); err != nil {
		return nil, err
	}
	if key.Origin != types.OriginTypeAwsKms {
		b.log.WarnContext(ctx, "an adopted key was not made in AWS KMS: there may be copies of it", slog.String("key", arn), slog.String("origin", string(key.Origin)))
	}
	return ref, nil
}

// mayAdopt refuses a key that is of another kind, of no use, or somebody's.
func mayAdopt(spec signer.Spec, key *types.KeyMetadata) error {
	arn := aws.ToString(key.Arn)
	if key.KeyManager != types.KeyManagerTypeCustomer {
		return failf(signer.Misconfigured, "the key %s is managed by AWS and is not there to sign with", arn)
	}
	if key.KeyUsage != types.KeyUsageTypeSignVerify || key.KeySpec != keySpec(spec.Algorithm) || !slices.Contains(key.SigningAlgorithms, signingAlgorithm(spec.Algorithm)) {
		return failf(signer.Misconfigured, "the key %s is a %.40q for %.40q, and %s takes a %s for %s",
			arn, key.KeySpec, key.KeyUsage, spec.Algorithm, keySpec(spec.Algorithm), types.KeyUsageTypeSignVerify)
	}
	if isDoomed(key) {
		return failf(signer.NotFound, "the key %s is to be deleted: cancel that first", arn)
	}
	if key.KeyState != types.KeyStateEnabled {
		return failf(signer.Misconfigured, "the key %s is in the state %.40q: enable it first", arn, key.KeyState)
	}
	if label, _, _ := strings.Cut(aws.ToString(key.Description), ":"); signer.IsLabel(label) && label != spec.Label {
		return failf(signer.Misconfigured, "the key %s is one of zonemint's already, with the label %s", arn, label)
	}
	return nil
}
