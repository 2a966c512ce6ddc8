package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/zonemint/zonemint/integration/controlplane"
)

// What a global control plane of Kuma has by itself.
const (
	kumasKeyName = "zone-token-signing-key-1"
	kumasRevoked = "0d3ab1f0-5f4e-4a6b-9a5e-6b1d5b6a7c11"
)

// kumasOwn is the key that a control plane has made, and a token that it has signed.
type kumasOwn struct {
	pem   string
	token string
}

func newKumasOwn(t *testing.T) kumasOwn {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tk := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"Zone": "east", "Scope": []string{"ingress", "egress"}, "jti": uuid.NewString(),
		"exp": now.Add(24 * time.Hour).Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "iat": now.Add(-5 * time.Second).Unix(),
	})
	tk.Header["kid"] = "1"
	text, err := tk.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return kumasOwn{pem: string(pem.EncodeToMemory(block)), token: text}
}

// globalPlane is the API of a global control plane as kumactl sees it: beside its
// secrets it says what it is. People delete its own keys, which the judge of
// [controlplane.ControlPlane] would not have zonemint do.
type globalPlane struct {
	*controlplane.ControlPlane

	token string
}

// ServeHTTP implements [http.Handler].
func (g globalPlane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ref := controlplane.Ref{Name: strings.TrimPrefix(r.URL.Path, "/global-secrets/")}
	_, there := g.Secret(ref)
	person := strings.HasPrefix(r.UserAgent(), "kumactl/") && r.Header.Get("Authorization") == "Bearer "+g.token
	switch {
	case r.URL.Path == "/" && r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"hostname":"global","product":"Kuma","version":"2.14.3","instanceId":"global-1","clusterId":"a"}`)
	case r.Method == http.MethodDelete && there && person:
		g.Drop(ref)
		w.WriteHeader(http.StatusOK)
	default:
		g.ControlPlane.ServeHTTP(w, r)
	}
}

// kubeCluster is a Kubernetes cluster with namespaces, and with Secrets that are no
// business of control planes.
type kubeCluster struct {
	*controlplane.Cluster

	token string

	mu         sync.Mutex
	namespaces map[string]bool
}

func newKubeCluster(token string, namespaces ...string) *kubeCluster {
	c := &kubeCluster{Cluster: controlplane.NewCluster(token), token: token, namespaces: map[string]bool{}}
	for _, n := range namespaces {
		c.namespaces[n] = true
	}
	return c
}

// ServeHTTP implements [http.Handler].
func (c *kubeCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Authorization") != "Bearer "+c.token {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // api, v1, namespaces, NAME, secrets, NAME
	var s controlplane.CoreSecret
	switch {
	case len(path) == 3:
		c.createNamespace(w, r, body)
	case !c.namespaces[path[3]]:
		http.Error(w, "namespaces \""+path[3]+"\" not found", http.StatusNotFound)
	case len(path) == 4:
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodPost && json.Unmarshal(body, &s) == nil && s.Type == "Opaque":
		c.createOpaque(w, s)
	default:
		c.Cluster.ServeHTTP(w, r)
	}
}

func (c *kubeCluster) createNamespace(w http.ResponseWriter, r *http.Request, body []byte) {
	var n struct{ Metadata controlplane.Metadata }
	switch {
	case r.Method != http.MethodPost || json.Unmarshal(body, &n) != nil || n.Metadata.Name == "":
		http.Error(w, "BadRequest", http.StatusBadRequest)
	case c.namespaces[n.Metadata.Name]:
		http.Error(w, "AlreadyExists", http.StatusConflict)
	default:
		c.namespaces[n.Metadata.Name] = true
		w.WriteHeader(http.StatusCreated)
	}
}

func (c *kubeCluster) createOpaque(w http.ResponseWriter, s controlplane.CoreSecret) {
	if _, there := c.Secret(s.Metadata.Namespace, s.Metadata.Name); there {
		http.Error(w, "AlreadyExists", http.StatusConflict)
		return
	}
	c.Set(s)
	w.WriteHeader(http.StatusCreated)
}

// kubeconfig serves clusters, and returns the kubeconfig of a user who has a context
// for each, under its name.
func kubeconfig(t *testing.T, of map[string]*kubeCluster) string {
	t.Helper()
	type object = map[string]any
	var clusters, users, contexts []object
	for _, name := range slices.Sorted(maps.Keys(of)) {
		srv := httptest.NewTLSServer(of[name])
		t.Cleanup(srv.Close)
		authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
		clusters = append(clusters, object{"name": name, "cluster": object{"server": srv.URL, "certificate-authority-data": authority}})
		users = append(users, object{"name": name, "user": object{"token": of[name].token}})
		contexts = append(contexts, object{"name": name, "context": object{"cluster": name, "user": name}})
	}
	text, err := json.Marshal(object{"apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": users, "contexts": contexts})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
