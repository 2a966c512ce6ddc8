package gcpkms

import "strings"

// Role returns the least custom role, in the YAML of "gcloud iam roles create --file",
// under which the backend works when the role is granted on its key ring: to sign, if
// create is set also to make keys and find them again, if destroy is set to schedule
// the destruction of their versions. See "Permissions and roles" of Cloud KMS.
func Role(create, destroy bool) string {
	permissions := []string{"cloudkms.cryptoKeyVersions.useToSign", "cloudkms.cryptoKeyVersions.viewPublicKey"}
	if create {
		permissions = append(permissions, "cloudkms.cryptoKeys.create", "cloudkms.cryptoKeys.list",
			"cloudkms.cryptoKeyVersions.create", "cloudkms.cryptoKeyVersions.get", "cloudkms.cryptoKeyVersions.list")
	}
	if destroy {
		permissions = append(permissions, "cloudkms.cryptoKeyVersions.destroy")
	}
	return "title: zonemint\ndescription: Signs the tokens of a mesh.\nstage: GA\nincludedPermissions:\n- " + strings.Join(permissions, "\n- ") + "\n"
}
