package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type ecdsaSignature struct{ R, S *big.Int }

func mustDER(tb testing.TB, r, s *big.Int) []byte {
	tb.Helper()
	der, err := asn1.Marshal(ecdsaSignature{r, s})
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func TestConcatRS(t *testing.T) {
	n := elliptic.P256().Params().N
	one, small := big.NewInt(1), big.NewInt(0x80)
	last := new(big.Int).Sub(n, one)
	for _, tc := range []struct {
		name string
		der  []byte
		want []byte // nil if it is to be refused
	}{
		{"padded on the left", mustDER(t, one, small), append(one.FillBytes(make([]byte, 32)), small.FillBytes(make([]byte, 32))...)},
		{"as large as can be", mustDER(t, last, last), append(last.Bytes(), last.Bytes()...)},
		{"r is zero", mustDER(t, new(big.Int), one), nil},
		{"s is negative", mustDER(t, one, big.NewInt(-1)), nil},
		{"r is the order", mustDER(t, n, one), nil},
		{"s has 33 bytes", mustDER(t, one, new(big.Int).Lsh(one, 256)), nil},
		{"trailing byte", append(mustDER(t, one, one), 0), nil},
		{"third integer", []byte{0x30, 9, 2, 1, 1, 2, 1, 1, 2, 1, 1}, nil},
		{"integer not minimal", []byte{0x30, 7, 2, 2, 0, 1, 2, 1, 1}, nil},
		{"length not minimal", []byte{0x30, 0x81, 6, 2, 1, 1, 2, 1, 1}, nil},
		{"cut short", []byte{0x30, 6, 2, 1, 1, 2, 1}, nil},
		{"already concatenated", bytes.Repeat([]byte{0x11}, 64), nil},
		{"empty", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := concatRS(tc.der, elliptic.P256())
			if (err != nil) != (tc.want == nil) || !bytes.Equal(got, tc.want) {
				t.Errorf("got %x, %v, want %x", got, err, tc.want)
			}
		})
	}
}

// FuzzConcatRS holds concatRS against encoding/asn1, which shares no code with
// it. The vectors in testdata/ecdsa-der are hexadecimal, one in a line, with
// comments after a "#".
func FuzzConcatRS(f *testing.F) {
	vectors := 0
	files, err := filepath.Glob("testdata/ecdsa-der/*.hex")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			der, err := hex.DecodeString(strings.TrimSpace(line))
			if err != nil {
				f.Fatalf("%s: %v", name, err)
			}
			f.Add(der)
			vectors++
		}
	}
	if vectors == 0 {
		f.Fatal("no seed vectors")
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		der, err := ecdsa.SignASN1(rand.Reader, key, make([]byte, 32))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
			checkConcatRS(t, der, curve)
		}
	})
}

func checkConcatRS(t *testing.T, der []byte, curve elliptic.Curve) {
	t.Helper()
	size := (curve.Params().BitSize + 7) / 8
	got, err := concatRS(der, curve)

	var want ecdsaSignature
	rest, asn1Err := asn1.Unmarshal(der, &want)
	order := curve.Params().N
	fits := asn1Err == nil && len(rest) == 0 &&
		want.R.Sign() > 0 && want.S.Sign() > 0 && want.R.Cmp(order) < 0 && want.S.Cmp(order) < 0
	if err != nil {
		// asn1.Unmarshal lets further elements of a SEQUENCE pass.
		if fits && bytes.Equal(mustDER(t, want.R, want.S), der) {
			t.Fatalf("%s refuses %x: %v", curve.Params().Name, der, err)
		}
		return
	}
	if !fits || len(got) != 2*size {
		t.Fatalf("%s accepts %x as %x", curve.Params().Name, der, got)
	}
	r, s := new(big.Int).SetBytes(got[:size]), new(big.Int).SetBytes(got[size:])
	if r.Cmp(want.R) != 0 || s.Cmp(want.S) != 0 {
		t.Fatalf("%x: got r=%x s=%x", der, r, s)
	}
	if again := mustDER(t, r, s); !bytes.Equal(again, der) {
		t.Fatalf("%x comes back as %x", der, again)
	}
}
