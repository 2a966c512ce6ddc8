package gcpkmsdouble

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"cloud.google.com/go/kms/apiv1/kmspb"
)

type algorithm = kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm

// method is how an algorithm for signing works ("Key purposes and algorithms").
type method struct {
	bits  int
	curve elliptic.Curve
	hash  crypto.Hash // 0: the data itself is signed
	pss   bool
}

func methodOf(alg algorithm) (method, bool) {
	m, ok := map[algorithm]method{
		kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_2048_SHA256: {bits: 2048, hash: crypto.SHA256},
		kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_3072_SHA256: {bits: 3072, hash: crypto.SHA256},
		kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_4096_SHA256: {bits: 4096, hash: crypto.SHA256},
		kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_4096_SHA512: {bits: 4096, hash: crypto.SHA512},
		kmspb.CryptoKeyVersion_RSA_SIGN_PSS_2048_SHA256:   {bits: 2048, hash: crypto.SHA256, pss: true},
		kmspb.CryptoKeyVersion_RSA_SIGN_PSS_3072_SHA256:   {bits: 3072, hash: crypto.SHA256, pss: true},
		kmspb.CryptoKeyVersion_RSA_SIGN_PSS_4096_SHA256:   {bits: 4096, hash: crypto.SHA256, pss: true},
		kmspb.CryptoKeyVersion_RSA_SIGN_PSS_4096_SHA512:   {bits: 4096, hash: crypto.SHA512, pss: true},
		kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256:        {curve: elliptic.P256(), hash: crypto.SHA256},
		kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384:        {curve: elliptic.P384(), hash: crypto.SHA384},
		kmspb.CryptoKeyVersion_EC_SIGN_ED25519:            {},
	}[alg]
	return m, ok
}

func generate(alg algorithm) (crypto.Signer, error) {
	m, ok := methodOf(alg)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s signs nothing", alg)
	case m.bits != 0:
		return rsa.GenerateKey(rand.Reader, m.bits)
	case m.curve != nil:
		return ecdsa.GenerateKey(m.curve, rand.Reader)
	default:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
}

// options are what crypto.Signer wants to hear. Salts are as long as the digest.
func (m method) options() crypto.SignerOpts {
	if m.pss {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: m.hash}
	}
	return m.hash
}

// input is what is signed for a request: its digest, the digest of its data, or
// its data.
func (m method) input(req *kmspb.AsymmetricSignRequest) ([]byte, error) {
	switch {
	case req.GetDigest() != nil && req.Data != nil:
		return nil, invalid("only one of digest or data must be set")
	case req.GetDigestCrc32C() != nil && req.GetDataCrc32C() != nil:
		return nil, invalid("only one of digest_crc32c or data_crc32c must be set")
	case req.GetDigest() == nil && req.Data == nil:
		return nil, invalid("one of digest or data must be set")
	case req.Data != nil && m.hash == 0:
		return req.GetData(), nil
	case req.Data != nil:
		h := m.hash.New()
		h.Write(req.GetData())
		return h.Sum(nil), nil
	case m.hash == 0:
		return nil, invalid("this algorithm takes data and no digest")
	}
	digest := map[crypto.Hash][]byte{
		crypto.SHA256: req.GetDigest().GetSha256(), crypto.SHA384: req.GetDigest().GetSha384(), crypto.SHA512: req.GetDigest().GetSha512(),
	}[m.hash]
	if len(digest) != m.hash.Size() {
		return nil, invalid("the digest has %d bytes of %s, want %d", len(digest), m.hash, m.hash.Size())
	}
	return digest, nil
}
