package vault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zonemint/zonemint/backends/vault"
	"github.com/zonemint/zonemint/signer"
)

func readFile(tb testing.TB, file string) string {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// works makes a key and signs with it.
func works(t *testing.T, o vault.Options) *vault.Backend {
	t.Helper()
	b := open(t, o)
	key, _, _ := newKey(t, b, signer.ES256)
	if err := sign(t, key); err != nil {
		t.Error(err)
	}
	return b
}

func TestTokenFromEnvironment(t *testing.T) {
	s := startDev(t)
	t.Setenv("ZONEMINT_TEST_TOKEN", s.root)
	t.Setenv("VAULT_TOKEN", "not this one")
	t.Setenv("VAULT_NAMESPACE", "nor this")
	works(t, vault.Options{Address: s.url(), Auth: "token", TokenEnv: "ZONEMINT_TEST_TOKEN"})
}

// TestWrongSecretID is denied, and a file that is not there is a wrong setting.
func TestWrongSecretID(t *testing.T) {
	s := startDev(t)
	roleID, secretFile, _ := s.appRole(t, vault.Policy("", "", vault.Rights{}), nil)
	for file, want := range map[string]signer.Code{
		writeFile(t, "00000000-0000-0000-0000-000000000000"): signer.Denied,
		filepath.Join(t.TempDir(), "none"):                   signer.Misconfigured,
		writeFile(t, ""):                                     signer.Misconfigured,
	} {
		b := open(t, vault.Options{Address: s.url(), Auth: "approle", RoleID: roleID, SecretIDFile: file})
		if _, err := b.Find(t.Context(), spec(signer.ES256)); b.Code(err) != want {
			t.Errorf("%v: code %q, want %q", err, b.Code(err), want)
		}
	}
	b := open(t, vault.Options{Address: s.url(), Auth: "approle", AuthMount: "nowhere", RoleID: roleID, SecretIDFile: secretFile})
	if _, err := b.Find(t.Context(), spec(signer.ES256)); b.Code(err) != signer.Misconfigured && b.Code(err) != signer.Denied {
		t.Errorf("no such mount: %v", err)
	}
}

// TestClosingGivesTheTokenBack looks for tokens that were left over.
func TestClosingGivesTheTokenBack(t *testing.T) {
	s := startDev(t)
	roleID, secretFile, _ := s.appRole(t, vault.Policy("", "", vault.Rights{Create: true}), nil)
	left := 0
	for range 3 { // Close has a second, which a busy machine may take for something else
		b := works(t, vault.Options{Address: s.url(), Auth: "approle", RoleID: roleID, SecretIDFile: secretFile})
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if left = s.revokeAppRoleTokens(t); left == 0 {
			return
		}
	}
	t.Errorf("%d tokens were left over", left)
}

// TestBatchTokens cannot be renewed or given back.
func TestBatchTokens(t *testing.T) {
	s := startDev(t)
	roleID, secretFile, _ := s.appRole(t, vault.Policy("", "", vault.Rights{Create: true}), map[string]any{"token_type": "batch", "token_ttl": "2s"})
	b := works(t, vault.Options{Address: s.url(), Auth: "approle", RoleID: roleID, SecretIDFile: secretFile})
	for began := time.Now(); b.Stats().Logins < 2; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("%+v", b.Stats())
		}
	}
	if st := b.Stats(); st.Renewals+st.RenewalFailures != 0 {
		t.Errorf("%+v", st)
	}
}

func newECKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func pemOf(tb testing.TB, kind string, der []byte, err error) string {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func identityToken(tb testing.TB, key *ecdsa.PrivateKey, claims jwt.MapClaims) string {
	tb.Helper()
	now := time.Now()
	claims["iat"], claims["nbf"], claims["exp"] = now.Add(-time.Minute).Unix(), now.Add(-time.Minute).Unix(), now.Add(time.Hour).Unix()
	text, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestJWT(t *testing.T) {
	s := startDev(t)
	key := newECKey(t)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	s.must(t, "POST", "sys/policies/acl/zonemint", map[string]any{"policy": vault.Policy("", "", vault.Rights{Create: true})})
	s.must(t, "POST", "sys/auth/pods", map[string]any{"type": "jwt"})
	s.must(t, "POST", "auth/pods/config", map[string]any{"jwt_validation_pubkeys": []string{pemOf(t, "PUBLIC KEY", der, err)}})
	s.must(t, "POST", "auth/pods/role/zonemint", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_policies": []string{"zonemint"}, "token_ttl": "1h",
	})
	good := writeFile(t, identityToken(t, key, jwt.MapClaims{"sub": "zonemint", "aud": "vault"}))
	works(t, vault.Options{Address: s.url(), Auth: "jwt", AuthMount: "pods", Role: "zonemint", JWTFile: good})

	text := identityToken(t, key, jwt.MapClaims{"sub": "zonemint", "aud": "another"})
	b := open(t, vault.Options{Address: s.url(), Auth: "jwt", AuthMount: "pods", Role: "zonemint", JWTFile: writeFile(t, text)})
	if _, err := b.Find(t.Context(), spec(signer.ES256)); b.Code(err) != signer.Denied {
		t.Errorf("for another audience: %v", err)
	}
}

// TestKubernetes has a double of the Kubernetes API, of which Vault asks whose
// token it is.
func TestKubernetes(t *testing.T) {
	s := startDev(t)
	api := startDouble(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": map[string]any{"authenticated": true, "audiences": []string{"vault"}, "user": map[string]any{
				"username": "system:serviceaccount:mesh:zonemint", "uid": "1", "groups": []string{"system:serviceaccounts"},
			}},
		})
	})
	s.must(t, "POST", "sys/policies/acl/zonemint", map[string]any{"policy": vault.Policy("", "", vault.Rights{Create: true})})
	s.must(t, "POST", "sys/auth/kubernetes", map[string]any{"type": "kubernetes"})
	s.must(t, "POST", "auth/kubernetes/config", map[string]any{
		"kubernetes_host": api.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": identityToken(t, newECKey(t), jwt.MapClaims{"sub": "reviewer"}),
	})
	s.must(t, "POST", "auth/kubernetes/role/zonemint", map[string]any{
		"bound_service_account_names": []string{"zonemint"}, "bound_service_account_namespaces": []string{"mesh"},
		"audience": "vault", "token_policies": []string{"zonemint"}, "token_ttl": "1h",
	})
	pod := identityToken(t, newECKey(t), jwt.MapClaims{"iss": "kubernetes/serviceaccount", "aud": []string{"vault"}, "sub": "system:serviceaccount:mesh:zonemint",
		"kubernetes.io": map[string]any{"namespace": "mesh", "serviceaccount": map[string]any{"name": "zonemint", "uid": "1"}}})
	works(t, vault.Options{Address: s.url(), Auth: "kubernetes", Role: "zonemint", JWTFile: writeFile(t, pod)})
}

