package gcpkmsdouble

import (
	"crypto/x509"
	"encoding/json"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// With TLS only the service account gets in, for this API, while its token lasts.
func TestWantsACredential(t *testing.T) {
	s := Start(t, Options{TLS: true})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := client{kmspb.NewKeyManagementServiceClient(conn), t}

	const me, scope = "zonemint@zonemint-test.iam.gserviceaccount.com", "https://www.googleapis.com/auth/cloudkms"
	hour := time.Now().Add(time.Hour).Unix()
	for name, test := range map[string]struct {
		claims jwt.MapClaims
		code   codes.Code
	}{
		"right":          {jwt.MapClaims{"iss": me, "sub": me, "exp": hour, "scope": scope}, codes.OK},
		"by audience":    {jwt.MapClaims{"iss": me, "sub": me, "exp": hour, "aud": "https://cloudkms.googleapis.com/"}, codes.OK},
		"expired":        {jwt.MapClaims{"iss": me, "sub": me, "exp": hour - 7200, "scope": scope}, codes.Unauthenticated},
		"for ever":       {jwt.MapClaims{"iss": me, "sub": me, "scope": scope}, codes.Unauthenticated},
		"somebody else":  {jwt.MapClaims{"iss": "x", "sub": "x", "exp": hour, "scope": scope}, codes.Unauthenticated},
		"another API":    {jwt.MapClaims{"iss": me, "sub": me, "exp": hour, "aud": "https://storage.googleapis.com/"}, codes.Unauthenticated},
		"for no purpose": {jwt.MapClaims{"iss": me, "sub": me, "exp": hour}, codes.Unauthenticated},
	} {
		ctx := metadata.AppendToOutgoingContext(c.to("parent", ring), "authorization", "Bearer "+signedBy(t, s, test.claims))
		_, err := c.ListCryptoKeys(ctx, &kmspb.ListCryptoKeysRequest{Parent: ring})
		want(t, name, err, test.code, "")
	}
	issued := s.Issue()
	for token, code := range map[string]codes.Code{issued: codes.OK, issued + "x": codes.Unauthenticated, Start(t, Options{TLS: true}).Issue(): codes.Unauthenticated} {
		ctx := metadata.AppendToOutgoingContext(c.to("parent", ring), "authorization", "Bearer "+token)
		_, err := c.ListCryptoKeys(ctx, &kmspb.ListCryptoKeysRequest{Parent: ring})
		want(t, "issued", err, code, "")
	}
	_, err = c.ListCryptoKeys(c.to("parent", ring), &kmspb.ListCryptoKeysRequest{Parent: ring})
	want(t, "without", err, codes.Unauthenticated, "")
	other := Start(t, Options{TLS: true})
	ctx := metadata.AppendToOutgoingContext(c.to("parent", ring), "authorization",
		"Bearer "+signedBy(t, other, jwt.MapClaims{"iss": me, "sub": me, "exp": hour, "scope": scope}))
	_, err = c.ListCryptoKeys(ctx, &kmspb.ListCryptoKeysRequest{Parent: ring})
	want(t, "signed by another key", err, codes.Unauthenticated, "")
}

// signedBy signs claims with the key of a server's service account.
func signedBy(t *testing.T, s *Server, claims jwt.MapClaims) string {
	t.Helper()
	text, err := s.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Key string `json:"private_key"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(file.Key))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
