package awskms

import (
	"context"
	"crypto"
	"crypto/x509"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/zonemint/zonemint/signer"
)

// maxMessage is what KMS signs at the most where it makes the digest itself.
const maxMessage = 4096

// handle is one key. It holds nothing that can go stale.
type handle struct {
	backend   *Backend
	arn       string
	algorithm signer.Algorithm
}

// Public implements [signer.Handle]. A key that is not there yet is waited for, for
// two seconds at the most.
func (h *handle) Public(ctx context.Context) (public crypto.PublicKey, err error) {
	err = h.backend.patiently(ctx, publicPatience, func() error {
		public, err = h.read(ctx)
		return err
	})
	return public, err
}

func (h *handle) read(ctx context.Context) (crypto.PublicKey, error) {
	const op = "read a public key in AWS KMS"
	out, err := call(ctx, h.backend, op, h.backend.kms.GetPublicKey, &kms.GetPublicKeyInput{KeyId: &h.arn}, again)
	if err != nil {
		return nil, err
	}
	if got := aws.ToString(out.KeyId); got != h.arn {
		return nil, failf(signer.Corrupt, "%s: asked for %s, the answer is for %.200q", op, h.arn, got)
	}
	if out.KeyUsage != types.KeyUsageTypeSignVerify || out.KeySpec != keySpec(h.algorithm) || !slices.Contains(out.SigningAlgorithms, signingAlgorithm(h.algorithm)) {
		return nil, failf(signer.Corrupt, "%s: the key %s is a %.40q for %.40q, want a %s that signs with %s",
			op, h.arn, out.KeySpec, out.KeyUsage, keySpec(h.algorithm), signingAlgorithm(h.algorithm))
	}
	public, err := x509.ParsePKIXPublicKey(out.PublicKey)
	if err == nil {
		err = h.algorithm.Fits(public)
	}
	if err != nil {
		return nil, failf(signer.Corrupt, "%s: the public key of %s: %w", op, h.arn, err)
	}
	return public, nil
}

// Sign implements [signer.Handle]. It is one call, whatever comes of it.
func (h *handle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	const op = "sign with AWS KMS"
	if alg != h.algorithm {
		return nil, failf(signer.Unsupported, "a key for %s does not sign with %s", h.algorithm, alg)
	}
	if alg.Hash() == 0 && len(in) > maxMessage {
		return nil, failf(signer.Unsupported, "%s: with Ed25519 it signs %d bytes at the most, and these are %d; "+
			"make the token smaller, or use a keyset with ES256 or RS256", op, maxMessage, len(in))
	}
	out, err := call(ctx, h.backend, op, h.backend.kms.Sign, h.input(in))
	if err != nil {
		return nil, err
	}
	if got := aws.ToString(out.KeyId); got != h.arn {
		return nil, failf(signer.Corrupt, "%s: asked for the key %s, and %.200q has signed", op, h.arn, got)
	}
	if out.SigningAlgorithm != signingAlgorithm(alg) || len(out.Signature) == 0 {
		return nil, failf(signer.Corrupt, "%s: asked the key %s for %s, the answer has %d bytes of %.60q",
			op, h.arn, signingAlgorithm(alg), len(out.Signature), out.SigningAlgorithm)
	}
	return out.Signature, nil
}
