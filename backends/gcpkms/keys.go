package gcpkms

import (
	"context"
	"fmt"
	"strings"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"

	"github.com/zonemint/zonemint/signer"
)

// Find implements [signer.Backend]. It is one request. Keys whose destruction is
// scheduled are not found, nor are ones that could not be generated. Of several
// versions the one with the lowest number is the key, as it is for Create.
func (b *Backend) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	id, err := keyID(spec)
	if err != nil {
		return nil, err
	}
	all, err := b.versionsOf(ctx, "look for a key in cloud kms", b.keyName(id))
	if statusOf(err) == codes.NotFound && b.Code(err) == signer.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	some := kept(all)
	if len(some) == 0 {
		return nil, nil
	}
	if err := b.fits(some[0], spec.Algorithm); err != nil {
		return nil, err
	}
	return []signer.Ref{signer.Ref(some[0].GetName())}, nil
}

// List implements [signer.Backend]. For each key of zonemint's it takes a request
// more: a listing of asymmetric keys does not say what state they are in.
func (b *Backend) List(ctx context.Context, each func(signer.Labelled) error) error {
	const op = "list the keys in cloud kms"
	for token := ""; ; {
		var keys []*kmspb.CryptoKey
		next, err := call(ctx, b, op, func(ctx context.Context, c *kms.KeyManagementClient) (string, error) {
			it := c.ListCryptoKeys(ctx, &kmspb.ListCryptoKeysRequest{Parent: b.opts.KeyRing})
			return iterator.NewPager(it, pageSize, token).NextPage(&keys)
		})
		if statusOf(err) == codes.NotFound {
			return fail(signer.Misconfigured, "%w: make the key ring %s first, it is not made by itself", err, b.opts.KeyRing)
		}
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := b.listOne(ctx, op, key, each); err != nil {
				return err
			}
		}
		if token = next; token == "" {
			return nil
		}
	}
}

// listOne calls each for what there is of a key, if it is one of zonemint's.
func (b *Backend) listOne(ctx context.Context, op string, key *kmspb.CryptoKey, each func(signer.Labelled) error) error {
	id, ok := strings.CutPrefix(key.GetName(), b.keyName(""))
	if !ok {
		return fail(signer.Corrupt, "%s: the answer has a key of another key ring, %s", op, words(key.GetName()))
	}
	label, ours := labelOf(id)
	if !ours {
		return nil
	}
	all, err := b.versionsOf(ctx, op, key.GetName())
	if statusOf(err) == codes.NotFound {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	for _, v := range kept(all) {
		l := signer.Labelled{Label: label, Ref: signer.Ref(v.GetName())}
		if spec, ok := specOf(key, id, label); ok {
			l.Keyset, l.Serial = spec.Keyset, spec.Serial
		}
		if t := key.GetCreateTime(); t != nil {
			l.CreatedAt = t.AsTime()
		}
		if err := each(l); err != nil {
			return err
		}
	}
	return nil
}

// Open implements [signer.Backend]. It makes no request: that a key exists shows
// when it is used.
func (b *Backend) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	name, err := versionFor(spec, ref)
	if err != nil {
		return nil, err
	}
	return &handle{backend: b, name: name, algorithm: spec.Algorithm}, nil
}

// Destroy implements [signer.Backend]. The version can be restored, by others, until
// the time is over that was fixed for its key ("Destroy and restore key versions"); until
// then it is disabled. One that is still being generated cannot be destroyed yet and
// is waited for.
func (b *Backend) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	name, err := versionFor(spec, ref)
	if err != nil {
		return err
	}
	var pending patience
	for ready := false; ; {
		err = b.schedule(ctx, name)
		if statusOf(err) != codes.FailedPrecondition {
			return err
		}
		// It has had no effect. Words differ, so the version is looked at.
		v, looked := b.version(ctx, opDestroy, name)
		switch {
		case looked != nil:
			return fmt.Errorf("%w; before that: %w", looked, err)
		case isGone(v):
			return nil
		case !isKept(v):
			return fail(codeOfState(v.GetState()), "%w: %s is in the state %s, which says that there may still be a key", err, name, v.GetState())
		case v.GetState() != kmspb.CryptoKeyVersion_PENDING_GENERATION && ready:
			return err // for a reason of its own, such as a policy of the organization
		case v.GetState() != kmspb.CryptoKeyVersion_PENDING_GENERATION:
			ready = true // it may have become so just now
			continue
		}
		if more, ended := pending.wait(ctx, b.opts.GenerationTimeout); ended != nil || !more {
			return fail(signer.Unavailable, "%w: %s is still being generated", err, name)
		}
	}
}

const opDestroy = "destroy a key in cloud kms"

// schedule asks for a version to be destroyed.
func (b *Backend) schedule(ctx context.Context, name string) error {
	_, err := call(ctx, b, opDestroy, func(ctx context.Context, c *kms.KeyManagementClient) (*kmspb.CryptoKeyVersion, error) {
		return c.DestroyCryptoKeyVersion(ctx, &kmspb.DestroyCryptoKeyVersionRequest{Name: name})
	})
	return err
}
