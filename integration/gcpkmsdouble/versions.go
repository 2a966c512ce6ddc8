package gcpkmsdouble

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// version is a CryptoKeyVersion.
type version struct {
	name      string
	of        *key
	algorithm algorithm
	level     kmspb.ProtectionLevel
	created   time.Time
	ready     time.Time // when it stops being pending, if its key is made by then
	fails     bool      // to be generated
	set       kmspb.CryptoKeyVersion_CryptoKeyVersionState
	destroyed time.Time // when it will be
	quote     []byte    // of the attestation

	made           chan struct{} // closed when the key is
	signer, public crypto.Signer // differ once somebody has swapped the key
}

// state is what the clock makes of what was set.
func (v *version) state(now time.Time) kmspb.CryptoKeyVersion_CryptoKeyVersionState {
	switch {
	case v.set == kmspb.CryptoKeyVersion_DESTROY_SCHEDULED && !now.Before(v.destroyed):
		return kmspb.CryptoKeyVersion_DESTROYED
	case v.set != kmspb.CryptoKeyVersion_PENDING_GENERATION || now.Before(v.ready):
		return v.set
	}
	select {
	case <-v.made:
	default:
		return v.set
	}
	if v.fails {
		return kmspb.CryptoKeyVersion_GENERATION_FAILED
	}
	return kmspb.CryptoKeyVersion_ENABLED
}

// proto shows a version, with its attestation if that is asked for.
func (v *version) proto(now time.Time, full bool) *kmspb.CryptoKeyVersion {
	state := v.state(now)
	shown := &kmspb.CryptoKeyVersion{
		Name: v.name, State: state, Algorithm: v.algorithm, ProtectionLevel: v.level, CreateTime: timestamppb.New(v.created),
	}
	switch state { //nolint:exhaustive // others say no more
	case kmspb.CryptoKeyVersion_PENDING_GENERATION:
		return shown
	case kmspb.CryptoKeyVersion_GENERATION_FAILED:
		shown.GenerationFailureReason = "The key could not be generated."
		return shown
	case kmspb.CryptoKeyVersion_DESTROY_SCHEDULED:
		shown.DestroyTime = timestamppb.New(v.destroyed)
	case kmspb.CryptoKeyVersion_DESTROYED:
		shown.DestroyEventTime = timestamppb.New(v.destroyed)
	}
	shown.GenerateTime = timestamppb.New(v.ready)
	if full && v.level == kmspb.ProtectionLevel_HSM {
		shown.Attestation = v.attestation()
	}
	return shown
}

// attestation has the form of a real one and proves nothing.
func (v *version) attestation() *kmspb.KeyOperationAttestation {
	certificate := func(of string) []string {
		return []string{fmt.Sprintf("-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n", of)}
	}
	return &kmspb.KeyOperationAttestation{
		Format: kmspb.KeyOperationAttestation_CAVIUM_V2_COMPRESSED, Content: v.quote,
		CertChains: &kmspb.KeyOperationAttestation_CertificateChains{
			CaviumCerts: certificate("Y2F2aXVt"), GoogleCardCerts: certificate("Y2FyZA=="), GooglePartitionCerts: certificate("cGFydGl0aW9u"),
		},
	}
}

// version returns a version of a key that clients see.
func (s *Server) version(name string) (*version, error) {
	if _, ok := parse(versionPattern, name); !ok {
		return nil, invalid("%q is not the name of a CryptoKeyVersion", name)
	}
	k, err := s.key(parent(name))
	if err != nil {
		return nil, notFound("CryptoKeyVersion", name)
	}
	i := slices.IndexFunc(k.versions, func(v *version) bool { return v.name == name })
	if i < 0 {
		return nil, notFound("CryptoKeyVersion", name)
	}
	return k.versions[i], nil
}

