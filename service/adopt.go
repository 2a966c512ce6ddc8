package service

import (
	"cmp"
	"context"
	"fmt"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// checkAdoption looks at the key that a rotation is to take over before anything
// is written, so that a name which is wrong is an answer and not a key that is
// tried for ever. It returns the thumbprint of what it found, by which the key is known
// again when it is published: names can be given to other keys.
//
// Whoever chooses a key of a backend chooses what signs in zonemint's name, and
// what else in that backend zonemint signs with: an administrator's act.
func (s keyService) checkAdoption(ctx context.Context, ks store.Keyset, req *pb.RotateKeysetRequest) (thumbprint string, err error) {
	if err := cmp.Or(callerOf(ctx).MayWeaken("adopt"), callerOf(ctx).Unbounded()); err != nil {
		return "", err
	}
	if moves(ks, req) {
		ks.Backend = req.GetBackend()
	}
	if err := s.checkBackend(ks); err != nil {
		return "", err
	}
	b := s.cfg.Backends[ks.Backend]
	if !signer.CanAdopt(b) {
		return "", &invalid{"adopt", fmt.Sprintf("backend %q takes over no keys, it only makes them", ks.Backend)}
	}
	alg, err := signer.Parse(ks.Algorithm)
	if err != nil {
		return "", &invalid{"algorithm", err.Error()}
	}
	key, err := adopted(ctx, b, signer.Spec{Keyset: ks.Name, Serial: 1, Label: signer.NewLabel(), Algorithm: alg}, req.GetAdopt())
	if err != nil {
		return "", unadoptable(ks.Backend, err)
	}
	if thumbprint, err = signer.Thumbprint(key.Public()); err != nil {
		return "", err
	}
	return thumbprint, s.unused(ctx, key, thumbprint)
}

// adopted finds a key and tries it out.
func adopted(ctx context.Context, b signer.Backend, spec signer.Spec, name string) (*signer.Key, error) {
	ref, err := signer.Adopt(ctx, b, spec, name)
	if err != nil {
		return nil, err
	}
	key, err := signer.Open(ctx, b, spec, ref, nil)
	if err != nil {
		return nil, err
	}
	return key, key.Probe(ctx)
}

// unadoptable tells the caller why a key cannot be taken over. The backend's own
// words are about the name that the caller gave, and hold no secret.
func unadoptable(backend string, err error) error {
	switch signer.CodeOf(err) {
	case signer.NotFound, signer.Misconfigured, signer.Corrupt:
		return &invalid{"adopt", fmt.Sprintf("backend %q: %v", backend, err)}
	default:
		return err
	}
}

// unused refuses a key that is one of ours already: no key serves two purposes.
func (s keyService) unused(ctx context.Context, key *signer.Key, thumbprint string) error {
	if err := s.notALegacyKey(ctx, key.Public(), thumbprint); err != nil {
		return err
	}
	if err := s.ring.Refresh(ctx); err != nil {
		return err
	}
	for _, ks := range s.ring.Load().Keysets() {
		rows, err := s.store.SigningKeys(ctx, ks.ID)
		if err := s.despiteTampering(ctx, err); err != nil {
			return err
		}
		for _, row := range rows {
			if row.Thumbprint == thumbprint {
				return &invalid{"adopt", fmt.Sprintf("it is serial %d of keyset %q already", row.Serial, ks.Name)}
			}
		}
	}
	return nil
}
