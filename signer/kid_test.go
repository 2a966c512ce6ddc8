package signer_test

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

// TestThumbprint uses the key and the thumbprint of RFC 7638 section 3.1.
func TestThumbprint(t *testing.T) {
	const modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAt" +
		"VT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lq" +
		"t7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n" +
		"91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur" +
		"-kEgU8awapJzKnqDKgw"
	n, err := base64.RawURLEncoding.DecodeString(modulus)
	if err != nil {
		t.Fatal(err)
	}
	got, err := signer.Thumbprint(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	want, err := base64.RawURLEncoding.DecodeString("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")
	if err != nil {
		t.Fatal(err)
	}
	if got != hex.EncodeToString(want) {
		t.Errorf("got %s, want %x", got, want)
	}
	if got, err := signer.Thumbprint("no key"); err == nil {
		t.Errorf("a text has the thumbprint %s", got)
	}
}

func TestKID(t *testing.T) {
	thumbprint := strings.Repeat("9f86d081", 8)
	for _, tc := range []struct {
		keyset string
		serial int
		want   string
	}{
		{"zone", 3, "zone-3-9f86d081"},
		{"dataplane/default", 1, "dataplane-default-1-9f86d081"},
	} {
		got := signer.KID(tc.keyset, tc.serial, thumbprint)
		if got != tc.want {
			t.Errorf("KID(%s, %d) = %s, want %s", tc.keyset, tc.serial, got, tc.want)
		}
		if !regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`).MatchString(got) {
			t.Errorf("%s is no RFC 1123 name", got)
		}
	}
}

func TestNewLabel(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		label := signer.NewLabel()
		if !regexp.MustCompile(`^zonemint-[a-z0-9]{26}$`).MatchString(label) || seen[label] {
			t.Fatalf("label %q", label)
		}
		seen[label] = true
	}
}
