package service_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
	"github.com/zonemint/zonemint/signer/signertest"
)

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// hs256 makes a token with any secret.
func hs256(secret []byte, header, payload string) string {
	input := b64(header) + "." + b64(payload)
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(input))
	return input + "." + b64(string(h.Sum(nil)))
}

// crossing is a replica with old tokens and a keyset of every profile, whose private
// keys the test has.
func crossing(t *testing.T) (*server, []crypto.Signer) {
	t.Helper()
	w, box := newWorld(t), &keyBox{}
	w.backends["fake"] = signertest.NewFake(t, signertest.FakeOptions{Generate: box.generate})
	s := w.start(t, w.withLegacy(),
		&pb.Keyset{Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "RS256", Backend: "fake"},
		&pb.Keyset{Name: "user", Profile: pb.Profile_PROFILE_USER, Algorithm: "ES256", Backend: "fake"},
		&pb.Keyset{Name: "dataplane/default", Profile: pb.Profile_PROFILE_DATAPLANE, Algorithm: "RS256", Backend: "fake"})
	for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
		must(s.as(s.admin).legacy.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: kind}))
	}
	return s, box.made
}

// refusedByKeysets wants a token to be no good for any keyset, nor for revoking.
func (s *server) refusedByKeysets(t *testing.T, what, raw string) {
	t.Helper()
	c := s.as(s.admin)
	for _, name := range []string{"zone", "user", "dataplane/default"} {
		resp, err := c.tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Keyset: name, Token: raw})
		if err != nil || resp.GetValid() || resp.GetReason() == "" {
			t.Errorf("%s is for keyset %s %v, %v", what, name, resp, err)
		}
		_, err = c.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{
			Keyset: name, Reason: "crossing", Token: raw,
		})
		if err == nil || connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s is revoked in keyset %s: %v", what, name, err)
		}
	}
}

// refusedByLegacy wants a token to be of no old kind.
func (s *server) refusedByLegacy(t *testing.T, what, raw string) {
	t.Helper()
	for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
		resp, err := s.as(s.admin).legacy.VerifyLegacyToken(t.Context(), &pb.VerifyLegacyTokenRequest{Kind: kind, Token: raw})
		if err != nil || resp.GetValid() || resp.GetReason() == "" || resp.GetZone() != "" {
			t.Errorf("%s is as %s %v, %v", what, kind, resp, err)
		}
	}
}

func TestOldTokensAreNoNewOnes(t *testing.T) {
	s, _ := crossing(t)
	for kind, other := range map[pb.LegacyKind]pb.LegacyKind{controlPlane: zoneIngress, zoneIngress: controlPlane} {
		raw, _, err := s.as(s.admin).issueOld(t.Context(), kind, "west")
		if err != nil {
			t.Fatal(err)
		}
		s.refusedByKeysets(t, kind.String(), raw)
		s.oldVerifies(t, kind, raw, "")
		s.oldVerifies(t, other, raw, "claims")
		// With what its issuer knows, an old key makes no new token.
		secret := must(s.as(s.admin).legacy.ExportLegacyKey(t.Context(), &pb.ExportLegacyKeyRequest{Kind: kind})).GetSecret()
		good := s.mint(t, 3600e9)
		for _, header := range []string{
			`{"alg":"HS256","typ":"JWT"}`, `{"alg":"HS256","kid":"` + good.GetKid() + `","typ":"JWT"}`, `{"alg":"RS256","kid":"` + good.GetKid() + `","typ":"JWT"}`,
		} {
			s.refusedByKeysets(t, "a token of an old key with "+header, hs256(secret, header, part(t, good.GetToken(), 1)))
		}
		// And one kind's key makes none of the other.
		payload := `{"Zone":"west"}`
		if other == controlPlane {
			payload = `{"Zone":"west","TokenSerialNumber":1}`
		}
		s.oldVerifies(t, other, hs256(secret, `{"alg":"HS256","typ":"JWT"}`, payload), "signature")
	}
}

func TestNewTokensAreNoOldOnes(t *testing.T) {
	s, made := crossing(t)
	s.refusedByLegacy(t, "a zone token", s.mint(t, 3600e9).GetToken())
	for _, key := range made {
		if _, ok := key.(*rsa.PrivateKey); !ok {
			continue
		}
		for _, header := range []string{`{"alg":"HS256","typ":"JWT"}`, `{"alg":"RS256","typ":"JWT"}`, `{"alg":"none","typ":"JWT"}`} {
			for _, payload := range []string{`{"Zone":"west"}`, `{"Zone":"west","TokenSerialNumber":1}`} {
				s.refusedByLegacy(t, "RS256 under "+header, rs256(key, header, payload))
				s.refusedByLegacy(t, "no signature under "+header, b64(header)+"."+b64(payload)+".")
			}
		}
	}
}

