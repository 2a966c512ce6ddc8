package local

import (
	"bytes"
	"crypto/rsa"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

// base64Line is what the body of a PEM file looks like, and no text of ours.
var base64Line = regexp.MustCompile(`[A-Za-z0-9+/=]{16,}`)

func FuzzParsePEM(f *testing.F) {
	files, err := filepath.Glob("testdata/pem/*.pem")
	if err != nil || len(files) == 0 {
		f.Fatal("no seed vectors", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		input := bytes.Clone(text)
		key, err := parsePEM(text)
		if err != nil {
			if quoted := base64Line.FindString(err.Error()); quoted != "" && bytes.Contains(input, []byte(quoted)) {
				t.Errorf("%v quotes its input", err)
			}
			return
		}
		if pub, ok := key.Public().(*rsa.PublicKey); ok && pub.N.BitLen() < signer.MinRSABits {
			t.Fatalf("accepted an RSA key of %d bits", pub.N.BitLen())
		}
		alg, err := signer.AlgorithmFor(key.Public())
		if err != nil {
			return // P-521, say: refused for want of an algorithm
		}
		der, err := marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := unmarshal(der, alg)
		if err != nil {
			t.Fatal(err)
		}
		if !signer.SamePublicKey(key.Public(), again.Public()) {
			t.Error("stored and read again it is another key")
		}
	})
}

// TestPrecomputed: without the Chinese remainder values an RSA signature takes
// three times as long.
func TestPrecomputed(t *testing.T) {
	text, err := os.ReadFile("testdata/pem/rsa2048-pkcs1.pem")
	if err != nil {
		t.Fatal(err)
	}
	key, err := parsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	der, err := marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := unmarshal(der, signer.RS256)
	if err != nil {
		t.Fatal(err)
	}
	if opened.(*rsa.PrivateKey).Precomputed.Dp == nil {
		t.Error("the key is not precomputed")
	}
}
