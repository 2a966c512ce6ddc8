package controlplane_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/zonemint/zonemint/integration/controlplane"
)

// TestTheJudgeObjects makes every write that a control plane would choke on, and some
// that it takes.
func TestTheJudgeObjects(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	secret := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}))
	const key = "zone-token-signing-public-key-"
	for _, c := range []struct {
		mesh, name, data string
		good             bool
	}{
		{"", key + "zone-1-a", public, true},
		{"", "zone-token-revocations", "a", true},
		{"", "user-token-revocations", "a,b", true},
		{"", "dataplane-token-revocations-default", "a", true},
		{"default", "dataplane-token-revocations-default", "a", true},
		{"", "zone-token-signing-key-zone-1-a", public, false},
		{"", "zone-token-signing-key-1", secret, false},
		{"", key + "1", public, false},
		{"", key + "zone-1-a", secret, false},
		{"", key + "zone-1-a", "junk", false},
		{"", key + "zone-1-a", public + public, false},
		{"default", key + "zone-1-a", public, false},
		{"", "admin-user-token", "a", false},
		{"default", "dataplane-token-revocations-other", "a", false},
		{"", "zone-token-revocations", "", false},
		{"", "zone-token-revocations", "a,", false},
		{"", "zone-token-revocations", ",a", false},
		{"", "zone-token-revocations", "a, b", false},
		{"", "zone-token-revocations", "a\n", false},
		{"", "zone-token-revocations", "a,a", false},
	} {
		cp := controlplane.New("t", "default")
		path, body := "/global-secrets/"+c.name, map[string]any{"type": "GlobalSecret", "name": c.name, "data": []byte(c.data)}
		if c.mesh != "" {
			path = "/meshes/" + c.mesh + "/secrets/" + c.name
			body["type"], body["mesh"] = "Secret", c.mesh
		}
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest(http.MethodPut, path, bytes.NewReader(text))
		req.Header.Set("Authorization", "Bearer t")
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		cp.ServeHTTP(rec, req)
		if rec.Code != http.StatusCreated || (len(cp.Violations()) == 0) != c.good {
			t.Errorf("%s %s %.40q: status %d, violations %v", c.mesh, c.name, c.data, rec.Code, cp.Violations())
		}
	}
}
