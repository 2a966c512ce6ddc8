package pkcs11

import (
	"bytes"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

func TestReferencesAreReadAsTheyWereWritten(t *testing.T) {
	for _, r := range []reference{
		{bytes.Repeat([]byte{0xab}, 16), signer.NewLabel()},
		{[]byte{0}, ""},
		{[]byte{1, 2}, "a label: of another tool"},
		{bytes.Repeat([]byte{7}, maxID), strings.Repeat("ü", maxLabel/2)},
	} {
		got, err := parseRef(r.encode())
		if err != nil || !bytes.Equal(got.id, r.id) || got.label != r.label {
			t.Errorf("%q is read as %+v: %v", r.encode(), got, err)
		}
	}
}

func TestWhatIsNoReferenceIsCorrupt(t *testing.T) {
	for _, text := range []string{
		"", "pkcs11:", "pkcs11:v1:", "pkcs11:v1::label", "pkcs11:v1:00", "pkcs11:v1:0:label", "pkcs11:v1:AB:label",
		"pkcs11:v1:xy:label", "pkcs11:v2:00:label", " pkcs11:v1:00:label", "pkcs11:v1:00:\xff",
		"pkcs11:v1:" + strings.Repeat("00", maxID+1) + ":label", "pkcs11:v1:00:" + strings.Repeat("l", maxLabel+1),
	} {
		_, err := parseRef(signer.Ref(text))
		wantCode(t, text, err, signer.Corrupt)
	}
}

func TestAReferenceBelongsToTheSpecOfItsLabel(t *testing.T) {
	spec := signer.Spec{Keyset: "zone", Serial: 1, Label: signer.NewLabel(), Algorithm: signer.RS256}
	wantCode(t, "another label", reference{[]byte{1}, signer.NewLabel()}.of(spec), signer.Corrupt)
	for _, label := range []string{spec.Label, "adopted", ""} {
		if err := (reference{[]byte{1}, label}).of(spec); err != nil {
			t.Errorf("%q: %v", label, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add([]byte("pkcs11:v1:00ff:label"))
	f.Add([]byte("pkcs11:v1:00FF::"))
	f.Fuzz(func(t *testing.T, ref []byte) {
		if r, err := parseRef(ref); err == nil && !bytes.Equal(r.encode(), ref) {
			t.Errorf("%q is read and written as %q", ref, r.encode())
		}
	})
}
