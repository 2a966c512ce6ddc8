package vault_test

import (
	"strings"
	"testing"

	"github.com/zonemint/zonemint/backends/vault"
	"github.com/zonemint/zonemint/signer"
)

// TestPolicies tries everything under each policy that is printed.
func TestPolicies(t *testing.T) {
	s := startDev(t)
	admin := open(t, rooted(t, s, ""))
	for name, rights := range map[string]vault.Rights{
		"signs": {}, "creates": {Create: true}, "destroys": {Destroy: true}, "all": {Create: true, Destroy: true},
	} {
		t.Run(name, func(t *testing.T) {
			roleID, secretFile, _ := s.appRole(t, vault.Policy("transit", "", rights), nil)
			b := open(t, vault.Options{Address: s.url(), Auth: "approle", RoleID: roleID, SecretIDFile: secretFile})
			_, sp, ref := newKey(t, admin, signer.ES256)
			may := func(what string, allowed bool, err error) {
				t.Helper()
				if allowed && err != nil || !allowed && signer.CodeOf(err) != signer.Denied {
					t.Errorf("%s, which the policy allows: %v: %v", what, allowed, err)
				}
			}
			key, err := signer.Open(t.Context(), b, sp, ref, nil)
			may("reading", true, err)
			may("signing", true, sign(t, key))
			_, err = signer.Create(t.Context(), b, signer.Spec{Keyset: "zone", Serial: 2, Label: signer.NewLabel(), Algorithm: signer.EdDSA})
			may("creating", rights.Create, err)
			may("listing", rights.Create, signer.List(t.Context(), b, func(signer.Labelled) error { return nil }))
			may("destroying", rights.Destroy, signer.Destroy(t.Context(), b, sp, ref))
			s.checkForbidden(t, roleID, secretFile, keyOf(ref))
		})
	}
}

// checkForbidden asks for what no policy of zonemint allows.
func (s *server) checkForbidden(t *testing.T, roleID, secretFile, key string) {
	t.Helper()
	s.must(t, "POST", "transit/keys/zonemint-other", map[string]any{"type": "ecdsa-p256"})
	s.must(t, "POST", "transit/keys/others", map[string]any{"type": "ecdsa-p256"})
	said := s.must(t, "POST", "auth/approle/login", map[string]any{"role_id": roleID, "secret_id": strings.TrimSpace(readFile(t, secretFile))})
	token := said["auth"].(map[string]any)["client_token"].(string)
	for _, try := range []struct {
		method, path string
		body         map[string]any
	}{
		{"GET", "transit/export/signing-key/zonemint-other", nil},
		{"GET", "transit/backup/zonemint-other", nil},
		{"POST", "transit/keys/zonemint-other/config", map[string]any{"exportable": true}},
		{"POST", "transit/keys/zonemint-other/config", map[string]any{"allow_plaintext_backup": true}},
		{"POST", "transit/keys/zonemint-other/config", map[string]any{"min_decryption_version": 1}},
		{"POST", "transit/keys/zonemint-other/trim", map[string]any{"min_available_version": 1}},
		{"POST", "transit/keys/zonemint-new/import", map[string]any{"ciphertext": "x", "type": "ed25519"}},
		{"POST", "transit/keys/zonemint-exportable", map[string]any{"type": "ed25519", "exportable": true}},
		{"POST", "transit/keys/zonemint-symmetric", map[string]any{"type": "aes256-gcm96"}},
		{"POST", "transit/sign/others", map[string]any{"input": "eA=="}},
		{"GET", "transit/keys/others", nil},
		{"DELETE", "transit/keys/others", nil},
		{"POST", "transit/encrypt/zonemint-other", map[string]any{"plaintext": "eA=="}},
		{"GET", "sys/mounts", nil},
	} {
		status, _, err := s.tryAs(token, try.method, try.path, try.body)
		if err != nil || status != 403 {
			t.Errorf("%s %s %v: %d, %v, want 403", try.method, try.path, try.body, status, err)
		}
	}
}
