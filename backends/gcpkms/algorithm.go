package gcpkms

import (
	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/zonemint/zonemint/signer"
)

type algorithm = kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm

// algorithmFor is the service's name of an algorithm ("Key purposes and
// algorithms"); unspecified if it has none. The hash is part of it, so RS384 and the
// smaller RS512 are missing.
func algorithmFor(alg signer.Algorithm) algorithm {
	return map[string]algorithm{
		"RS256-2048": kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_2048_SHA256,
		"RS256-3072": kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_3072_SHA256,
		"RS256-4096": kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_4096_SHA256,
		"RS512-4096": kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_4096_SHA512,
		"PS256-2048": kmspb.CryptoKeyVersion_RSA_SIGN_PSS_2048_SHA256,
		"PS256-3072": kmspb.CryptoKeyVersion_RSA_SIGN_PSS_3072_SHA256,
		"PS256-4096": kmspb.CryptoKeyVersion_RSA_SIGN_PSS_4096_SHA256,
		"ES256":      kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256,
		"ES384":      kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384,
		"EdDSA":      kmspb.CryptoKeyVersion_EC_SIGN_ED25519,
	}[alg.String()]
}

// algorithms lists what the service signs with.
func algorithms() (list []signer.Algorithm) {
	for _, alg := range signer.Algorithms() {
		if algorithmFor(alg) != kmspb.CryptoKeyVersion_CRYPTO_KEY_VERSION_ALGORITHM_UNSPECIFIED {
			list = append(list, alg)
		}
	}
	return list
}

// rank orders levels of protection: unknown, in software or somebody else's hands,
// in the service's hardware.
func rank(level kmspb.ProtectionLevel) int {
	switch level {
	case kmspb.ProtectionLevel_HSM, kmspb.ProtectionLevel_HSM_SINGLE_TENANT:
		return 2
	case kmspb.ProtectionLevel_SOFTWARE, kmspb.ProtectionLevel_EXTERNAL, kmspb.ProtectionLevel_EXTERNAL_VPC:
		return 1
	default:
		return 0
	}
}
