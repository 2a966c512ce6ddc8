package gcpkmsdouble

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"hash/crc32"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// maxData is the longest data that an HSM and that software signs. The API's
// reference gives these for other operations; for this one it says nothing.
const (
	maxDataHSM = 8 << 10
	maxData    = 64 << 10
)

func checksum(data []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
}

// checkSum compares a checksum, if one was sent ("Verifying end-to-end data
// integrity").
func checkSum(field string, data []byte, sent *wrapperspb.Int64Value) error {
	if sent != nil && sent.GetValue() != checksum(data).GetValue() {
		return invalid("The checksum in field %s_crc32c did not match the data in field %s.", field, field)
	}
	return nil
}

// enabled returns a version that can be used for signing.
func (s *Server) enabled(name string) (*version, error) {
	v, err := s.version(name)
	if err != nil {
		return nil, err
	}
	if state := v.state(s.opts.Now()); state != kmspb.CryptoKeyVersion_ENABLED {
		return nil, notEnabled(name, state)
	}
	if v.of.purpose != kmspb.CryptoKey_ASYMMETRIC_SIGN {
		return nil, status.Errorf(codes.FailedPrecondition, "CryptoKey %s has the purpose %s.", v.of.name, v.of.purpose)
	}
	return v, nil
}

// GetPublicKey implements the API.
func (s *Server) GetPublicKey(_ context.Context, req *kmspb.GetPublicKeyRequest) (*kmspb.PublicKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.permitted("cloudkms.cryptoKeyVersions.viewPublicKey", req.GetName()); err != nil {
		return nil, err
	}
	v, err := s.enabled(req.GetName())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(v.public.Public())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return &kmspb.PublicKey{
		Pem: string(text), Algorithm: v.algorithm, PemCrc32C: checksum(text), Name: v.name, ProtectionLevel: v.level,
	}, nil
}

// signer returns a version and what it signs with. Signing itself is not under the
// lock: others sign meanwhile.
func (s *Server) signer(name string) (*version, crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := parse(versionPattern, name); ok {
		if err := s.permitted("cloudkms.cryptoKeyVersions.useToSign", parent(name)); err != nil {
			return nil, nil, err
		}
	}
	v, err := s.enabled(name)
	if err != nil {
		return nil, nil, err
	}
	return v, v.signer, nil
}

// AsymmetricSign implements the API.
func (s *Server) AsymmetricSign(_ context.Context, req *kmspb.AsymmetricSignRequest) (*kmspb.AsymmetricSignResponse, error) {
	v, private, err := s.signer(req.GetName())
	if err != nil {
		return nil, err
	}
	m, _ := methodOf(v.algorithm)
	if len(req.GetData()) > maxData || v.level == kmspb.ProtectionLevel_HSM && len(req.GetData()) > maxDataHSM {
		return nil, invalid("data is too long")
	}
	in, err := m.input(req)
	if err != nil {
		return nil, err
	}
	if err := checkSum("data", req.GetData(), req.GetDataCrc32C()); err != nil {
		return nil, err
	}
	if err := checkSum("digest", in, req.GetDigestCrc32C()); err != nil {
		return nil, err
	}
	sig, err := private.Sign(rand.Reader, in, m.options())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &kmspb.AsymmetricSignResponse{
		Signature: sig, SignatureCrc32C: checksum(sig), Name: v.name, ProtectionLevel: v.level,
		VerifiedDataCrc32C: req.GetDataCrc32C() != nil, VerifiedDigestCrc32C: req.GetDigestCrc32C() != nil,
	}, nil
}