// TestAgent has somebody else add the token, on a socket too.
func TestAgent(t *testing.T) {
	s := startDev(t)
	target, _ := url.Parse(s.url())
	agent := &http.Server{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		if r.In.Header.Get("X-Vault-Request") != "true" || r.In.Header.Get("X-Vault-Token") != "" {
			t.Errorf("agents refuse a request with %v", r.In.Header)
		}
		r.Out.Header.Set("X-Vault-Token", s.root)
	}}}
	t.Cleanup(func() { _ = agent.Close() })
	socket := filepath.Join(t.TempDir(), "agent.sock")
	for network, address := range map[string]string{"unix": socket, "tcp": "127.0.0.1:0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = agent.Serve(l) }()
		scheme := map[string]string{"unix": "unix://", "tcp": "http://"}[network]
		works(t, vault.Options{Address: scheme + l.Addr().String(), Auth: "agent"})
	}
}

// certificate makes one, of an authority if nobody is to sign it.
func certificate(tb testing.TB, name string, signedBy *x509.Certificate, with *ecdsa.PrivateKey) (certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	tb.Helper()
	key = newECKey(tb)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"vault.internal"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if signedBy == nil {
		signedBy, with = template, key
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		template.ExtKeyUsage = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signedBy, &key.PublicKey, with)
	certFile = writeFile(tb, pemOf(tb, "CERTIFICATE", der, err))
	if cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	return certFile, writeFile(tb, pemOf(tb, "PRIVATE KEY", keyDER, err)), cert, key
}

// TestCertificates logs in with a client certificate to a server with TLS.
func TestCertificates(t *testing.T) {
	caFile, _, ca, caKey := certificate(t, "authority", nil, nil)
	serverCert, serverKey, _, _ := certificate(t, "vault", ca, caKey)
	clientCert, clientKey, _, _ := certificate(t, "zonemint", ca, caKey)
	otherCA, _, _, _ := certificate(t, "another authority", nil, nil)
	s := startDurable(t)
	tls := freeAddress(t)
	s.kill(t)
	s.edit(t, "listener", []any{
		map[string]any{"tcp": map[string]any{"address": s.addr, "tls_disable": true}},
		map[string]any{"tcp": map[string]any{"address": tls, "tls_cert_file": serverCert, "tls_key_file": serverKey}},
	})
	s.start(t)
	s.open(t)
	s.must(t, "POST", "sys/policies/acl/zonemint", map[string]any{"policy": vault.Policy("", "", vault.Rights{Create: true})})
	s.must(t, "POST", "sys/auth/cert", map[string]any{"type": "cert"})
	s.must(t, "POST", "auth/cert/certs/zonemint", map[string]any{"certificate": readFile(t, caFile), "allowed_common_names": "zonemint", "token_policies": "zonemint"})

	good := vault.Options{Address: "https://" + tls, CAFile: caFile, CertFile: clientCert, KeyFile: clientKey, Auth: "cert", Role: "zonemint"}
	works(t, good)
	named := good
	named.ServerName = "vault.internal"
	works(t, named)
	for name, tc := range map[string]struct {
		change func(*vault.Options)
		want   signer.Code
	}{
		"another authority": {func(o *vault.Options) { o.CAFile = otherCA }, signer.Misconfigured},
		"another name":      {func(o *vault.Options) { o.ServerName = "vault.elsewhere" }, signer.Misconfigured},
		"another client":    {func(o *vault.Options) { o.CertFile, o.KeyFile = serverCert, serverKey }, signer.Denied},
		"plain HTTP":        {func(o *vault.Options) { o.Address = "https://" + s.addr }, signer.Misconfigured},
	} {
		o := good
		tc.change(&o)
		b := open(t, o)
		if _, err := b.Find(t.Context(), spec(signer.ES256)); b.Code(err) != tc.want {
			t.Errorf("%s: %v: code %q, want %q", name, err, b.Code(err), tc.want)
		}
	}
}

// edit changes one part of the configuration of a server that does not run.
func (s *server) edit(tb testing.TB, part string, value any) {
	tb.Helper()
	var config map[string]any
	if err := json.Unmarshal([]byte(readFile(tb, s.config)), &config); err != nil {
		tb.Fatal(err)
	}
	config[part] = value
	text, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(s.config, text, 0o600)
	}
	if err != nil {
		tb.Fatal(fmt.Errorf("edit the configuration: %w", err))
	}
}
