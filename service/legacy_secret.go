package service

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// newLegacy is a secret that is to become a key.
type newLegacy struct {
	secret     []byte
	imported   bool
	thumbprint string // of the public half, if it has one
	serial     int    // that it got
}

// about gives an error of adding the key the words that fit it.
func (n *newLegacy) about(err error) error {
	if errors.Is(err, store.ErrExists) {
		return &invalid{"secret", "is, or was, the secret of another legacy key"}
	}
	return err
}

// newLegacySecret makes a secret, or checks one that was given.
func (s *Service) newLegacySecret(ctx context.Context, given []byte) (*newLegacy, error) {
	n := &newLegacy{secret: given, imported: len(given) > 0}
	var err error
	if !n.imported {
		if n.secret, err = legacy.NewSecret(); err != nil {
			return nil, err
		}
	}
	if err := legacy.CheckSecret(n.secret); err != nil {
		return nil, &invalid{"secret", err.Error()}
	}
	if public, ok := legacy.PublicHalf(n.secret); ok {
		// Of a key that nothing here signs with there may be no thumbprint.
		n.thumbprint, _ = signer.Thumbprint(public)
	}
	if !n.imported {
		return n, nil
	}
	return n, s.notOfAKeyset(ctx, n)
}

// notOfAKeyset refuses a secret that has to do with a key of any keyset, whatever
// its state: the public key in some form, which everybody has, or the private key.
func (s *Service) notOfAKeyset(ctx context.Context, n *newLegacy) error {
	ring, err := s.store.LoadRing(ctx)
	if err != nil {
		return err
	}
	digest := legacy.Digest([16]byte{}, n.secret)
	for _, ks := range ring.Keysets {
		keys, err := s.store.SigningKeys(ctx, ks.ID)
		if err := s.despiteTampering(ctx, err); err != nil {
			return err
		}
		for _, k := range keys {
			if n.thumbprint != "" && n.thumbprint == k.Thumbprint {
				return &invalid{"secret", fmt.Sprintf("is the private key of serial %d of keyset %q; no key serves two purposes", k.Serial, ks.Name)}
			}
			if isFormOf(k.PublicKey, digest) {
				return &invalid{"secret", fmt.Sprintf("is the public key of serial %d of keyset %q, which is no secret", k.Serial, ks.Name)}
			}
		}
	}
	return nil
}

// isFormOf says whether a digest is that of some form of a public key.
func isFormOf(pkix, digest []byte) bool {
	if len(pkix) == 0 {
		return false
	}
	public, err := x509.ParsePKIXPublicKey(pkix)
	if err != nil {
		return false
	}
	for _, form := range legacy.PublicForms(public) {
		if bytes.Equal(legacy.Digest([16]byte{}, form), digest) {
			return true
		}
	}
	return false
}

// notALegacyKey refuses to trust a public key that has to do with a legacy key: the
// reverse of notOfAKeyset.
func (s *Service) notALegacyKey(ctx context.Context, public crypto.PublicKey, thumbprint string) error {
	for _, kind := range legacy.Kinds() {
		l, err := s.store.LegacyKeys(ctx, store.LegacyKind(kind))
		if err != nil {
			return err
		}
		for _, k := range l.Keys {
			if k.Thumbprint == thumbprint || s.isDigestOf(public, k.Digest) {
				return &invalid{"public_key", fmt.Sprintf("belongs to the secret of legacy key %d of %s tokens; no key serves two purposes", k.Serial, kind)}
			}
		}
	}
	return nil
}

func (s *Service) isDigestOf(public crypto.PublicKey, digest []byte) bool {
	for _, form := range legacy.PublicForms(public) {
		if bytes.Equal(legacy.Digest(s.store.InstallationID(), form), digest) {
			return true
		}
	}
	return false
}

func legacyKindFromProto(k pb.LegacyKind) legacy.Kind {
	if k == pb.LegacyKind_LEGACY_KIND_ZONE_INGRESS {
		return legacy.ZoneIngress
	}
	return legacy.ControlPlane
}

func legacyKindToProto(k store.LegacyKind) pb.LegacyKind {
	if k == store.LegacyZoneIngress {
		return pb.LegacyKind_LEGACY_KIND_ZONE_INGRESS
	}
	return pb.LegacyKind_LEGACY_KIND_CONTROL_PLANE
}

func legacyKeysToProto(l store.LegacyKeys) []*pb.LegacyKey {
	out := make([]*pb.LegacyKey, len(l.Keys))
	for i, k := range l.Keys {
		out[i] = &pb.LegacyKey{
			Kind: legacyKindToProto(k.Kind), Serial: int32(k.Serial), State: string(k.State), Imported: k.Imported,
			SecretName: legacy.Kind(k.Kind).SecretName(k.Serial), CreatedBy: k.CreatedBy, CreatedAt: timestamp(k.CreatedAt),
			RetiredAt: timestamp(k.RetiredAt), RemovedAt: timestamp(k.RemovedAt),
		}
	}
	return out
}

// legacyKeyWith returns one key, without its secret.
func legacyKeyWith(l store.LegacyKeys, serial int) *pb.LegacyKey {
	for _, k := range legacyKeysToProto(l) {
		if int(k.GetSerial()) == serial {
			return k
		}
	}
	return nil
}
