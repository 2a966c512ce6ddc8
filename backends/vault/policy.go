package vault

import "strings"

// Rights are what a policy grants beside signing.
type Rights struct {
	Create  bool // make new keys, as every rotation does, and list them
	Destroy bool // delete keys, which only a person's command does
}

// Policy returns the least policy, in HCL, under which a backend with the same
// mount and key prefix works. An empty mount means "transit".
func Policy(mount, prefix string, rights Rights) string {
	if mount = strings.Trim(mount, "/"); mount == "" {
		mount = "transit"
	}
	names := prefix + "zonemint-*"
	keys := `"read"`
	if rights.Create || rights.Destroy {
		keys += `, "update"`
	}
	if rights.Destroy {
		keys += `, "delete"`
	}
	var p strings.Builder
	rule := func(comment, path, capabilities, more string) {
		p.WriteString("# " + comment + "\npath \"" + path + "\" {\n  capabilities = [" + capabilities + "]\n" + more + "}\n\n")
	}
	rule("Sign with the keys of zonemint.", mount+"/sign/"+names, `"update"`, "")
	rule(keysComment(rights), mount+"/keys/"+names, keys, parameters(rights))
	if rights.Create {
		rule("List the names of keys, to find those that nobody knows any more.", mount+"/keys", `"list"`, "")
	}
	rule("Keep the token alive, and give it back. The policy \"default\" grants these too.", "auth/token/lookup-self", `"read"`, "")
	p.WriteString("path \"auth/token/renew-self\" {\n  capabilities = [\"update\"]\n}\n\n" +
		"path \"auth/token/revoke-self\" {\n  capabilities = [\"update\"]\n}\n")
	return p.String()
}

func keysComment(r Rights) string {
	switch {
	case r.Create && r.Destroy:
		return "Read public keys, make keys and delete them."
	case r.Create:
		return "Read public keys, and make keys."
	case r.Destroy:
		return "Read public keys, and delete keys."
	default:
		return "Read public keys."
	}
}

// parameters narrow what "update" means, which for the engine is also changing
// a key's configuration and importing one. Rotating a key, which has no
// parameters, remains possible; it changes nothing, since all signatures are
// made with version 1. (required_parameters would forbid it, and reading too.)
func parameters(r Rights) string {
	if r == (Rights{}) {
		return ""
	}
	allowed := ""
	if r.Create {
		allowed += "    \"type\" = [\"rsa-2048\", \"rsa-3072\", \"rsa-4096\", \"ecdsa-p256\", \"ecdsa-p384\", \"ed25519\"]\n" +
			"    \"exportable\" = [false]\n    \"allow_plaintext_backup\" = [false]\n"
	}
	if r.Destroy {
		allowed += "    \"deletion_allowed\" = [true]\n"
	}
	return "  allowed_parameters = {\n" + allowed + "  }\n"
}