// The classic confusion: everybody has the public key, so it must never be a secret.
func TestPublicKeysAreNoSecretsOfTokens(t *testing.T) {
	s, made := crossing(t)
	good := s.mint(t, 3600e9)
	for _, key := range made {
		for _, form := range append(legacy.PublicForms(key.Public()), []byte{}) {
			for _, payload := range []string{`{"Zone":"west"}`, `{"Zone":"west","TokenSerialNumber":1}`, part(t, good.GetToken(), 1)} {
				raw := hs256(form, `{"alg":"HS256","typ":"JWT"}`, payload)
				s.refusedByLegacy(t, "HS256 with a public key", raw)
				if resp, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: raw}); err != nil || resp.GetValid() {
					t.Errorf("HS256 with a public key is %v, %v", resp, err)
				}
			}
		}
		pkix := must(x509.MarshalPKIXPublicKey(key.Public()))
		for _, secret := range [][]byte{pkix, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix})} {
			s.refusedByKeysets(t, "HS256 with a public key", hs256(secret, `{"alg":"HS256","kid":"`+good.GetKid()+`","typ":"JWT"}`, part(t, good.GetToken(), 1)))
		}
	}
}

// Nor can one be made a secret, of keys that verify or that have ended.
func TestKeysOfKeysetsAreNotImportedAsSecrets(t *testing.T) {
	s, made := crossing(t)
	c := s.as(s.admin)
	must(c.keys.DistrustSigningKey(t.Context(), &pb.DistrustSigningKeyRequest{Keyset: "zone", Serial: 2, Force: true, Reason: "crossing"}))
	refused := func(what string, secret []byte) {
		t.Helper()
		for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
			_, err := c.legacy.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: kind, Secret: secret})
			if wantCode(t, err, connect.CodeInvalidArgument); err == nil || !strings.Contains(err.Error(), "secret: ") {
				t.Errorf("%s: %v", what, err)
			}
			_, err = c.legacy.RotateLegacyKey(t.Context(), &pb.RotateLegacyKeyRequest{Kind: kind, Secret: secret})
			wantCode(t, err, connect.CodeInvalidArgument)
		}
	}
	for _, key := range made {
		for i, form := range legacy.PublicForms(key.Public()) {
			refused(fmt.Sprintf("form %d of a public key", i), form)
			if len(form) > sha256.BlockSize { // then its hash makes the same codes
				refused(fmt.Sprintf("the hash of form %d of a public key", i), sum(form))
			}
		}
		pkcs8 := must(x509.MarshalPKCS8PrivateKey(key))
		refused("a private key", pkcs8)
		refused("a private key in PEM", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
		if key, ok := key.(*rsa.PrivateKey); ok {
			refused("a private key in PKCS #1", x509.MarshalPKCS1PrivateKey(key))
		}
	}
	if n := s.count(t, "legacy_keys"); n != 2 {
		t.Errorf("there are %d legacy keys, want 2", n)
	}
}

// The reverse: what a legacy key is made of is no key of a keyset.
func TestLegacySecretsAreNotImportedAsKeys(t *testing.T) {
	s, _ := crossing(t)
	for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
		secret := must(s.as(s.admin).legacy.ExportLegacyKey(t.Context(), &pb.ExportLegacyKeyRequest{Kind: kind})).GetSecret()
		theirs := issuer{"RS256", must(x509.ParsePKCS1PrivateKey(secret)), "old-1"}
		req := theirs.request()
		req.Token = theirs.issue(`{"Zone":"west"}`)
		_, err := s.as(s.admin).keys.ImportPublicKey(t.Context(), req)
		if wantCode(t, err, connect.CodeInvalidArgument); err != nil && !strings.Contains(err.Error(), "legacy key 1") {
			t.Error(err)
		}
		must(s.as(s.admin).legacy.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: kind, Serial: 1, Force: true}))
		_, err = s.as(s.admin).keys.ImportPublicKey(t.Context(), req)
		wantCode(t, err, connect.CodeInvalidArgument) // removed keys too
	}
	for _, i := range issuers() {
		must(s.as(s.admin).legacy.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{
			Kind: controlPlane, Secret: sum([]byte(i.pem())), // which makes the codes of the public key
		}))
		_, err := s.as(s.admin).keys.ImportPublicKey(t.Context(), i.request())
		wantCode(t, err, connect.CodeInvalidArgument)
	}
}

// No JWK set has anything of legacy keys, and the ring does not know them.
func TestLegacyKeysAreInNoKeySet(t *testing.T) {
	s, _ := crossing(t)
	for _, path := range []string{"/keysets/zone/jwks.json", "/keysets/user/jwks.json", "/keysets/dataplane/default/jwks.json", "/.well-known/jwks.json"} {
		resp, body := s.get(t, path)
		if resp.StatusCode != 200 || strings.Contains(body, "oct") || strings.Contains(body, "HS256") || strings.Count(body, `"kid"`) != 2 {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	for _, path := range []string{"/keysets/control-plane/jwks.json", "/keysets/zone-ingress/jwks.json", "/keysets/legacy/jwks.json"} {
		if resp, body := s.get(t, path); resp.StatusCode != 404 {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	for _, ks := range must(s.as(s.admin).keys.ListKeysets(t.Context(), &pb.ListKeysetsRequest{})).GetKeysets() {
		if strings.Contains(ks.GetAlgorithm(), "HS") {
			t.Errorf("keyset %v", ks)
		}
	}
	_, err := s.as(s.admin).keys.CreateKeyset(t.Context(), &pb.CreateKeysetRequest{Keyset: &pb.Keyset{
		Name: "hs", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "HS256",
	}})
	wantCode(t, err, connect.CodeInvalidArgument)
}
