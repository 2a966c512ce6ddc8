package awskms

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/zonemint/zonemint/signer"
)

// keyARN is what the ARN of a key looks like, as opposed to that of an alias.
const keyARN = `arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]{1,128}`

var (
	description = regexp.MustCompile(`^([a-z0-9-]+): serial ([0-9]+) of keyset ([a-z0-9/-]+), ([A-Za-z0-9-]+)$`)
	reference   = regexp.MustCompile(`^[a-z0-9-]+ [a-z0-9/-]+ [0-9]+ [A-Za-z0-9-]+ (` + keyARN + `)$`)
	nameARN     = regexp.MustCompile(`^` + keyARN + `$`)
	nameAlias   = regexp.MustCompile(`^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:)?alias/[A-Za-z0-9/_-]{1,250}$`)
)

// checkSpec refuses what cannot be written into tags, descriptions and references.
func checkSpec(spec signer.Spec) error {
	keyset := spec.Keyset != "" && strings.Trim(spec.Keyset, "abcdefghijklmnopqrstuvwxyz0123456789-/") == ""
	if !signer.IsLabel(spec.Label) || !keyset || spec.Serial < 1 {
		return failf(signer.Misconfigured, "keyset %q, serial %d, label %q: this makes no key in AWS KMS", spec.Keyset, spec.Serial, spec.Label)
	}
	return nil
}

// describe is the description of the key of spec. It holds all of spec.
func describe(spec signer.Spec) string {
	return fmt.Sprintf("%s: serial %d of keyset %s, %s", spec.Label, spec.Serial, spec.Keyset, spec.Algorithm)
}

// parseDescription undoes describe.
func parseDescription(text string) (signer.Spec, bool) {
	m := description.FindStringSubmatch(text)
	if m == nil {
		return signer.Spec{}, false
	}
	serial, err := strconv.Atoi(m[2])
	if err != nil {
		return signer.Spec{}, false
	}
	alg, err := signer.Parse(m[4])
	if err != nil {
		return signer.Spec{}, false
	}
	spec := signer.Spec{Keyset: m[3], Serial: serial, Label: m[1], Algorithm: alg}
	return spec, checkSpec(spec) == nil && describe(spec) == text
}

// newRef makes the reference of a key: its ARN, and the spec that it is for, so that
// it opens for no other. An adopted key does not say so itself.
func newRef(spec signer.Spec, arn string) signer.Ref {
	return fmt.Appendf(nil, "%s %s %d %s %s", spec.Label, spec.Keyset, spec.Serial, spec.Algorithm, arn)
}

// arnFor returns the key's ARN if ref is a reference to the key of spec. A backend
// that is asked for another one does not have it.
func (b *Backend) arnFor(spec signer.Spec, ref signer.Ref) (string, error) {
	const most = 1024
	if err := checkSpec(spec); err != nil {
		return "", err
	}
	m := reference.FindSubmatch(ref)
	if m == nil || len(ref) > most {
		return "", failf(signer.Corrupt, "this is not a reference to a key in AWS KMS")
	}
	arn, region := string(m[1]), string(m[2])
	if !signer.SameRef(ref, newRef(spec, arn)) {
		return "", failf(signer.NotFound, "the reference to the key %s is not that of serial %d of keyset %s, %s, label %s",
			arn, spec.Serial, spec.Keyset, spec.Algorithm, spec.Label)
	}
	if region != b.region {
		return "", failf(signer.Misconfigured, "the key %s is in another Region than %s, which this backend is configured for", arn, b.region)
	}
	return arn, nil
}

// keySpec is the service's name for the keys of an algorithm.
func keySpec(alg signer.Algorithm) types.KeySpec {
	switch {
	case alg.RSABits() != 0:
		return types.KeySpec("RSA_" + strconv.Itoa(alg.RSABits()))
	case alg == signer.ES256:
		return types.KeySpecEccNistP256
	case alg == signer.ES384:
		return types.KeySpecEccNistP384
	default:
		return types.KeySpecEccNistEdwards25519
	}
}

// signingAlgorithm is the service's name for an algorithm.
func signingAlgorithm(alg signer.Algorithm) types.SigningAlgorithmSpec {
	kind := map[string]string{"RS": "RSASSA_PKCS1_V1_5_SHA_", "PS": "RSASSA_PSS_SHA_", "ES": "ECDSA_SHA_"}[alg.JWS()[:2]]
	if kind == "" {
		return types.SigningAlgorithmSpecEd25519Sha512 // the one of RFC 8032, and not the one with a prehash
	}
	return types.SigningAlgorithmSpec(kind + alg.JWS()[2:])
}
