package local

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/zonemint/zonemint/signer"
)

// The parsers' own errors are not wrapped: what they quote may be the key.
var (
	errNoPEM     = errors.New("no private key in PEM was found")
	errManyPEM   = errors.New("there is more in the PEM than one private key")
	errEncrypted = errors.New("the private key is encrypted with a passphrase: decrypt it first, for example with openssl pkey")
	errBadKey    = errors.New("the private key cannot be read: it is damaged or of a kind that does not sign")
)

// parsePEM reads one unencrypted private key: PKCS #1 (RSA PRIVATE KEY),
// SEC 1 (EC PRIVATE KEY) or PKCS #8 (PRIVATE KEY). The EC PARAMETERS that
// OpenSSL writes in front of an EC key are skipped.
func parsePEM(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	for block != nil && block.Type == "EC PARAMETERS" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errNoPEM
	}
	defer clear(block.Bytes)
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errManyPEM
	}
	if encrypted(block) {
		return nil, errEncrypted
	}
	parsed, err := parseBlock(block)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errBadKey // X25519, for one, agrees on keys and does not sign
	}
	if pub, ok := key.Public().(*rsa.PublicKey); ok && pub.N.BitLen() < signer.MinRSABits {
		return nil, fmt.Errorf("the RSA key has %d bits, at least %d are needed", pub.N.BitLen(), signer.MinRSABits)
	}
	return key, nil
}

func parseBlock(block *pem.Block) (key any, err error) {
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("the PEM holds a %s, want RSA PRIVATE KEY, EC PRIVATE KEY or PRIVATE KEY", typeName(block))
	}
	if err != nil {
		return nil, errBadKey
	}
	return key, nil
}

func encrypted(block *pem.Block) bool {
	return block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" ||
		strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
}

// typeName names the usual wrong blocks, and no text that is not known.
func typeName(block *pem.Block) string {
	switch block.Type {
	case "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE", "CERTIFICATE REQUEST", "OPENSSH PRIVATE KEY":
		return block.Type
	default:
		return "block of another type"
	}
}
