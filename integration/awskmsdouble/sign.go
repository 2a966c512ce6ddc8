package awskmsdouble

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"time"
)

type signRequest struct {
	KeyId            string
	Message          []byte
	MessageType      string
	SigningAlgorithm string
	DryRun           bool
	GrantTokens      []string
}

func sign(s *Server, body []byte) (any, *Exception) {
	var in signRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	if e := in.check(); e != nil {
		return nil, e
	}
	k, private, e := s.signer(in)
	if e != nil {
		return nil, e
	}
	sig, err := in.sign(private)
	if err != nil {
		return nil, &Exception{Type: "KMSInternalException", Message: err.Error(), Status: 500}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.used = s.opts.Now()
	return map[string]any{"KeyId": k.arn, "Signature": sig, "SigningAlgorithm": in.SigningAlgorithm}, nil
}

// check looks at the request alone.
func (in signRequest) check() *Exception {
	const longest = 4096
	switch {
	case len(in.Message) == 0 || len(in.Message) > longest:
		return invalid("java.nio.HeapByteBuffer", "message", "have length between 1 and 4096")
	case in.MessageType != "" && in.MessageType != "RAW" && in.MessageType != "DIGEST":
		return invalid(in.MessageType, "messageType", "satisfy enum value set: [RAW, DIGEST, EXTERNAL_MU]")
	case !slices.Contains(slices.Concat(signingAlgorithms("RSA_2048"), signingAlgorithms("ECC_NIST_P256"), signingAlgorithms("ECC_NIST_P384"),
		signingAlgorithms("ECC_NIST_P521"), signingAlgorithms("ECC_NIST_EDWARDS25519")), in.SigningAlgorithm):
		return invalid(in.SigningAlgorithm, "signingAlgorithm", "satisfy enum value set")
	case len(in.GrantTokens) > 0:
		return refuse("InvalidGrantTokenException", "there are no grants")
	}
	return nil
}

// signer returns the key if it signs what is asked.
func (s *Server) signer(in signRequest) (*key, crypto.Signer, *Exception) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:Sign", in.KeyId, true)
	if e != nil {
		return nil, nil, e
	}
	if e := k.refuseUnless(s.opts.Now(), Enabled); e != nil {
		return nil, nil, e
	}
	if k.usage != "SIGN_VERIFY" {
		return nil, nil, refuse("InvalidKeyUsageException", "%s key usage is %s which is not valid for Sign.", k.arn, k.usage)
	}
	if !slices.Contains(signingAlgorithms(k.spec), in.SigningAlgorithm) {
		return nil, nil, refuse("InvalidKeyUsageException", "Algorithm %s is incompatible with key spec %s.", in.SigningAlgorithm, k.spec)
	}
	switch digest := in.MessageType == "DIGEST"; {
	case in.SigningAlgorithm == "ED25519_SHA_512" && digest:
		return nil, nil, refuse("ValidationException", "MessageType DIGEST is not valid for ED25519_SHA_512.")
	case in.SigningAlgorithm == "ED25519_PH_SHA_512":
		return nil, nil, refuse("UnsupportedOperationException", "the double has no Ed25519ph, which is not JOSE's")
	case digest && len(in.Message) != in.hash().Size():
		return nil, nil, refuse("ValidationException", "Digest is invalid length for algorithm %s.", in.SigningAlgorithm)
	}
	if in.DryRun {
		return nil, nil, refuse("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
	}
	return k, k.private, nil
}

// hash is what the algorithm's name ends in.
func (in signRequest) hash() crypto.Hash {
	switch {
	case strings.HasSuffix(in.SigningAlgorithm, "SHA_256"):
		return crypto.SHA256
	case strings.HasSuffix(in.SigningAlgorithm, "SHA_384"):
		return crypto.SHA384
	default:
		return crypto.SHA512
	}
}

func (in signRequest) sign(private crypto.Signer) ([]byte, error) {
	if in.SigningAlgorithm == "ED25519_SHA_512" {
		return private.Sign(rand.Reader, in.Message, crypto.Hash(0))
	}
	digest := in.Message
	if in.MessageType != "DIGEST" {
		h := in.hash().New()
		h.Write(in.Message)
		digest = h.Sum(nil)
	}
	if strings.HasPrefix(in.SigningAlgorithm, "RSASSA_PSS") {
		return private.Sign(rand.Reader, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: in.hash()})
	}
	return private.Sign(rand.Reader, digest, in.hash())
}

type idRequest struct {
	KeyId string
}

func getKeyLastUsage(s *Server, body []byte) (any, *Exception) {
	var in idRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:GetKeyLastUsage", in.KeyId, false)
	if e != nil {
		return nil, e
	}
	usage := map[string]any{}
	since := k.created
	if s.tracking.After(since) {
		since = s.tracking
	}
	if !k.used.IsZero() && !k.used.Before(since) {
		usage = map[string]any{"Operation": "Sign", "Timestamp": timestamp(k.used), "CloudTrailEventId": requestID(), "KmsRequestId": requestID()}
	}
	return map[string]any{"KeyId": k.arn, "KeyCreationDate": timestamp(k.created), "TrackingStartDate": timestamp(since), "KeyLastUsage": usage}, nil
}

// Use notes that somebody has used a key.
func (s *Server) Use(arn string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byARN(arn); k != nil {
		k.used = at
	}
}
