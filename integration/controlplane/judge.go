package controlplane

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
)

const keyPrefix = "zone-token-signing-public-key-"

// judge says what is wrong with a write, "" if nothing is. It knows the rules of
// control planes by itself, and not from who writes.
func judge(ref Ref, data string) string {
	if fault := judgeName(ref); fault != "" {
		return fault
	}
	if strings.HasPrefix(ref.Name, keyPrefix) {
		return judgeKey(data)
	}
	return judgeList(data)
}

// judgeName says why nobody may write or delete a secret of that name.
func judgeName(ref Ref) string {
	kid, key := strings.CutPrefix(ref.Name, keyPrefix)
	mesh, dataplane := strings.CutPrefix(ref.Name, "dataplane-token-revocations-")
	switch {
	case !regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`).MatchString(ref.Name):
		return "the name is no subdomain"
	case key && ref.Mesh != "":
		return "a key in a mesh"
	case key && regexp.MustCompile(`^[0-9+-]*$`).MatchString(kid):
		return "the key ID is a number"
	case key:
		return ""
	case dataplane && (ref.Mesh == "" || ref.Mesh == mesh):
		return ""
	case ref == Ref{Name: "zone-token-revocations"}, ref == Ref{Name: "user-token-revocations"}:
		return ""
	default:
		return "zonemint has no business with it"
	}
}

func judgeKey(data string) string {
	block, rest := pem.Decode([]byte(data))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return "it is not one PEM block"
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if block.Type != "PUBLIC KEY" || err != nil {
		return fmt.Sprintf("it is a %q and not a public key", block.Type)
	}
	if k, ok := key.(*rsa.PublicKey); !ok || k.N.BitLen() < 2048 {
		return "it is not an RSA key of 2048 bits"
	}
	return ""
}

func judgeList(data string) string {
	seen := map[string]bool{}
	for id := range strings.SplitSeq(data, ",") {
		switch {
		case id == "":
			return "an empty entry in a list"
		case strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return "a space or control character in a list"
		case seen[id]:
			return "an entry that is there twice"
		}
		seen[id] = true
	}
	if len(data) > 1<<20 {
		return "the list is larger than 1 MiB"
	}
	return ""
}
