package gcpkms

import (
	"cmp"
	"context"
	"slices"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/iterator"

	"github.com/zonemint/zonemint/signer"
)

// pageSize is how much one request for a listing asks for. The service may give less.
const pageSize = 200

// versionsOf lists the versions of a key by their numbers, the oldest first. Each page
// has the time of one request. In what order the service lists them, it does not say.
func (b *Backend) versionsOf(ctx context.Context, op, key string) (all []*kmspb.CryptoKeyVersion, err error) {
	for token := ""; ; {
		token, err = call(ctx, b, op, func(ctx context.Context, c *kms.KeyManagementClient) (string, error) {
			it := c.ListCryptoKeyVersions(ctx, &kmspb.ListCryptoKeyVersionsRequest{Parent: key})
			return iterator.NewPager(it, pageSize, token).NextPage(&all)
		})
		if err != nil {
			return nil, err
		}
		if token == "" {
			break
		}
	}
	for _, v := range all {
		if of, _, ok := parseVersion(v.GetName()); !ok || of != key {
			return nil, fail(signer.Corrupt, "%s: the answer for %s has a version of another key, %s", op, key, words(v.GetName()))
		}
	}
	slices.SortFunc(all, func(a, b *kmspb.CryptoKeyVersion) int {
		return cmp.Compare(numberOf(a.GetName()), numberOf(b.GetName()))
	})
	return all, nil
}

// version reads one version, with its attestation.
func (b *Backend) version(ctx context.Context, op, name string) (*kmspb.CryptoKeyVersion, error) {
	v, err := call(ctx, b, op, func(ctx context.Context, c *kms.KeyManagementClient) (*kmspb.CryptoKeyVersion, error) {
		return c.GetCryptoKeyVersion(ctx, &kmspb.GetCryptoKeyVersionRequest{Name: name})
	})
	if err == nil && v.GetName() != name {
		return nil, fail(signer.Corrupt, "%s: asked for %s, the answer is of %s", op, name, words(v.GetName()))
	}
	return v, err
}

// isKept says whether a version has a private key, or is about to, that has not been
// given up.
func isKept(v *kmspb.CryptoKeyVersion) bool {
	switch v.GetState() {
	case kmspb.CryptoKeyVersion_ENABLED, kmspb.CryptoKeyVersion_DISABLED, kmspb.CryptoKeyVersion_PENDING_GENERATION:
		return true
	default:
		return false
	}
}

// isGone says whether a version has no private key that could still be destroyed, or its
// destruction is scheduled ("Key states"). States that the service may add are not among
// them.
func isGone(v *kmspb.CryptoKeyVersion) bool {
	switch v.GetState() {
	case kmspb.CryptoKeyVersion_DESTROYED, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED, kmspb.CryptoKeyVersion_PENDING_EXTERNAL_DESTRUCTION,
		kmspb.CryptoKeyVersion_GENERATION_FAILED, kmspb.CryptoKeyVersion_IMPORT_FAILED:
		return true
	default:
		return false
	}
}

// kept returns the versions that can be, or become, the key of a serial. More than one
// of them means that two processes have each replaced the same failed version: the
// first is the key, for everybody.
func kept(all []*kmspb.CryptoKeyVersion) (some []*kmspb.CryptoKeyVersion) {
	for _, v := range all {
		if isKept(v) {
			some = append(some, v)
		}
	}
	return some
}

// fits says whether a version can be what was made for alg.
func (b *Backend) fits(v *kmspb.CryptoKeyVersion, alg signer.Algorithm) error {
	if v.GetAlgorithm() != algorithmFor(alg) {
		return fail(signer.Corrupt, "the key %s is for %s, and was made for %s", v.GetName(), v.GetAlgorithm(), alg)
	}
	return nil
}

// protects says whether a key is kept as well as the setting wants.
func (b *Backend) protects(level kmspb.ProtectionLevel) bool { return rank(level) >= rank(b.level) }

// patience is how long to go on with what may come by itself.
type patience struct {
	pause, waited time.Duration
}

// wait waits a little, longer each time. It does not wait for more than most in all.
func (p *patience) wait(ctx context.Context, most time.Duration) (bool, error) {
	p.pause = min(max(2*p.pause, 50*time.Millisecond), 2*time.Second)
	if p.waited >= most {
		return false, nil
	}
	timer := time.NewTimer(min(p.pause, most-p.waited))
	defer timer.Stop()
	select {
	case <-timer.C:
		p.waited += p.pause
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
