package vault

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/zonemint/zonemint/signer"
)

// version is the one that every key has from its creation, and signs with.
const version = 1

// keyName is the name of the transit key of spec, for example
//
//	zonemint-5x6b…q.dataplane_default.3.RS256-2048
//
// It holds all of spec, so that a reference opens for no other, so that a
// listing needs no further call, and so that whoever looks into the engine sees
// what the key is for. A slash, of which a keyset's name has at most one, would
// end the name and becomes '_', which a keyset's name does not have.
func (b *Backend) keyName(spec signer.Spec) (string, error) {
	keyset := strings.ReplaceAll(spec.Keyset, "/", "_")
	if !signer.IsLabel(spec.Label) || !isKeyset(keyset) || strings.Contains(spec.Keyset, "_") || spec.Serial < 1 {
		return "", fail(signer.Misconfigured, "keyset %s, serial %d, label %s: this makes no name for a key in vault",
			strconv.Quote(spec.Keyset), spec.Serial, strconv.Quote(spec.Label))
	}
	return fmt.Sprintf("%s%s.%s.%d.%s", b.prefix, spec.Label, keyset, spec.Serial, spec.Algorithm), nil
}

func isKeyset(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// parseName undoes keyName.
func (b *Backend) parseName(name string) (signer.Spec, bool) {
	rest, ok := strings.CutPrefix(name, b.prefix)
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 4 {
		return signer.Spec{}, false
	}
	serial, err := strconv.Atoi(parts[2])
	if err != nil {
		return signer.Spec{}, false
	}
	alg, err := signer.Parse(parts[3])
	if err != nil {
		return signer.Spec{}, false
	}
	spec := signer.Spec{Keyset: strings.ReplaceAll(parts[1], "_", "/"), Serial: serial, Label: parts[0], Algorithm: alg}
	again, err := b.keyName(spec)
	return spec, err == nil && again == name
}

// newRef makes the reference of a key: its name and its version. Where the
// engine is mounted is not part of it, since that can be moved; whether it is
// the right one shows when signatures are checked with the public key.
func newRef(name string) signer.Ref { return fmt.Appendf(nil, "%s:%d", name, version) }

// parseRef reads a reference strictly.
func parseRef(ref signer.Ref) (name string, err error) {
	m := regexp.MustCompile(`^([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?):1$`).FindSubmatch(ref)
	if m == nil || len(ref) > 512 {
		return "", fail(signer.Corrupt, "this is not a reference to a key in vault")
	}
	return string(m[1]), nil
}

// nameFor returns the key's name if ref is a reference to the key of spec. A
// backend that is asked for another one does not have it.
func (b *Backend) nameFor(spec signer.Spec, ref signer.Ref) (string, error) {
	name, err := parseRef(ref)
	if err != nil {
		return "", err
	}
	want, err := b.keyName(spec)
	if err != nil {
		return "", err
	}
	if name != want {
		return "", fail(signer.NotFound, "the reference is to the key %s, and this is %s", name, want)
	}
	return name, nil
}
