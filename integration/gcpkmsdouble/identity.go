package gcpkmsdouble

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/metadata"
)

// account is the service account whose credential a server with TLS wants.
const account = "zonemint@zonemint-test.iam.gserviceaccount.com"

// identity is who a server with TLS is and whom it lets in.
type identity struct {
	certificate tls.Certificate
	ca          []byte
	key         *rsa.PrivateKey // of the service account
}

func newIdentity() (*identity, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gcpkmsdouble"}, IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return &identity{
		certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
		ca:          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:         key,
	}, nil
}

// CA returns the certificate, in PEM, that vouches for a server with TLS.
func (s *Server) CA() []byte { return s.tls.ca }

// Credentials returns the file, in JSON, of the service account that a server with TLS
// lets in.
func (s *Server) Credentials() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.tls.key)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{ //nolint:gosec // made for this server
		"type": "service_account", "project_id": "zonemint-test", "private_key_id": "1", "client_email": account, "client_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_uri":   "https://127.0.0.1:1/token",
	})
}

// Issue returns an access token of the service account, as a metadata server or a token
// server hands them out, which a server with TLS lets in until its Close.
func (s *Server) Issue() string {
	token := "ya29.c." + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued[token] = true
	return token
}

// authenticate checks the credential that a request comes with: a token that was issued, or
// a JWT that the service account has signed for itself, for the scope of the API or for
// the service. In plain text whoever sends a credential gives it away.
func (s *Server) authenticate(ctx context.Context, op string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	sent := md.Get("authorization")
	if s.tls == nil {
		if len(sent) > 0 {
			return unauthenticated("CREDENTIALS_IN_PLAIN_TEXT", op)
		}
		return nil
	}
	if len(sent) != 1 {
		return unauthenticated("CREDENTIALS_MISSING", op)
	}
	token, ok := strings.CutPrefix(sent[0], "Bearer ")
	s.mu.Lock()
	issued := s.issued[token]
	s.mu.Unlock()
	if ok && issued {
		return nil
	}
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return s.tls.key.Public(), nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(account), jwt.WithSubject(account), jwt.WithExpirationRequired())
	scope, _ := claims["scope"].(string)
	audience, _ := claims["aud"].(string)
	scoped := strings.Contains(scope, "https://www.googleapis.com/auth/cloudkms") || strings.Contains(scope, "https://www.googleapis.com/auth/cloud-platform")
	if !ok || err != nil || !scoped && audience != "https://cloudkms.googleapis.com/" {
		return unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED", op)
	}
	return nil
}
