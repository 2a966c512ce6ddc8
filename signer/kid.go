package signer

import (
	"crypto"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Thumbprint returns the SHA-256 JWK thumbprint of a public key (RFC 7638) in
// lower-case hexadecimal.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	jwk := jose.JSONWebKey{Key: pub}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("thumbprint of a %T: %w", pub, err)
	}
	return hex.EncodeToString(sum), nil
}

// KID returns the key ID of a serial: the keyset's name with slashes turned to
// dashes, the serial, and the first 8 digits of the thumbprint, for example
// "dataplane-default-1-2c26b46b". It is a lower-case RFC 1123 name, because it
// becomes part of the name of a Kubernetes Secret, and it is never an integer,
// because Kuma takes an integer for one of its own serials.
func KID(keyset string, serial int, thumbprint string) string {
	return fmt.Sprintf("%s-%d-%s", strings.ReplaceAll(keyset, "/", "-"), serial, thumbprint[:8])
}
