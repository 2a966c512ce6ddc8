package kuma_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/token"
)

func privateKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs1(key *rsa.PrivateKey) []byte {
	return asPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
}

func global(name string, data []byte) kuma.Secret {
	return kuma.Secret{Ref: kuma.Ref{Name: name}, Data: data}
}

func TestOwnKeysAreFoundByName(t *testing.T) {
	t.Parallel()
	private := pkcs1(privateKey(t, 2048))
	public := []byte(read(t, "zone1.pub"))
	secrets := []kuma.Secret{
		global("zone-token-signing-key-1", private),
		global("zone-token-signing-public-key-3", public),
		global("user-token-signing-key-2", private),
		global("dataplane-token-signing-key-default-9", private), // not in a mesh
		{Ref: kuma.Ref{Mesh: "default", Name: "dataplane-token-signing-key-default-1"}, Data: private},
		{Ref: kuma.Ref{Mesh: "eu", Name: "dataplane-token-signing-key-eu-1"}, Data: private},
		{Ref: kuma.Ref{Mesh: "default", Name: "dataplane-token-signing-key-eu-5"}, Data: private},
		{Ref: kuma.Ref{Mesh: "default", Name: "zone-token-signing-key-8"}, Data: private},
		global("admin-user-token", []byte("secret")),
		global("zone-token-revocations", []byte("a")),
		global("zone-token-signing-keys", private),
	}
	for _, c := range []struct {
		profile token.Profile
		mesh    string
		want    []string
	}{
		{token.ProfileZone, "", []string{"1 GlobalSecret zone-token-signing-key-1 true", "3 GlobalSecret zone-token-signing-public-key-3 false"}},
		{token.ProfileUser, "", []string{"2 GlobalSecret user-token-signing-key-2 true"}},
		{token.ProfileDataplane, "default", []string{"1 Secret default/dataplane-token-signing-key-default-1 true"}},
		{token.ProfileDataplane, "eu", []string{"1 Secret eu/dataplane-token-signing-key-eu-1 true"}},
		{token.ProfileDataplane, "us", nil},
	} {
		keys, unusable := kuma.OwnKeys(secrets, c.profile, c.mesh)
		var got []string
		for _, k := range keys {
			got = append(got, fmt.Sprintf("%s %s %v", k.ID, k.Ref, k.CanSign()))
		}
		if !slices.Equal(got, c.want) || len(unusable) > 0 {
			t.Errorf("%s %s: keys are %q, unusable %v, want %q", c.profile, c.mesh, got, unusable, c.want)
		}
		for _, s := range secrets {
			named := slices.ContainsFunc(keys, func(k kuma.OwnKey) bool { return k.Ref == s.Ref })
			list := c.profile == token.ProfileZone && s.Name == "zone-token-revocations"
			if got := s.Concerns(c.profile, c.mesh); got != (named || list) {
				t.Errorf("%s concerns %s tokens: %v", s, c.profile, got)
			}
		}
	}
}

func TestOwnKeysSign(t *testing.T) {
	t.Parallel()
	key := privateKey(t, 2048)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for form, data := range map[string][]byte{
		"PKCS 1": pkcs1(key), "PKCS 8": asPEM("PRIVATE KEY", pkcs8), "PKCS 1 without PEM": x509.MarshalPKCS1PrivateKey(key),
	} {
		keys, unusable := kuma.OwnKeys([]kuma.Secret{global("zone-token-signing-key-1", data)}, token.ProfileZone, "")
		if len(keys) != 1 || len(unusable) != 0 {
			t.Fatalf("%s: %v, %v", form, keys, unusable)
		}
		sig, err := keys[0].Sign([]byte("challenge"))
		digest := sha256.Sum256([]byte("challenge"))
		if err != nil || rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], sig) != nil {
			t.Errorf("%s: the signature is no RS256 of the key, %v", form, err)
		}
		if text := fmt.Sprintf("%v %+v %#v", keys[0], keys[0], keys[0]); strings.Contains(text, "PRIVATE") || strings.Contains(text, key.D.String()) {
			t.Errorf("%s: printing shows the private key", form)
		}
		keys[0].Forget()
		if _, err := keys[0].Sign([]byte("challenge")); !errors.Is(err, kuma.ErrPublicOnly) {
			t.Errorf("%s: a forgotten key signs, %v", form, err)
		}
	}
}

func TestOwnKeysPreferPrivateHalves(t *testing.T) {
	t.Parallel()
	key := privateKey(t, 2048)
	public := asPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey))
	keys, _ := kuma.OwnKeys([]kuma.Secret{
		global("zone-token-signing-public-key-1", public), global("zone-token-signing-key-1", pkcs1(key)),
	}, token.ProfileZone, "")
	if len(keys) != 1 || !keys[0].CanSign() {
		t.Errorf("keys are %v", keys)
	}
}

func TestUnusableOwnKeys(t *testing.T) {
	t.Parallel()
	private := pkcs1(privateKey(t, 2048))
	for name, c := range map[string]struct {
		secret kuma.Secret
		legacy bool
		says   string
	}{
		"legacy":            {global("zone-token-signing-key", private), true, "HS256"},
		"kid 0":             {global("zone-token-signing-key-0", private), true, "HS256"},
		"no ID":             {global("zone-token-signing-key-", private), false, "no key ID"},
		"junk":              {global("zone-token-signing-key-1", []byte("junk")), false, "not an RSA private key"},
		"public as private": {global("zone-token-signing-key-1", []byte(read(t, "zone1.pub"))), false, "stops a global control plane"},
		"private as public": {global("zone-token-signing-public-key-1", private), false, "not a public key"},
		"short":             {global("zone-token-signing-public-key-1", []byte(read(t, "short.pub"))), false, "1024 bits"},
		"EC":                {global("zone-token-signing-public-key-1", []byte(read(t, "ec.pub"))), false, "RS256 only"},
		"public junk":       {global("zone-token-signing-public-key-1", asPEM("PUBLIC KEY", []byte("junk"))), false, "not a public key that"},
	} {
		keys, unusable := kuma.OwnKeys([]kuma.Secret{c.secret}, token.ProfileZone, "")
		if len(keys) != 0 || len(unusable) != 1 || unusable[0].Legacy != c.legacy || !strings.Contains(unusable[0].Error(), c.says) {
			t.Errorf("%s: keys %v, unusable %v", name, keys, unusable)
		}
	}
}
