package gcpkms

import (
	"context"
	"log/slog"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zonemint/zonemint/signer"
)

const opCreate = "create a key in cloud kms"

// attempts is how many versions are made in place of ones that the service could not
// generate, within one call.
const attempts = 3

// Create implements [signer.Backend]. To make a key that there is already, of an
// earlier try, is to find it. It returns once the key can sign.
func (b *Backend) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	id, err := keyID(spec)
	if err != nil {
		return nil, err
	}
	_, err = call(ctx, b, opCreate, func(ctx context.Context, c *kms.KeyManagementClient) (*kmspb.CryptoKey, error) {
		return c.CreateCryptoKey(ctx, &kmspb.CreateCryptoKeyRequest{Parent: b.opts.KeyRing, CryptoKeyId: id, CryptoKey: b.template(spec)})
	})
	switch statusOf(err) {
	case codes.AlreadyExists:
	case codes.NotFound:
		return nil, fail(signer.Misconfigured, "%w: make the key ring %s first, it is not made by itself", err, b.opts.KeyRing)
	default:
		if err != nil {
			return nil, err
		}
	}
	g := &generation{b: b, spec: spec, key: b.keyName(id)}
	return g.await(ctx)
}

func (b *Backend) keyName(id string) string { return b.opts.KeyRing + "/cryptoKeys/" + id }

// template is what a new key is to be.
func (b *Backend) template(spec signer.Spec) *kmspb.CryptoKey {
	key := &kmspb.CryptoKey{
		Purpose: kmspb.CryptoKey_ASYMMETRIC_SIGN,
		Labels:  labels(spec),
		VersionTemplate: &kmspb.CryptoKeyVersionTemplate{
			Algorithm: algorithmFor(spec.Algorithm), ProtectionLevel: b.level,
		},
	}
	if b.opts.DestroyScheduledDuration > 0 {
		key.DestroyScheduledDuration = durationpb.New(b.opts.DestroyScheduledDuration)
	}
	return key
}

// generation is the wait for a version of a key that can sign.
type generation struct {
	b    *Backend
	spec signer.Spec
	key  string

	made     int      // versions that were asked for in place of failed ones
	unseen   patience // while the key is not to be seen
	pending  patience
	lastSaid string // of a version that failed
}

// await looks at the versions of the key until one can sign.
func (g *generation) await(ctx context.Context) (signer.Ref, error) {
	for {
		all, err := g.b.versionsOf(ctx, opCreate, g.key)
		if err != nil && statusOf(err) != codes.NotFound {
			return nil, err
		}
		some := kept(all)
		switch {
		case len(some) > 0 && some[0].GetState() != kmspb.CryptoKeyVersion_PENDING_GENERATION:
			return g.found(ctx, some[0])
		case len(some) > 0:
			err = g.wait(ctx, some[0].GetName())
		case len(all) == 0:
			err = g.appear(ctx, err)
		default:
			err = g.replace(ctx, all)
		}
		if err != nil {
			return nil, err
		}
	}
}

// found checks the version that is to be the key. It is read in full, as it is for its
// attestation later: a right to that which is missing shows before the key is used.
func (g *generation) found(ctx context.Context, listed *kmspb.CryptoKeyVersion) (signer.Ref, error) {
	full, err := g.b.version(ctx, opCreate, listed.GetName())
	if err != nil {
		return nil, err
	}
	for _, v := range []*kmspb.CryptoKeyVersion{listed, full} {
		if err := g.b.fits(v, g.spec.Algorithm); err != nil {
			return nil, err
		}
		if !g.b.protects(v.GetProtectionLevel()) {
			return nil, fail(signer.Corrupt, "%s: %s has the protection level %s, less than the setting protection_level", opCreate, v.GetName(), v.GetProtectionLevel())
		}
	}
	return signer.Ref(listed.GetName()), nil
}

func (g *generation) wait(ctx context.Context, name string) error {
	more, err := g.pending.wait(ctx, g.b.opts.GenerationTimeout)
	if err == nil && !more {
		return fail(signer.Unavailable, "%s: %s is still being generated after %s", opCreate, name, g.b.opts.GenerationTimeout)
	}
	return err
}

// appear waits for a key, or its first version, that should be there. Both are made in
// one step: a key that has no version is not one that Create has made.
func (g *generation) appear(ctx context.Context, missing error) error {
	more, err := g.unseen.wait(ctx, consistencyWindow)
	switch {
	case err != nil || more:
		return err
	case missing != nil:
		return fail(signer.Misconfigured, "%s: the ID of %s is taken, and yet it is not there: a key that was deleted keeps its ID: %w", opCreate, g.key, missing)
	default:
		return fail(signer.Misconfigured, "%s: %s is there and has no version: somebody else has made it, and this serial cannot have a key here", opCreate, g.key)
	}
}

// replace makes a version in place of those that could not be generated. Those that
// somebody has destroyed are not replaced: that was a person's wish.
func (g *generation) replace(ctx context.Context, all []*kmspb.CryptoKeyVersion) error {
	for _, v := range all {
		if v.GetState() != kmspb.CryptoKeyVersion_GENERATION_FAILED {
			return fail(signer.Misconfigured, "%s: %s was made before and is in the state %s: a key that was destroyed is not made again", opCreate, v.GetName(), v.GetState())
		}
		g.lastSaid = words(v.GetGenerationFailureReason())
	}
	g.b.log.WarnContext(ctx, "cloud kms could not generate a key", slog.String("key", g.key),
		slog.Int("versions", len(all)), slog.String("reason", g.lastSaid))
	return g.another(ctx)
}

// another asks for a version, having looked that there is none.
func (g *generation) another(ctx context.Context) error {
	if g.made == attempts {
		return fail(signer.Unavailable, "%s: the service could not generate %s: %s", opCreate, g.key, g.lastSaid)
	}
	g.made++
	_, err := call(ctx, g.b, opCreate, func(ctx context.Context, c *kms.KeyManagementClient) (*kmspb.CryptoKeyVersion, error) {
		return c.CreateCryptoKeyVersion(ctx, &kmspb.CreateCryptoKeyVersionRequest{Parent: g.key, CryptoKeyVersion: &kmspb.CryptoKeyVersion{}})
	})
	return err
}
