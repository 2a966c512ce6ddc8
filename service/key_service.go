package service

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// What a keyset's policy is when the request does not say.
const (
	defaultMaxValidFor = 30 * 24 * time.Hour
	defaultBackdate    = 5 * time.Second // what Kuma does
)

// keyService implements zonemint.v1.KeyService.
type keyService struct{ *Service }

func (s keyService) CreateKeyset(ctx context.Context, req *pb.CreateKeysetRequest) (*pb.CreateKeysetResponse, error) {
	if err := callerOf(ctx).MayManage(req.GetKeyset().GetName()); err != nil {
		return nil, err
	}
	if err := mayWeaken(ctx, req.GetKeyset(), nil); err != nil {
		return nil, err
	}
	ks, err := newKeyset(req.GetKeyset())
	if err != nil {
		return nil, err
	}
	made, err := s.createKeyset(ctx, ks, actorOf(ctx))
	if err != nil {
		return nil, err
	}
	keys, err := s.store.SigningKeys(ctx, made.ID)
	if err != nil {
		return nil, err
	}
	return &pb.CreateKeysetResponse{Keyset: keysetToProto(made), SigningKeys: keysToProto(made.Name, keys)}, nil
}

func (s keyService) ListKeysets(ctx context.Context, _ *pb.ListKeysetsRequest) (*pb.ListKeysetsResponse, error) {
	who := callerOf(ctx)
	resp := &pb.ListKeysetsResponse{}
	for _, ks := range s.ring.Load().Keysets() {
		if who.MaySee(ks.Name) == nil {
			resp.Keysets = append(resp.Keysets, keysetToProto(ks.Keyset))
		}
	}
	return resp, nil
}

func (s keyService) ListSigningKeys(ctx context.Context, req *pb.ListSigningKeysRequest) (*pb.ListSigningKeysResponse, error) {
	if err := callerOf(ctx).MaySee(req.GetKeyset()); err != nil {
		return nil, err
	}
	ks, err := s.ring.Load().Keyset(req.GetKeyset())
	if err != nil {
		return nil, err
	}
	keys, err := s.store.SigningKeys(ctx, ks.ID)
	if err := s.despiteTampering(ctx, err); err != nil {
		return nil, err
	}
	return &pb.ListSigningKeysResponse{SigningKeys: keysToProto(ks.Name, keys)}, nil
}

// despiteTampering lets a list be answered with the rows that are good: it is
// needed most when somebody has tampered with one of them. The log says which.
func (s *Service) despiteTampering(ctx context.Context, err error) error {
	if !errors.Is(err, store.ErrTampered) {
		return err
	}
	s.log.ErrorContext(ctx, "row left out of a list", slog.String("request_id", requestID(ctx)), slog.Any("error", err))
	return nil
}

// EnsureKeyset creates a keyset if there is none of that name. What exists is
// left as it is: its policy lives in the database, not in a configuration that
// replicas may have in several versions.
func (s *Service) EnsureKeyset(ctx context.Context, req *pb.Keyset) error {
	if err := s.validator.Validate(req); err != nil {
		return fmt.Errorf("keyset %s: %w", req.GetName(), err)
	}
	ks, err := newKeyset(req)
	if err != nil {
		return fmt.Errorf("keyset %s: %w", req.GetName(), err)
	}
	if _, err := s.ring.Load().Keyset(ks.Name); err == nil {
		return nil
	}
	if _, err := s.createKeyset(ctx, ks, s.actor()); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	return nil
}

// createKeyset creates a keyset, makes its first two keys and lets the first
// one sign. If it fails in between, some replica's next heartbeat finishes it.
func (s *Service) createKeyset(ctx context.Context, ks store.Keyset, by store.Actor) (store.Keyset, error) {
	if ks.Backend == "" {
		ks.Backend = s.cfg.DefaultBackend
	}
	if err := s.checkBackend(ks); err != nil {
		return ks, err
	}
	// Two keys from the start: the one that signs, and a published successor,
	// so that an emergency never begins with a key that nobody knows.
	ks, keys, err := s.store.CreateKeyset(ctx, ks, []store.NewKey{
		{Role: store.RolePrimary, Label: signer.NewLabel()}, {Role: store.RolePrimary, Label: signer.NewLabel()},
	}, by)
	if err != nil {
		return ks, err
	}
	// The keyset exists now: a caller that leaves must not leave it half made.
	// What takes longer than a call may, a heartbeat finishes.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	for _, k := range keys {
		// Before Run, nobody else renews the lease, which making a key needs.
		if s.clock.remaining(s.cfg.LeaseTTL) < s.cfg.LeaseTTL/2 {
			if err := s.beat(ctx); err != nil {
				return ks, err
			}
		}
		if err := s.makeKey(ctx, ks.Name, k, by); err != nil && !errors.Is(err, store.ErrConflict) {
			return ks, err
		}
	}
	return ks, s.awaitKeys(ctx, ks, by)
}

