package service_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// keyBox makes the keys of a fake backend and keeps the private halves, so that
// a test can sign what the service never would.
type keyBox struct {
	mu   sync.Mutex
	made []crypto.Signer
}

func (b *keyBox) generate(alg signer.Algorithm) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	if bits := alg.RSABits(); bits != 0 {
		key, err = rsa.GenerateKey(rand.Reader, bits)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made = append(b.made, key)
	return key, err
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// rs256 signs any header and payload.
func rs256(key crypto.Signer, header, payload string) string {
	input := b64(header) + "." + b64(payload)
	digest := sha256.Sum256([]byte(input))
	return input + "." + b64(string(must(key.Sign(rand.Reader, digest[:], crypto.SHA256))))
}

// forge is a token that was issued, in parts that a test can change.
type forge struct {
	key             crypto.Signer
	kid             string
	header, payload string
	good            string
}

func (f forge) sign(header, payload string) string { return rs256(f.key, header, payload) }

func (f forge) headerWith(members string) string {
	return f.sign(f.header[:len(f.header)-1]+","+members+"}", f.payload)
}

func (f forge) claimsWith(members string) string {
	return f.sign(f.header, f.payload[:len(f.payload)-1]+","+members+"}")
}

func (f forge) replaced(old, with string) string {
	if !strings.Contains(f.payload, old) {
		panic("the payload has no " + old)
	}
	return f.sign(f.header, strings.Replace(f.payload, old, with, 1))
}

func (f forge) hs256() string {
	spki := must(x509.MarshalPKIXPublicKey(f.key.Public()))
	input := b64(strings.Replace(f.header, "RS256", "HS256", 1)) + "." + b64(f.payload)
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	return input + "." + b64(string(must(jwt.SigningMethodHS256.Sign(input, secret))))
}

// forgeries are tokens that must not pass, by name, with the reason.
func forgeries(f forge, exp int64) map[string][2]string {
	cut := strings.LastIndex(f.good, ".")
	jwks := string(must(must(token.NewKeySet(must(token.NewKey("k", "RS256", f.key.Public())))).MarshalJSON()))
	return map[string][2]string{
		"alg none":         {b64(strings.Replace(f.header, "RS256", "none", 1)) + "." + b64(f.payload) + ".", "algorithm"},
		"alg HS256":        {f.hs256(), "algorithm"},
		"alg RS512":        {f.sign(strings.Replace(f.header, "RS256", "RS512", 1), f.payload), "algorithm"},
		"alg lower case":   {f.sign(strings.Replace(f.header, "RS256", "rs256", 1), f.payload), "algorithm"},
		"kid foreign":      {f.sign(strings.Replace(f.header, f.kid, "zone-9-12345678", 1), f.payload), "unknown_key"},
		"kid twice":        {f.headerWith(fmt.Sprintf("%q:%q", "kid", f.kid)), "malformed"},
		"kid number":       {f.sign(strings.Replace(f.header, `"`+f.kid+`"`, "1", 1), f.payload), "malformed"},
		"crit":             {f.headerWith(`"crit":["exp"]`), "malformed"},
		"jwk":              {f.headerWith(`"jwk":` + jwks), "malformed"},
		"jku":              {f.headerWith(`"jku":"https://evil.example/jwks.json"`), "malformed"},
		"x5u":              {f.headerWith(`"x5u":"https://evil.example/cert.pem"`), "malformed"},
		"claim twice":      {f.claimsWith(`"Zone":"east"`), "malformed"},
		"claim wrong case": {f.replaced(`"Zone"`, `"zone"`), "claims"},
		"claim two cases":  {f.claimsWith(`"zone":"east"`), "claims"},
		"no jti":           {f.replaced(`"jti"`, `"x"`), "claims"},
		"no exp":           {f.replaced(`"exp"`, `"x"`), "claims"},
		"expired":          {f.replaced(fmt.Sprint(exp), fmt.Sprint(time.Now().Unix()-1)), "expired"},
		"not yet valid":    {f.replaced(`"nbf":`, fmt.Sprintf(`"nbf":%d,"x":`, time.Now().Unix()+60)), "not_yet_valid"},
		"trailing bytes":   {f.sign(f.header, f.payload+"{}"), "malformed"},
		"trailing dot":     {f.good + ".", "malformed"},
		"trailing newline": {f.good + "\n", "malformed"},
		"two parts":        {f.good[:cut], "malformed"},
		"no signature":     {f.good[:cut+1], "signature"},
		"other signature":  {f.good[:cut+1] + b64(strings.Repeat("x", 256)), "signature"},
		"no token":         {"x", "malformed"},
	}
}

func TestVerifyToken(t *testing.T) {
	w := newWorld(t)
	box := &keyBox{}
	w.backends["fake"] = signertest.NewFake(t, signertest.FakeOptions{Generate: box.generate})
	s := w.start(t, w.config(), &pb.Keyset{Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "RS256", Backend: "fake"},
		&pb.Keyset{Name: "zone/eu", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256"},
		&pb.Keyset{Name: "user", Profile: pb.Profile_PROFILE_USER, Algorithm: "ES256"},
		&pb.Keyset{Name: "dataplane/default", Profile: pb.Profile_PROFILE_DATAPLANE, Algorithm: "ES256"})
	issued := must(s.issue(t, s.admin))
	f := forge{box.made[0], issued.GetKid(), part(t, issued.GetToken(), 0), part(t, issued.GetToken(), 1), issued.GetToken()}
	for _, c := range s.wires(s.admin) {
		resp, err := c.tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: f.good})
		if err != nil || !resp.GetValid() || resp.GetReason() != "" || resp.GetKid() != f.kid || resp.GetKeyset() != "zone" ||
			resp.GetExpiresAt().GetSeconds() != issued.GetExpiresAt().GetSeconds() || resp.GetClaims().GetFields()["Zone"].GetStringValue() != "west" {
			t.Errorf("%s: %v, %v", c.name, resp, err)
		}
	}
	for name, bad := range forgeries(f, issued.GetExpiresAt().GetSeconds()) {
		wantReason(t, s, name, "", bad[0], bad[1])
	}
	for _, keyset := range []string{"zone/eu", "user", "dataplane/default"} {
		wantReason(t, s, "as one of "+keyset, keyset, f.good, "unknown_key")
	}
	_, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: f.good, Keyset: "nosuch"})
	wantCode(t, err, connect.CodeNotFound)
	for _, bad := range []string{"", strings.Repeat("x", token.MaxTokenSize+1)} {
		_, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: bad})
		wantCode(t, err, connect.CodeInvalidArgument)
	}
}

