package awskms

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/zonemint/zonemint/signer"
)

// ownTags are the names of zonemint's tags, after their prefix.
var ownTags = []string{"label", "keyset", "serial", "algorithm"} //nolint:gochecknoglobals // a constant in all but syntax

// Create implements [signer.Backend]. From the moment that CreateKey has answered
// there is a key, and nothing that comes after it makes this fail: who then tried
// again would have two.
func (b *Backend) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	const op = "create a key in AWS KMS"
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	in := &kms.CreateKeyInput{
		KeySpec: keySpec(spec.Algorithm), KeyUsage: types.KeyUsageTypeSignVerify, Origin: types.OriginTypeAwsKms,
		Description: aws.String(describe(spec)), Tags: b.tags(spec),
	}
	if b.policy != "" {
		in.Policy = &b.policy
	}
	if b.opts.MultiRegion {
		in.MultiRegion = aws.Bool(true)
	}
	out, err := call(ctx, b, op, b.kms.CreateKey, in)
	if err != nil {
		return nil, err
	}
	if out.KeyMetadata == nil || aws.ToString(out.KeyMetadata.Arn) == "" {
		return nil, failf(signer.Corrupt, "%s: the answer does not say which key was made", op)
	}
	ref := newRef(spec, *out.KeyMetadata.Arn)
	arn, err := b.arnFor(spec, ref)
	if err != nil {
		return nil, failf(signer.Corrupt, "%s: the answer names a key that cannot be: %w", op, err)
	}
	b.settle(ctx, spec, arn)
	b.giveAlias(ctx, spec, arn)
	return ref, nil
}

// tags are those of a new key, in an order of their own.
func (b *Backend) tags(spec signer.Spec) (tags []types.Tag) {
	for _, name := range slices.Sorted(maps.Keys(b.opts.Tags)) {
		tags = append(tags, types.Tag{TagKey: aws.String(name), TagValue: aws.String(b.opts.Tags[name])})
	}
	for i, value := range []string{spec.Label, spec.Keyset, strconv.Itoa(spec.Serial), spec.Algorithm.String()} {
		tags = append(tags, types.Tag{TagKey: aws.String(tagPrefix + ownTags[i]), TagValue: aws.String(value)})
	}
	return tags
}

// giveAlias names a key for people. A key without its alias works as well.
func (b *Backend) giveAlias(ctx context.Context, spec signer.Spec, arn string) {
	if b.opts.AliasPrefix == "" {
		return
	}
	alias := "alias/" + b.opts.AliasPrefix + spec.Keyset + "/" + strconv.Itoa(spec.Serial) + "/" + spec.Label
	_, err := call(ctx, b, "give a key in AWS KMS an alias", b.kms.CreateAlias, &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: &arn})
	if err != nil {
		b.log.WarnContext(ctx, "a new key in AWS KMS has no alias; it works without", slog.String("key", arn), slog.String("alias", alias), slog.Any("error", err))
	}
}

// Open implements [signer.Backend]. It makes no call: that a key exists shows when
// it is used.
func (b *Backend) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	arn, err := b.arnFor(spec, ref)
	if err != nil {
		return nil, err
	}
	return &handle{backend: b, arn: arn, algorithm: spec.Algorithm}, nil
}

// Destroy implements [signer.Backend]. It disables the key, so that nobody uses it
// from then on, and has it deleted after the waiting period. Until then
// CancelKeyDeletion and EnableKey bring it back. A key that somebody has used
// lately is refused and left as it is; to be interrupted on the way is harmless.
func (b *Backend) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	arn, err := b.arnFor(spec, ref)
	if err != nil {
		return err
	}
	key, err := b.read(ctx, opLook, arn)
	if err != nil || isDoomed(key) {
		return err
	}
	if err := checkReplicas(key); err != nil {
		return err
	}
	if err := b.checkIdle(ctx, arn); err != nil {
		return err
	}
	if _, err := call(ctx, b, "disable a key in AWS KMS", b.kms.DisableKey, &kms.DisableKeyInput{KeyId: &arn}); err != nil {
		return b.unlessDoomed(ctx, arn, err)
	}
	_, err = call(ctx, b, "schedule the deletion of a key in AWS KMS", b.kms.ScheduleKeyDeletion,
		&kms.ScheduleKeyDeletionInput{KeyId: &arn, PendingWindowInDays: aws.Int32(int32(b.opts.DeletionWindowDays))})
	return b.unlessDoomed(ctx, arn, err)
}

