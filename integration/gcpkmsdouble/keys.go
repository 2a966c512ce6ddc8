package gcpkmsdouble

import (
	"context"
	"maps"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// key is a CryptoKey.
type key struct {
	name, id string
	purpose  kmspb.CryptoKey_CryptoKeyPurpose
	template *kmspb.CryptoKeyVersionTemplate
	labels   map[string]string
	created  time.Time
	grace    time.Duration // between the wish to destroy a version and the deed
	versions []*version
}

func (k *key) proto() *kmspb.CryptoKey {
	return &kmspb.CryptoKey{
		Name: k.name, Purpose: k.purpose, CreateTime: timestamppb.New(k.created), VersionTemplate: k.template,
		Labels: maps.Clone(k.labels), DestroyScheduledDuration: durationpb.New(k.grace),
	}
}

// permitted says whether the caller has a permission on a resource.
func (s *Server) permitted(permission, resource string) error {
	if s.denied[permission] {
		return s.denial(permission, resource)
	}
	return nil
}

// key returns a key that clients see.
func (s *Server) key(name string) (*key, error) {
	if _, ok := parse(keyPattern, name); !ok {
		return nil, invalid("%q is not the name of a CryptoKey", name)
	}
	for _, k := range s.rings[parent(name)] {
		if k.name == name && !s.opts.Now().Before(k.created.Add(s.opts.Visibility)) {
			return k, nil
		}
	}
	return nil, notFound("CryptoKey", name)
}

// CreateCryptoKey implements the API.
func (s *Server) CreateCryptoKey(_ context.Context, req *kmspb.CreateCryptoKeyRequest) (*kmspb.CryptoKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := parse(ringPattern, req.GetParent()); !ok {
		return nil, invalid("%q is not the name of a KeyRing", req.GetParent())
	}
	if err := s.permitted("cloudkms.cryptoKeys.create", req.GetParent()); err != nil {
		return nil, err
	}
	k, err := s.newKey(req)
	if err != nil {
		return nil, err
	}
	ring, ok := s.rings[req.GetParent()]
	if !ok {
		return nil, notFound("KeyRing", req.GetParent())
	}
	if _, taken := ring[k.id]; taken {
		return nil, alreadyExists(k.name)
	}
	ring[k.id] = k
	if !req.GetSkipInitialVersionCreation() {
		s.addVersion(k)
	}
	return k.proto(), nil
}

// newKey checks what is wanted of a key.
func (s *Server) newKey(req *kmspb.CreateCryptoKeyRequest) (*key, error) {
	want := req.GetCryptoKey()
	k := &key{
		name: req.GetParent() + "/cryptoKeys/" + req.GetCryptoKeyId(), id: req.GetCryptoKeyId(), purpose: want.GetPurpose(),
		labels: maps.Clone(want.GetLabels()), created: s.opts.Now(), grace: 30 * 24 * time.Hour,
		template: &kmspb.CryptoKeyVersionTemplate{
			Algorithm: want.GetVersionTemplate().GetAlgorithm(), ProtectionLevel: want.GetVersionTemplate().GetProtectionLevel(),
		},
	}
	if !isID(k.id) {
		return nil, invalid("crypto_key_id %q does not match [a-zA-Z0-9_-]{1,63}", k.id)
	}
	if err := checkLabels(k.labels); err != nil {
		return nil, err
	}
	if d := want.GetDestroyScheduledDuration(); d != nil {
		k.grace = d.AsDuration()
		if k.grace < 24*time.Hour || k.grace > 120*24*time.Hour {
			return nil, invalid("destroy_scheduled_duration must be between 24 hours and 120 days")
		}
	}
	return k, k.complete()
}

// complete fills in what has a default and checks what goes with the purpose.
func (k *key) complete() error {
	t := k.template
	if t.ProtectionLevel == kmspb.ProtectionLevel_PROTECTION_LEVEL_UNSPECIFIED {
		t.ProtectionLevel = kmspb.ProtectionLevel_SOFTWARE
	}
	if t.ProtectionLevel != kmspb.ProtectionLevel_SOFTWARE && t.ProtectionLevel != kmspb.ProtectionLevel_HSM {
		return invalid("protection level %s is not available here", t.GetProtectionLevel())
	}
	_, signs := methodOf(t.GetAlgorithm())
	symmetric := t.GetAlgorithm() == kmspb.CryptoKeyVersion_GOOGLE_SYMMETRIC_ENCRYPTION
	if k.purpose == kmspb.CryptoKey_CRYPTO_KEY_PURPOSE_UNSPECIFIED {
		return invalid("crypto_key.purpose is required")
	}
	if k.purpose == kmspb.CryptoKey_ENCRYPT_DECRYPT && t.GetAlgorithm() == kmspb.CryptoKeyVersion_CRYPTO_KEY_VERSION_ALGORITHM_UNSPECIFIED {
		t.Algorithm, symmetric = kmspb.CryptoKeyVersion_GOOGLE_SYMMETRIC_ENCRYPTION, true
	}
	if symmetric && k.purpose == kmspb.CryptoKey_ENCRYPT_DECRYPT || signs && k.purpose == kmspb.CryptoKey_ASYMMETRIC_SIGN {
		return nil
	}
	return invalid("algorithm %s does not go with the purpose %s", t.GetAlgorithm(), k.purpose)
}

// GetCryptoKey implements the API.
func (s *Server) GetCryptoKey(_ context.Context, req *kmspb.GetCryptoKeyRequest) (*kmspb.CryptoKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.permitted("cloudkms.cryptoKeys.get", req.GetName()); err != nil {
		return nil, err
	}
	k, err := s.key(req.GetName())
	if err != nil {
		return nil, err
	}
	return k.proto(), nil
}