func wantReason(t *testing.T, s *server, name, keyset, raw, reason string) {
	t.Helper()
	resp, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: raw, Keyset: keyset})
	if err != nil || resp.GetValid() || resp.GetReason() != reason || resp.GetDetail() == "" || resp.GetClaims() != nil || resp.GetKid() != "" {
		t.Errorf("%s: %v, %v, want %s", name, resp, err, reason)
	}
	if len(raw) > 100 && strings.Contains(resp.GetDetail(), raw[len(raw)-50:]) {
		t.Errorf("%s: the detail quotes the token", name)
	}
}

func TestVerifyTokenNeedsTheKeyset(t *testing.T) {
	s := newTestServer(t)
	narrow := s.apiToken(t, store.APIToken{Name: "v", Roles: []string{"verifier"}, Keysets: []string{"user"}})
	for _, keyset := range []string{"", "zone", "nosuch"} {
		_, err := s.as(narrow).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: "x", Keyset: keyset})
		wantCode(t, err, connect.CodePermissionDenied)
	}
}

// An outage is no answer about a token.
func TestVerifyTokenWithoutDatabase(t *testing.T) {
	s := newTestServer(t)
	issued := must(s.issue(t, s.admin))
	s.engine.cut()
	resp, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: issued.GetToken()})
	wantCode(t, err, connect.CodeUnavailable)
	if resp != nil || strings.Contains(fmt.Sprint(err), canary) {
		t.Errorf("%v, %v", resp, err)
	}
}