const opLook = "look at a key in AWS KMS"

// isDoomed says whether a key waits for its deletion.
func isDoomed(key *types.KeyMetadata) bool {
	return key.KeyState == types.KeyStatePendingDeletion || key.KeyState == types.KeyStatePendingReplicaDeletion
}

// unlessDoomed forgives an error about a key that somebody else has destroyed at the
// same moment.
func (b *Backend) unlessDoomed(ctx context.Context, arn string, err error) error {
	if codeOf(err) != signer.NotFound {
		return err
	}
	if key, failed := b.read(ctx, opLook, arn); failed == nil && isDoomed(key) {
		return nil
	}
	return err
}

// checkReplicas refuses a primary key that has replicas. KMS would stop it at once, and
// wait with its deletion until somebody has deleted all of them, while they go on
// signing. See "Deleting multi-Region keys".
func checkReplicas(key *types.KeyMetadata) error {
	config := key.MultiRegionConfiguration
	if config == nil || config.MultiRegionKeyType != types.MultiRegionKeyTypePrimary || len(config.ReplicaKeys) == 0 {
		return nil
	}
	var regions []string
	for _, replica := range config.ReplicaKeys {
		regions = append(regions, aws.ToString(replica.Region))
	}
	return failf(signer.Misconfigured, "the key %s is not destroyed: it has replicas in %s, which would go on signing; delete them first",
		aws.ToString(key.Arn), oneLine(strings.Join(regions, ", ")))
}

// checkIdle refuses a key that was used lately, or for which KMS did not keep count
// for long enough to say.
func (b *Backend) checkIdle(ctx context.Context, arn string) error {
	if *b.opts.MinIdle == 0 {
		return nil
	}
	const op = "see when a key in AWS KMS was last used"
	out, err := call(ctx, b, op, b.kms.GetKeyLastUsage, &kms.GetKeyLastUsageInput{KeyId: &arn}, again)
	if err != nil {
		return err
	}
	last, how := time.Time{}, "it was last used"
	switch usage := cmp.Or(out.KeyLastUsage, &types.KeyLastUsageData{}); {
	case usage.Timestamp != nil:
		last = *usage.Timestamp
	case out.TrackingStartDate == nil || out.KeyCreationDate == nil:
		return failf(signer.Corrupt, "%s: the answer for %s does not say since when uses are counted", op, arn)
	case out.KeyCreationDate.Before(*out.TrackingStartDate):
		last, how = *out.TrackingStartDate, "uses are known only since"
	}
	if idle := b.opts.Now().Sub(last); idle < *b.opts.MinIdle {
		return failf(signer.Misconfigured, "the key %s is not destroyed: %s %s, and the setting min_idle asks for %s without use; "+
			"wait, or lower it, once nobody needs the key", arn, how, last.UTC().Format(time.RFC3339), *b.opts.MinIdle)
	}
	return nil
}

// read asks for what KMS says of a key, by its ARN or an alias.
func (b *Backend) read(ctx context.Context, op, id string) (*types.KeyMetadata, error) {
	out, err := call(ctx, b, op, b.kms.DescribeKey, &kms.DescribeKeyInput{KeyId: &id}, again)
	if err != nil {
		return nil, err
	}
	if out.KeyMetadata == nil || aws.ToString(out.KeyMetadata.Arn) == "" || aws.ToString(out.KeyMetadata.KeyId) == "" {
		return nil, failf(signer.Corrupt, "%s: the answer says nothing of the key %s", op, id)
	}
	return out.KeyMetadata, nil
}
