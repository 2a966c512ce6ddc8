package kuma_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/token"
)

func TestPublicKeySecretRefusesWhatBreaksControlPlanes(t *testing.T) {
	t.Parallel()
	for kid, fits := range map[string]bool{
		"zone-1-e2c724bb": true, "a": true, "1a": true, "a.b": true, "eu-1.2-x": true,
		"": false, "1": false, "007": false, "+1": false, "-1": false, "1-2": false,
		"Zone": false, "a_b": false, "-a": false, "a-": false, "a..b": false, "a/b": false, "ä": false,
		strings.Repeat("a", 223): true, strings.Repeat("a", 224): false,
	} {
		ref, err := kuma.PublicKeySecret(kid)
		if (err == nil) != fits {
			t.Errorf("%q: %s, %v", kid, ref, err)
		}
		if back, ok := kuma.KeyIDOf(ref); fits && (!ok || back != kid) {
			t.Errorf("%q comes back as %q", kid, back)
		}
		if strings.HasPrefix(ref.Name, "zone-token-signing-key") {
			t.Errorf("%q makes the name of a private key", kid)
		}
	}
	if _, ok := kuma.KeyIDOf(kuma.Ref{Mesh: "default", Name: "zone-token-signing-public-key-a"}); ok {
		t.Error("a secret of a mesh has a key of zone tokens")
	}
}

func TestRevocationSecrets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		profile token.Profile
		mesh    string
		want    []string
	}{
		{token.ProfileZone, "", []string{"GlobalSecret zone-token-revocations"}},
		{token.ProfileUser, "", []string{"GlobalSecret user-token-revocations"}},
		{token.ProfileDataplane, "eu", []string{"GlobalSecret dataplane-token-revocations-eu", "Secret eu/dataplane-token-revocations-eu"}},
		{token.ProfileDataplane, "", nil},
		{token.ProfileDataplane, "a/b", nil},
		{token.ProfileDataplane, strings.Repeat("a", 250), nil},
		{"other", "", nil},
	} {
		refs, err := kuma.RevocationSecrets(c.profile, c.mesh)
		var got []string
		for _, r := range refs {
			got = append(got, r.String())
		}
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s %q: %q, %v", c.profile, c.mesh, got, err)
		}
	}
}

func TestListsAreReadLenientlyAndWrittenStrictly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "a": "a", "a,b\n": "a,b", "a, b\nc": "a,b,c", ",a,,a,": "a", " \n,": "", "a\r\nb\tc": "a,b,c",
	} {
		got, err := kuma.ParseList(text).Encode()
		if err != nil || got != want {
			t.Errorf("%q becomes %q, %v", text, got, err)
		}
	}
	for _, id := range []string{"", "a,b", "a b", "a\n", "a\x00"} {
		if text, err := (kuma.List{"ok", id}).Encode(); err == nil {
			t.Errorf("%q becomes %q", id, text)
		}
	}
	_, err := kuma.List{strings.Repeat("a", kuma.MaxListSize), "b"}.Encode()
	if large, ok := errors.AsType[*kuma.TooLargeError](err); !ok || large.Entries != 2 || large.Size != kuma.MaxListSize+2 {
		t.Errorf("error is %v", err)
	}
	if _, err := (kuma.List{strings.Repeat("a", kuma.MaxListSize)}).Encode(); err != nil {
		t.Errorf("a list of the largest size: %v", err)
	}
}
