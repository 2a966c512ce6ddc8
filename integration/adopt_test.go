package integration

import (
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAKeyOfTheHSMIsAdopted makes a key with the HSM's own tools and lets it sign
// tokens.
func TestAKeyOfTheHSMIsAdopted(t *testing.T) {
	h := newHSM(t)
	in := installAdmin(t, newSQLite(t, t.TempDir()), h.settings())
	s := in.start(t)
	c := s.overConnect(t, in.admin)
	before := c.mustIssue(t, "before")

	pem := filepath.Join(h.dir, "ceremony.pem")
	run(t, "openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", pem).must(t)
	run(t, "softhsm2-util", "--import", pem, "--token", "zonemint", "--label", "ceremony", "--id", "c0ffee", "--pin", hsmPIN).must(t)
	at := []string{"--addr", "http://" + s.public, "--token-file", in.adminToken}
	rotate := append([]string{"key", "rotate", "zone", "--reason", "key ceremony"}, at...)

	o := zonemint(t, append(rotate, "--adopt", "pkcs11:object=nobody")...)
	if o.code == 0 || !strings.Contains(o.stderr, "adopt") {
		t.Errorf("a name without a key: exit code %d\n%s", o.code, o.stderr)
	}
	zonemint(t, append(rotate, "--adopt", "pkcs11:object=ceremony;id=%c0%ff%ee", "--plan")...).must(t)
	zonemint(t, append(rotate, "--adopt", "pkcs11:object=ceremony;id=%c0%ff%ee")...).must(t)
	eventually(t, 30*time.Second, "the adopted key is published and may sign", func() bool {
		return zonemint(t, append([]string{"key", "activate", "zone", "3", "--force"}, at...)...).code == 0
	})
	after := c.mustIssue(t, "after")
	header, err := base64.RawURLEncoding.DecodeString(strings.SplitN(after.token, ".", 2)[0])
	if err != nil || !strings.Contains(string(header), `"kid":"zone-3-`) {
		t.Errorf("after the adoption a token has the header %s (%v)", header, err)
	}
	wantValid(t, s.keys(t, "zone"), before, after)
	if shown := zonemint(t, append([]string{"key", "show", "zone", "3"}, at...)...).must(t); !strings.Contains(shown, "pkcs11:object=ceremony") {
		t.Errorf("it is shown as\n%s", shown)
	}
	s.stop(t)
	s = in.start(t) // which finds the key again by what is in the database
	wantValid(t, s.keys(t, "zone"), s.overConnect(t, in.admin).mustIssue(t, "again"))
}