// awaitKeys waits until a keyset signs and all its keys are made. They are by
// now, unless another replica's heartbeat came between and took one over.
func (s *Service) awaitKeys(ctx context.Context, ks store.Keyset, by store.Actor) error {
	for {
		if err := s.settle(ctx, ks.ID, by); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
		if err := s.ring.Refresh(ctx); err != nil {
			return err
		}
		ring := s.ring.Load()
		made, err := ring.Keyset(ks.Name)
		if err != nil {
			return err
		}
		unfinished := slices.ContainsFunc(ring.Unfinished(), func(k store.SigningKey) bool { return k.KeysetID == ks.ID })
		if _, err := made.Active(); err == nil && !unfinished {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *Service) checkBackend(ks store.Keyset) error {
	alg, err := signer.Parse(ks.Algorithm)
	if err != nil {
		return &invalid{"algorithm", err.Error()}
	}
	own, err := s.traitsOf("backend", ks.Backend, alg)
	if err != nil || ks.Policy.Standby == "" {
		return err
	}
	standby, err := s.traitsOf("standby", ks.Policy.Standby, alg)
	switch {
	case err != nil:
		return err
	case ks.Policy.Standby == ks.Backend:
		return &invalid{"standby", "is the keyset's own backend, and as little there as that when it is down"}
	case standby.Custody < own.Custody && !ks.Policy.AllowWeakerStandby:
		return &invalid{"standby", fmt.Sprintf("keeps private keys %s, and backend %q %s: say allow_weaker_standby if that is meant",
			standby.Custody, ks.Backend, own.Custody)}
	}
	return nil
}

// traitsOf returns what a backend that a keyset names can do, if it has such keys.
func (s *Service) traitsOf(field, name string, alg signer.Algorithm) (signer.Traits, error) {
	b, ok := s.cfg.Backends[name]
	if !ok {
		return signer.Traits{}, &invalid{field, fmt.Sprintf("%q is not configured on this server", name)}
	}
	traits := b.Traits()
	if !slices.Contains(traits.Algorithms, alg) {
		return traits, &invalid{"algorithm", fmt.Sprintf("backend %q has no %s keys", name, alg)}
	}
	return traits, nil
}

// keysetFromProto takes over each field for itself: of a request that changes some
// only those count.
func keysetFromProto(k *pb.Keyset) (store.Keyset, error) {
	ks := store.Keyset{
		Name: k.GetName(), Algorithm: k.GetAlgorithm(), Backend: k.GetBackend(),
		Profile: profileFromProto(k.GetProfile()), Distribution: distributionFromProto(k.GetDistribution()),
		Policy: store.Policy{
			MaxValidFor:     durationOr(k.GetMaxValidFor(), defaultMaxValidFor),
			DefaultValidFor: durationOr(k.GetDefaultValidFor(), 0),
			Backdate:        durationOr(k.GetBackdate(), defaultBackdate),
			RotateEvery:     durationOr(k.GetRotateEvery(), 0),
			PublishAhead:    durationOr(k.GetPublishAhead(), 0),
			Consumers:       k.GetConsumers(),
			Mesh:            k.GetMesh(),
			AllowMeshSystem: k.GetAllowMeshSystem(),
			Standby:         k.GetStandby(), AllowWeakerStandby: k.GetAllowWeakerStandby(),
		},
	}
	if ks.Algorithm == "" {
		ks.Algorithm = signer.RS256.String()
	}
	alg, err := signer.Parse(ks.Algorithm)
	if err != nil {
		return ks, &invalid{"algorithm", err.Error()}
	}
	ks.Algorithm = alg.String()
	return ks, nil
}

// newKeyset returns the keyset that a request describes as a whole.
func newKeyset(k *pb.Keyset) (store.Keyset, error) {
	if k.GetProfile() == pb.Profile_PROFILE_UNSPECIFIED {
		return store.Keyset{}, &invalid{"profile", "is required: say what the tokens are for"}
	}
	ks, err := keysetFromProto(k)
	if err != nil {
		return ks, err
	}
	return ks, checkKeyset(ks)
}

// checkKeyset checks what no field can tell by itself.
func checkKeyset(ks store.Keyset) error {
	p := ks.Policy
	switch {
	case p.DefaultValidFor > p.MaxValidFor:
		return &invalid{"default_valid_for", "must not be longer than max_valid_for"}
	case p.Mesh != "" && ks.Profile != store.ProfileDataplane:
		return &invalid{"mesh", "is for keysets of dataplane tokens only"}
	case ks.Profile == store.ProfileDataplane && ks.Mesh() == "":
		return &invalid{"mesh", "is required: keysets of dataplane tokens are for one mesh; name it, or call the keyset \"dataplane/MESH\""}
	case p.AllowMeshSystem && ks.Profile != store.ProfileUser:
		return &invalid{"allow_mesh_system", "is for keysets of user tokens only"}
	}
	if ks.Distribution == store.DistributionKumaSync {
		return checkKumaSync(ks)
	}
	return nil
}

// checkKumaSync refuses what no control plane can take while it runs.
func checkKumaSync(ks store.Keyset) error {
	if ks.Profile != store.ProfileZone {
		return &invalid{"distribution", fmt.Sprintf("kuma-sync is for zone tokens only: control planes read public keys for %s tokens from "+
			"their configuration, so take manual, and see `zonemint kuma export`", ks.Profile)}
	}
	if alg, err := signer.Parse(ks.Algorithm); err != nil || alg.JWS() != signer.RS256.JWS() {
		return &invalid{"algorithm", fmt.Sprintf("is %s, and control planes of Kuma verify RS256 only", ks.Algorithm)}
	}
	return nil
}

func durationOr(d *durationpb.Duration, other time.Duration) store.Duration {
	if d == nil {
		return store.Duration(other)
	}
	return store.Duration(d.AsDuration())
}

func keysetToProto(k store.Keyset) *pb.Keyset {
	return &pb.Keyset{
		Name: k.Name, Profile: profileToProto(k.Profile), Algorithm: k.Algorithm, Backend: k.Backend,
		Distribution:    distributionToProto(k.Distribution),
		MaxValidFor:     durationpb.New(time.Duration(k.Policy.MaxValidFor)),
		DefaultValidFor: durationpb.New(time.Duration(k.Policy.DefaultValidFor)),
		Backdate:        durationpb.New(time.Duration(k.Policy.Backdate)),
		RotateEvery:     durationpb.New(time.Duration(k.Policy.RotateEvery)),
		PublishAhead:    durationpb.New(time.Duration(k.Policy.PublishAhead)),
		Consumers:       k.Policy.Consumers,
		Mesh:            k.Mesh(),
		AllowMeshSystem: k.Policy.AllowMeshSystem,
		Standby:         k.Policy.Standby, AllowWeakerStandby: k.Policy.AllowWeakerStandby,
		CreatedAt: timestamppb.New(k.CreatedAt),
	}
}

func keysToProto(keyset string, keys []store.SigningKey) []*pb.SigningKey {
	out := make([]*pb.SigningKey, len(keys))
	for i, k := range keys {
		out[i] = keyToProto(keyset, k)
	}
	return out
}

func keyToProto(keyset string, k store.SigningKey) *pb.SigningKey {
	return &pb.SigningKey{
		Keyset: keyset, Serial: int32(k.Serial), Kid: k.KID, Role: string(k.Role), State: string(k.State),
		Algorithm: k.Algorithm, Backend: k.Backend, PublicKey: publicPEM(k.PublicKey),
		CreatedAt: timestamp(k.CreatedAt), PublishedAt: timestamp(k.PublishedAt),
		ActivatedAt: timestamp(k.ActivatedAt), LastExpiry: timestamp(k.LastExpiry),
		ActivateAfter: timestamp(k.ActivateAfter), RetiredAt: timestamp(k.RetiredAt), RemovedAt: timestamp(k.RemovedAt),
		DestroyedAt: timestamp(k.DestroyedAt), Imported: k.Imported, Adopted: k.Adopted, TrustedUntil: timestamp(k.TrustedUntil), Reason: k.Reason,
	}
}

func publicPEM(der []byte) string {
	if len(der) == 0 {
		return ""
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// timestamp returns nil for a time that has not come: zero, or the epoch that
// last_expiry starts from.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() || t.Unix() == 0 {
		return nil
	}
	return timestamppb.New(t)
}

func profileFromProto(p pb.Profile) store.Profile {
	switch p {
	case pb.Profile_PROFILE_DATAPLANE:
		return store.ProfileDataplane
	case pb.Profile_PROFILE_USER:
		return store.ProfileUser
	default:
		return store.ProfileZone
	}
}

func profileToProto(p store.Profile) pb.Profile {
	switch p {
	case store.ProfileZone:
		return pb.Profile_PROFILE_ZONE
	case store.ProfileDataplane:
		return pb.Profile_PROFILE_DATAPLANE
	case store.ProfileUser:
		return pb.Profile_PROFILE_USER
	default:
		return pb.Profile_PROFILE_UNSPECIFIED
	}
}

func distributionFromProto(d pb.Distribution) store.Distribution {
	switch d {
	case pb.Distribution_DISTRIBUTION_KUMA_SYNC:
		return store.DistributionKumaSync
	case pb.Distribution_DISTRIBUTION_MANUAL:
		return store.DistributionManual
	default:
		return store.DistributionJWKS
	}
}

func distributionToProto(d store.Distribution) pb.Distribution {
	switch d {
	case store.DistributionKumaSync:
		return pb.Distribution_DISTRIBUTION_KUMA_SYNC
	case store.DistributionManual:
		return pb.Distribution_DISTRIBUTION_MANUAL
	default:
		return pb.Distribution_DISTRIBUTION_JWKS
	}
}
