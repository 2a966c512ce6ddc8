package vault_test

import (
	"strings"
	"testing"

	"github.com/zonemint/zonemint/backends/vault"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// keyOf returns the name of the key behind a reference.
func keyOf(ref signer.Ref) string { return strings.TrimSuffix(string(ref), ":1") }

// TestConformance logs in with AppRole, under the policy that the package prints
// and no other.
func TestConformance(t *testing.T) {
	s := startDev(t)
	s.must(t, "POST", "sys/mounts/meshes/transit", map[string]any{"type": "transit"})
	roleID, secretFile, secret := s.appRole(t, vault.Policy("meshes/transit", "prod.", vault.Rights{Create: true, Destroy: true}), nil)
	p := startProxy(t, s.addr)
	o := vault.Options{Address: p.url(), Mount: "meshes/transit", KeyPrefix: "prod.", Auth: "approle", RoleID: roleID, SecretIDFile: secretFile}
	signertest.Run(t, signertest.Harness{
		Open:       func(tb testing.TB) signer.Backend { return open(tb, o) },
		UnknownRef: signer.Ref("prod." + signer.NewLabel() + ".zone.1.EdDSA:1"),
		Secrets:    []string{roleID, secret, s.root, "hvs.", "X-Vault-Token"},
		BreakKey: func(tb testing.TB, ref signer.Ref) {
			path := "meshes/transit/keys/" + keyOf(ref)
			kind := s.data(tb, "GET", path, nil)["type"]
			s.must(tb, "POST", path+"/config", map[string]any{"deletion_allowed": true})
			s.must(tb, "DELETE", path, nil)
			s.must(tb, "POST", path, map[string]any{"type": kind})
		},
		PlantForeign: func(tb testing.TB) signer.Ref {
			s.must(tb, "POST", "meshes/transit/keys/zonemint-backup", map[string]any{"type": "aes256-gcm96"})
			s.must(tb, "POST", "meshes/transit/keys/prod.zonemint-backup", map[string]any{"type": "ed25519"})
			return signer.Ref("prod.zonemint-backup:1")
		},
		Stall: func(testing.TB) func() { return p.stall() },
	})
}
