package gcpkms_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// With the permissions of a role, and none besides, what the role is for works and
// nothing else does.
func TestRoleIsEnoughAndNoMore(t *testing.T) {
	all := []string{
		"cloudkms.cryptoKeys.create", "cloudkms.cryptoKeys.get", "cloudkms.cryptoKeys.list", "cloudkms.cryptoKeys.update",
		"cloudkms.cryptoKeyVersions.create", "cloudkms.cryptoKeyVersions.get", "cloudkms.cryptoKeyVersions.list",
		"cloudkms.cryptoKeyVersions.destroy", "cloudkms.cryptoKeyVersions.useToSign", "cloudkms.cryptoKeyVersions.viewPublicKey",
	}
	for _, c := range []struct {
		create, destroy bool
		want            string
	}{
		{false, false, "create denied"}, {true, false, "create ok, find ok, public ok, sign ok, destroy denied"},
		{true, true, "create ok, find ok, public ok, sign ok, destroy ok"},
	} {
		role := gcpkms.Role(c.create, c.destroy)
		d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
		d.Deny(slices.DeleteFunc(slices.Clone(all), func(p string) bool { return strings.Contains(role, "- "+p+"\n") })...)
		b := open(t, settings(d))
		if outcome, _ := steps(t, b); outcome != c.want {
			t.Errorf("create %t, destroy %t: %s, want %s", c.create, c.destroy, outcome, c.want)
		}
		err := signer.List(t.Context(), b, func(signer.Labelled) error { return nil })
		if (err == nil) != c.create {
			t.Errorf("create %t: listing: %v", c.create, err)
		}
	}
}
