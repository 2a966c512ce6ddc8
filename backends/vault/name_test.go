package vault

import (
	"strings"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

func TestKeyNames(t *testing.T) {
	label := "zonemint-" + strings.Repeat("5", 26)
	for prefix, want := range map[string]string{"": "", "prod.": "prod.", "mesh-": "mesh-"} {
		b := &Backend{prefix: prefix}
		for _, alg := range signer.Algorithms() {
			spec := signer.Spec{Keyset: "dataplane/shop-eu", Serial: 12, Label: label, Algorithm: alg}
			name, err := b.keyName(spec)
			if err != nil || name != want+label+".dataplane_shop-eu.12."+alg.String() {
				t.Errorf("%q, %v", name, err)
			}
			if back, ok := b.parseName(name); !ok || back != spec {
				t.Errorf("%s is read as %+v, %v", name, back, ok)
			}
			if back, err := parseRef(newRef(name)); err != nil || back != name {
				t.Errorf("the reference %s: %q, %v", newRef(name), back, err)
			}
		}
	}
	b := &Backend{prefix: "prod."}
	for _, spec := range []signer.Spec{
		{Keyset: "zone", Serial: 1, Label: "zonemint-backup", Algorithm: signer.ES256},
		{Keyset: "zone_x", Serial: 1, Label: label, Algorithm: signer.ES256},
		{Keyset: "../zone", Serial: 1, Label: label, Algorithm: signer.ES256},
		{Keyset: "Zone", Serial: 1, Label: label, Algorithm: signer.ES256},
		{Keyset: "zone", Serial: 0, Label: label, Algorithm: signer.ES256},
	} {
		if name, err := b.keyName(spec); codeOf(err) != signer.Misconfigured {
			t.Errorf("%+v has the name %q, %v", spec, name, err)
		}
	}
	for _, name := range []string{
		label + ".zone.1.ES256", "dev." + label + ".zone.1.ES256", "prod.zonemint-backup", "prod." + label,
		"prod." + label + ".zone.01.ES256", "prod." + label + ".zone.1.RS256", "prod." + label + ".zone.1.HS256", "prod." + label + ".zone.1.ES256.x",
	} {
		if spec, ok := b.parseName(name); ok {
			t.Errorf("%s is read as %+v", name, spec)
		}
	}
}

// FuzzRef reads references and names: what is accepted is in the one form that is written.
func FuzzRef(f *testing.F) {
	label := "zonemint-" + strings.Repeat("5", 26)
	for _, seed := range []string{label + ".zone.1.ES256:1", "a:2", ":1", "a.:1", "a/b:1", "a:01", "x" + label + ".zone.1.EdDSA:1\n"} {
		f.Add([]byte(seed))
	}
	b := &Backend{}
	f.Fuzz(func(t *testing.T, ref []byte) {
		name, err := parseRef(ref)
		if err != nil {
			return
		}
		if string(newRef(name)) != string(ref) || strings.ContainsAny(name, "/?#%\n ") {
			t.Errorf("%q is read as %q", ref, name)
		}
		if spec, ok := b.parseName(name); ok {
			if again, err := b.keyName(spec); err != nil || again != name {
				t.Errorf("%q is read as %+v and written as %q, %v", name, spec, again, err)
			}
		}
	})
}