// addVersion begins to make a version. Those of asymmetric keys are pending first.
func (s *Server) addVersion(k *key) *version {
	now := s.opts.Now()
	v := &version{
		name: fmt.Sprintf("%s/cryptoKeyVersions/%d", k.name, len(k.versions)+1), of: k, created: now, ready: now.Add(s.opts.Generation),
		algorithm: k.template.GetAlgorithm(), level: k.template.GetProtectionLevel(), made: make(chan struct{}),
		set: kmspb.CryptoKeyVersion_PENDING_GENERATION,
	}
	k.versions = append(k.versions, v)
	if s.generations > 0 {
		s.generations--
		v.fails = true
	}
	if _, signs := methodOf(v.algorithm); !signs {
		v.ready, v.set = now, kmspb.CryptoKeyVersion_ENABLED
		close(v.made)
		return v
	}
	s.attestations++
	v.quote = fmt.Appendf(nil, "\x1f\x8bsynthetic attestation %d of %s", s.attestations, v.name)
	s.makers.Go(func() {
		private, err := generate(v.algorithm)
		s.mu.Lock()
		defer s.mu.Unlock()
		v.signer, v.public, v.fails = private, private, v.fails || err != nil
		close(v.made)
	})
	return v
}

// CreateCryptoKeyVersion implements the API.
func (s *Server) CreateCryptoKeyVersion(_ context.Context, req *kmspb.CreateCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.permitted("cloudkms.cryptoKeyVersions.create", req.GetParent()); err != nil {
		return nil, err
	}
	k, err := s.key(req.GetParent())
	if err != nil {
		return nil, err
	}
	return s.addVersion(k).proto(s.opts.Now(), true), nil
}

// GetCryptoKeyVersion implements the API.
func (s *Server) GetCryptoKeyVersion(_ context.Context, req *kmspb.GetCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.permitted("cloudkms.cryptoKeyVersions.get", req.GetName()); err != nil {
		return nil, err
	}
	v, err := s.version(req.GetName())
	if err != nil {
		return nil, err
	}
	return v.proto(s.opts.Now(), true), nil
}

// UpdateCryptoKeyVersion implements the API, for what can be updated: whether a
// version is enabled.
func (s *Server) UpdateCryptoKeyVersion(_ context.Context, req *kmspb.UpdateCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := req.GetCryptoKeyVersion().GetName()
	if err := s.permitted("cloudkms.cryptoKeyVersions.update", name); err != nil {
		return nil, err
	}
	v, err := s.version(name)
	if err != nil {
		return nil, err
	}
	if paths := req.GetUpdateMask().GetPaths(); !slices.Equal(paths, []string{"state"}) {
		return nil, invalid("the update mask %q names what cannot be changed", paths)
	}
	want, now := req.GetCryptoKeyVersion().GetState(), v.state(s.opts.Now())
	if !usable(want) {
		return nil, invalid("the state cannot be set to %s", want)
	}
	if !usable(now) {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is in the state %s, which cannot be changed.", name, now)
	}
	v.set = want
	return v.proto(s.opts.Now(), true), nil
}

func usable(state kmspb.CryptoKeyVersion_CryptoKeyVersionState) bool {
	return state == kmspb.CryptoKeyVersion_ENABLED || state == kmspb.CryptoKeyVersion_DISABLED
}

// DestroyCryptoKeyVersion implements the API.
func (s *Server) DestroyCryptoKeyVersion(_ context.Context, req *kmspb.DestroyCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.permitted("cloudkms.cryptoKeyVersions.destroy", req.GetName()); err != nil {
		return nil, err
	}
	v, err := s.version(req.GetName())
	if err != nil {
		return nil, err
	}
	now := s.opts.Now()
	if !usable(v.state(now)) {
		return nil, status.Error(codes.FailedPrecondition, "state must be one of ENABLED or DISABLED in order to destroy")
	}
	v.set, v.destroyed = kmspb.CryptoKeyVersion_DESTROY_SCHEDULED, now.Add(v.of.grace)
	return v.proto(now, true), nil
}

// RestoreCryptoKeyVersion implements the API.
func (s *Server) RestoreCryptoKeyVersion(_ context.Context, req *kmspb.RestoreCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.permitted("cloudkms.cryptoKeyVersions.restore", req.GetName()); err != nil {
		return nil, err
	}
	v, err := s.version(req.GetName())
	if err != nil {
		return nil, err
	}
	if now := v.state(s.opts.Now()); now != kmspb.CryptoKeyVersion_DESTROY_SCHEDULED {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is in the state %s and cannot be restored.", v.name, now)
	}
	v.set, v.destroyed = kmspb.CryptoKeyVersion_DISABLED, time.Time{}
	return v.proto(s.opts.Now(), true), nil
}
