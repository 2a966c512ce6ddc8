package gcpkms

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/zonemint/zonemint/signer"
)

const (
	ringForm    = `projects/[a-z0-9][a-z0-9.:-]*/locations/[a-z0-9-]+/keyRings/[a-zA-Z0-9_-]{1,63}`
	versionForm = `(` + ringForm + `/cryptoKeys/([a-zA-Z0-9_-]{1,63}))/cryptoKeyVersions/([1-9][0-9]{0,9})`
	bindingSize = 16 // hex digits in an ID that bind it to keyset, serial and algorithm
)

// The labels of a key, for people who look at it in a console, and for listings.
const (
	labelLabel     = "zonemint-label"
	labelKeyset    = "zonemint-keyset"
	labelSerial    = "zonemint-serial"
	labelAlgorithm = "zonemint-algorithm"
)

func isRing(name string) bool { return regexp.MustCompile(`^` + ringForm + `$`).MatchString(name) }

// keyID is the ID of the key of spec, for example
//
//	zonemint-5x6b…q-0c4f2d9be1a7735f
//
// which has at most 63 characters ("CryptoKeyId" in the API's reference).
func keyID(spec signer.Spec) (string, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s", spec.Keyset, spec.Serial, spec.Algorithm))
	id := spec.Label + "-" + hex.EncodeToString(sum[:])[:bindingSize]
	if !signer.IsLabel(spec.Label) || spec.Validate() != nil || len(id) > 63 {
		return "", fail(signer.Misconfigured, "keyset %q, serial %d, label %q: this makes no ID of a key in cloud kms", spec.Keyset, spec.Serial, spec.Label)
	}
	return id, nil
}

// labelOf returns the label in the ID of a key of zonemint's.
func labelOf(id string) (string, bool) {
	at := strings.LastIndexByte(id, '-')
	if at < 0 || !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(id[at+1:]) {
		return "", false
	}
	return id[:at], signer.IsLabel(id[:at])
}

// labels are those of the key of spec. A keyset whose name is no value of a label
// ("Labeling keys") is left out: the ID says enough.
func labels(spec signer.Spec) map[string]string {
	set := map[string]string{
		labelLabel: spec.Label, labelSerial: strconv.Itoa(spec.Serial), labelAlgorithm: strings.ToLower(spec.Algorithm.String()),
	}
	keyset := strings.ReplaceAll(spec.Keyset, "/", "_")
	if regexp.MustCompile(`^[a-z0-9_-]{1,63}$`).MatchString(keyset) {
		set[labelKeyset] = keyset
	}
	return set
}

// specOf reads what the labels of a key say of it, and whether that is true.
func specOf(key *kmspb.CryptoKey, id, label string) (signer.Spec, bool) {
	said := key.GetLabels()
	serial, _ := strconv.Atoi(said[labelSerial])
	spec := signer.Spec{Keyset: strings.ReplaceAll(said[labelKeyset], "_", "/"), Serial: serial, Label: label}
	for _, alg := range algorithms() {
		if algorithmFor(alg) == key.GetVersionTemplate().GetAlgorithm() {
			spec.Algorithm = alg
		}
	}
	want, err := keyID(spec)
	return spec, err == nil && want == id
}

// parseVersion reads the full name of a version.
func parseVersion(name string) (key, id string, ok bool) {
	m := regexp.MustCompile(`^` + versionForm + `$`).FindStringSubmatch(name)
	if m == nil || len(name) > 512 {
		return "", "", false
	}
	return m[1], m[2], true
}

// adoptedRef is the reference of a key that was taken over: the name of its version,
// and the spec that it is for, so that it opens for no other. Its ID says nothing of
// that. A key of zonemint's own is referred to by the name alone.
func adoptedRef(spec signer.Spec, version string) signer.Ref {
	return fmt.Appendf(nil, "%s %s %d %s %s", spec.Label, spec.Keyset, spec.Serial, spec.Algorithm, version)
}

// versionFor returns the version that ref names, if it is of the key of spec: by its
// ID, or because it was taken over for that. A reference says where
// the key is, so those of another key ring than the configured one still work.
func versionFor(spec signer.Spec, ref signer.Ref) (string, error) {
	at := strings.LastIndexByte(string(ref), ' ')
	name := string(ref)[at+1:]
	_, id, ok := parseVersion(name)
	_, ours := labelOf(id)
	if !ok || ours == (at >= 0) || len(ref) > 1024 {
		return "", fail(signer.Corrupt, "this is not a reference to a key in cloud kms")
	}
	if !ours {
		if !signer.SameRef(ref, adoptedRef(spec, name)) {
			return "", fail(signer.NotFound, "the reference to %s is not that of serial %d of keyset %s, %s, label %s",
				name, spec.Serial, spec.Keyset, spec.Algorithm, spec.Label)
		}
		return name, nil
	}
	want, err := keyID(spec)
	if err != nil {
		return "", err
	}
	if id != want {
		return "", fail(signer.NotFound, "the reference is to the key %s, and this is %s", id, want)
	}
	return name, nil
}

// numberOf returns the number in the name of a version.
func numberOf(name string) int {
	n, _ := strconv.Atoi(name[strings.LastIndexByte(name, '/')+1:])
	return n
}
