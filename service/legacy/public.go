package legacy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
)

// PublicForms returns the forms in which people have a public key: PKIX and PKCS #1,
// each in DER, in PEM with and without its last line break, and in base64, and the
// bare numbers. None of them may be the secret of a key.
func PublicForms(key crypto.PublicKey) [][]byte {
	var forms [][]byte
	if der, err := x509.MarshalPKIXPublicKey(key); err == nil {
		forms = append(forms, written("PUBLIC KEY", der)...)
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		forms = append(forms, written("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(key))...)
		forms = append(forms, key.N.Bytes())
	case *ecdsa.PublicKey:
		if point, err := key.Bytes(); err == nil {
			forms = append(forms, point, point[1:])
		}
	case ed25519.PublicKey:
		forms = append(forms, key)
	}
	return forms
}

func written(kind string, der []byte) [][]byte {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	bare := strings.TrimSuffix(string(text), "\n")
	return [][]byte{
		der, text, []byte(bare), []byte(strings.ReplaceAll(string(text), "\n", "\r\n")),
		[]byte(base64.StdEncoding.EncodeToString(der)), []byte(base64.RawURLEncoding.EncodeToString(der)),
		[]byte(base64.StdEncoding.EncodeToString(text)),
	}
}
