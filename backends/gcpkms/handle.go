package gcpkms

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"hash/crc32"
	"strings"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zonemint/zonemint/signer"
)

// handle is one version of a key. It holds nothing that can go stale.
type handle struct {
	backend   *Backend
	name      string
	algorithm signer.Algorithm
}

// Public implements [signer.Handle]. A key that is still being generated is waited
// for, and one that is not to be seen yet.
func (h *handle) Public(ctx context.Context) (crypto.PublicKey, error) {
	const op = "read a public key in cloud kms"
	var pending, unseen patience
	for {
		said, err := call(ctx, h.backend, op, func(ctx context.Context, c *kms.KeyManagementClient) (*kmspb.PublicKey, error) {
			return c.GetPublicKey(ctx, &kmspb.GetPublicKeyRequest{Name: h.name})
		})
		if err == nil {
			return h.parse(op, said)
		}
		var more bool
		var ended error
		switch {
		case stateOf(err) == kmspb.CryptoKeyVersion_PENDING_GENERATION:
			more, ended = pending.wait(ctx, h.backend.opts.GenerationTimeout)
		case statusOf(err) == codes.NotFound && h.backend.Code(err) == signer.NotFound:
			more, ended = unseen.wait(ctx, consistencyWindow)
		}
		if !more || ended != nil {
			return nil, err
		}
	}
}

// parse checks an answer before anything in it is believed.
func (h *handle) parse(op string, said *kmspb.PublicKey) (crypto.PublicKey, error) {
	switch {
	case said.GetName() != h.name:
		return nil, fail(signer.Corrupt, "%s: asked for %s, the answer is of %s", op, h.name, words(said.GetName()))
	case !matches(said.GetPemCrc32C(), []byte(said.GetPem())):
		return nil, fail(signer.Corrupt, "%s: the answer for %s does not match its checksum: it was changed on the way", op, h.name)
	case said.GetAlgorithm() != algorithmFor(h.algorithm):
		return nil, fail(signer.Misconfigured, "%s: %s is for %s and not for %s", op, h.name, said.GetAlgorithm(), h.algorithm)
	case !h.backend.protects(said.GetProtectionLevel()):
		return nil, fail(signer.Misconfigured, "%s: %s has the protection level %s, less than the setting protection_level: "+
			"use it through a backend of its own with a lower one", op, h.name, said.GetProtectionLevel())
	}
	block, rest := pem.Decode([]byte(said.GetPem()))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, fail(signer.Corrupt, "%s: the answer for %s is not one block of PEM", op, h.name)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fail(signer.Corrupt, "%s: the public key of %s: %w", op, h.name, err)
	}
	if err := h.algorithm.Fits(public); err != nil {
		return nil, fail(signer.Corrupt, "%s: the public key of %s: %w", op, h.name, err)
	}
	return public, nil
}

// Sign implements [signer.Handle]. It is one request, which nobody repeats.
func (h *handle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	const op = "sign with cloud kms"
	req := newSignRequest(h.name, alg, in)
	said, err := call(ctx, h.backend, op, func(ctx context.Context, c *kms.KeyManagementClient) (*kmspb.AsymmetricSignResponse, error) {
		return c.AsymmetricSign(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	if what := h.mismatch(req, said); what != "" {
		return nil, fail(signer.Corrupt, "%s: %s: %s: the signature is thrown away", op, h.name, what)
	}
	return said.GetSignature(), nil
}

// newSignRequest sends a digest, or for EdDSA, which has none, the data.
func newSignRequest(name string, alg signer.Algorithm, in []byte) *kmspb.AsymmetricSignRequest {
	req := &kmspb.AsymmetricSignRequest{Name: name}
	if alg.Hash() == 0 {
		req.Data, req.DataCrc32C = in, checksum(in)
		return req
	}
	req.DigestCrc32C = checksum(in)
	switch alg.Hash() {
	case crypto.SHA384:
		req.Digest = &kmspb.Digest{Digest: &kmspb.Digest_Sha384{Sha384: in}}
	case crypto.SHA512:
		req.Digest = &kmspb.Digest{Digest: &kmspb.Digest_Sha512{Sha512: in}}
	default:
		req.Digest = &kmspb.Digest{Digest: &kmspb.Digest_Sha256{Sha256: in}}
	}
	return req
}

// mismatch says what is wrong with an answer ("Verifying end-to-end data
// integrity"); nothing if it is what was asked for, as it left the service.
func (h *handle) mismatch(req *kmspb.AsymmetricSignRequest, said *kmspb.AsymmetricSignResponse) string {
	verified := said.GetVerifiedDigestCrc32C()
	if req.GetDigest() == nil {
		verified = said.GetVerifiedDataCrc32C()
	}
	switch {
	case said.GetName() != h.name:
		return "another key has signed, " + words(said.GetName())
	case !verified:
		return "the service did not see the checksum of what it signed"
	case !matches(said.GetSignatureCrc32C(), said.GetSignature()):
		return "the signature does not match its checksum"
	case !h.backend.protects(said.GetProtectionLevel()):
		return "the protection level is " + said.GetProtectionLevel().String() + ", less than the setting protection_level"
	default:
		return ""
	}
}

// checksum is CRC32C: Castagnoli's polynomial.
func checksum(data []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
}

// matches says whether there is a checksum, and it is right.
func matches(sum *wrapperspb.Int64Value, data []byte) bool {
	return sum != nil && sum.GetValue() == checksum(data).GetValue()
}
