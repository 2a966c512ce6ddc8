package pkcs11

import (
	"net/url"
	"strings"

	"github.com/zonemint/zonemint/signer"
)

// parseName reads what a key to adopt is called: a PKCS#11 URI (RFC 7512) with the
// attributes id, object or both, such as "pkcs11:id=%01%a2" or
// "pkcs11:object=mesh-2026". The token is the backend's own, so nothing else may
// be in it.
func parseName(name string) (reference, error) {
	rest, ok := strings.CutPrefix(name, "pkcs11:")
	if !ok {
		return reference{}, failf(signer.Misconfigured, `a PKCS#11 key is named by a URI (RFC 7512) such as "pkcs11:object=NAME" or "pkcs11:id=%%01%%a2", not by %q`, name)
	}
	if strings.Contains(rest, "?") { // the query may hold a PIN, so it is not quoted
		return reference{}, failf(signer.Misconfigured, "the PKCS#11 URI of a key has no query: the PIN is in the backend's settings")
	}
	var r reference
	seen := map[string]bool{}
	for attribute := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(attribute, "=")
		text, err := url.PathUnescape(value)
		if err != nil || text == "" || seen[key] {
			return reference{}, failf(signer.Misconfigured, "the PKCS#11 URI %q is not well-formed at %q", name, attribute)
		}
		seen[key] = true
		switch key {
		case "id":
			r.id = []byte(text)
		case "object":
			r.label = text
		default:
			return reference{}, failf(signer.Misconfigured, "the PKCS#11 URI %q names more than id and object: the token is the backend's own", name)
		}
	}
	return r, nil
}
