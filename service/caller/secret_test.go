package caller

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
)

func TestSecretRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		text, hash := newSecret()
		if seen[text] {
			t.Fatal("the same secret twice")
		}
		seen[text] = true
		got, err := hashOf(text)
		if err != nil || !bytes.Equal(got[:], hash) {
			t.Fatalf("hash of a new secret: %v", err)
		}
	}
}

func TestMistypedSecrets(t *testing.T) {
	text, _ := newSecret()
	for i := range text {
		for _, c := range "a7_Z" {
			wrong := text[:i] + string(c) + text[i+1:]
			if _, err := hashOf(wrong); wrong != text && !errors.Is(err, ErrMalformed) {
				t.Errorf("passes with character %d mistyped", i)
			}
		}
	}
	for _, bad := range []string{"", prefix, text[4:], text[:len(text)-1], text + "a", strings.ToUpper(text), " " + text, text + "\n"} {
		if _, err := hashOf(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("a text of %d characters passes", len(bad))
		}
	}
}

func FuzzHashOf(f *testing.F) {
	good, _ := newSecret()
	f.Add(good)
	f.Add(prefix)
	f.Add("")
	f.Add(prefix + strings.Repeat("a", 58))
	f.Add(good[:30] + "\n" + good[31:])
	f.Fuzz(func(t *testing.T, text string) {
		hash, err := hashOf(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || hash != [sha256.Size]byte{} {
				t.Errorf("%v with hash %x", err, hash)
			}
			return
		}
		// One secret has one text, so that a text can be searched for.
		b, err := encoding.DecodeString(strings.TrimPrefix(text, prefix))
		if err != nil || prefix+encoding.EncodeToString(b) != text {
			t.Errorf("%q is another text for a secret", text)
		}
	})
}
