package service_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// issuer is another issuer, whose keys are imported.
type issuer struct {
	alg string
	key crypto.Signer
	kid string
}

func issuers() []issuer {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	return []issuer{
		{"RS256", must(rsa.GenerateKey(rand.Reader, 2048)), "1"},
		{"ES256", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "old/2@issuer"},
		{"EdDSA", must(edwards, err), "3"},
	}
}

func (i issuer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(i.key.Public()))}))
}

// sign signs as JWS wants it. Standard tools sign ECDSA in DER.
func (i issuer) sign(message string) (jws, der []byte) {
	if i.alg == "EdDSA" {
		sig := must(i.key.Sign(rand.Reader, []byte(message), crypto.Hash(0)))
		return sig, sig
	}
	digest := sha256.Sum256([]byte(message))
	der = must(i.key.Sign(rand.Reader, digest[:], crypto.SHA256))
	if i.alg != "ES256" {
		return der, der
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		panic(err)
	}
	return append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...), der
}

// issue signs a token with the claims of another one.
func (i issuer) issue(payload string) string {
	input := b64(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, i.alg, i.kid)) + "." + b64(payload)
	sig, _ := i.sign(input)
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func (i issuer) request() *pb.ImportPublicKeyRequest {
	return &pb.ImportPublicKeyRequest{Keyset: "zone", PublicKey: i.pem(), Kid: i.kid}
}

func (s *server) imports(t testing.TB, req *pb.ImportPublicKeyRequest) (*pb.ImportPublicKeyResponse, error) {
	t.Helper()
	resp, err := s.as(s.admin).keys.ImportPublicKey(t.Context(), req)
	s.sound(t)
	return resp, err
}

// answered is a request with the challenge that was given for it, signed.
func (s *server) answered(t testing.TB, i issuer, der bool) *pb.ImportPublicKeyRequest {
	t.Helper()
	req := i.request()
	resp := must(s.imports(t, req))
	if resp.GetChallenge() == "" || resp.GetSigningKey() != nil {
		t.Fatalf("without proof the answer is %v", resp)
	}
	req.Challenge = resp.GetChallenge()
	jws, asDER := i.sign(req.GetChallenge())
	if req.ChallengeSignature = jws; der {
		req.ChallengeSignature = asDER
	}
	return req
}

func TestImport(t *testing.T) {
	for _, i := range issuers() {
		for _, by := range []string{"challenge", "challenge in DER", "token"} {
			t.Run(i.alg+" by "+by, func(t *testing.T) {
				s := rotating(t)
				mine := s.mint(t, time.Hour)
				theirs := i.issue(part(t, mine.GetToken(), 1))
				s.verifies(t, theirs, "unknown_key")
				req := i.request()
				if req.Token = theirs; by != "token" {
					req = s.answered(t, i, by != "challenge")
				}
				req.Reason = "they moved"
				resp, err := s.imports(t, req)
				if err != nil {
					t.Fatal(err)
				}
				k := resp.GetSigningKey()
				if !k.GetImported() || k.GetState() != "retiring" || k.GetSerial() != 3 || k.GetKid() != i.kid || k.GetBackend() != "" || k.GetPublicKey() != i.pem() || resp.GetChallenge() != "" {
					t.Errorf("imported is %v", resp)
				}
				s.verifies(t, theirs, "")
				s.verifies(t, mine.GetToken(), "")
				if fresh := s.mint(t, time.Hour); fresh.GetKid() != mine.GetKid() {
					t.Errorf("issued with %s", fresh.GetKid())
				}
				s.settles(t)
			})
		}
	}
}

// An imported key goes when its time has come, and not before; nobody signs with
// it.
func TestImportedKeyEnds(t *testing.T) {
	s := rotating(t)
	i := issuers()[1]
	theirs := i.issue(part(t, s.mint(t, time.Hour).GetToken(), 1))
	until := time.Now().Add(3 * time.Second)
	req := i.request()
	req.Token, req.TrustedUntil = theirs, timestamppb.New(until)
	must(s.imports(t, req))
	for _, force := range []bool{false, true} {
		_, err := s.as(s.admin).keys.ActivateSigningKey(t.Context(), &pb.ActivateSigningKeyRequest{Keyset: "zone", Serial: 3, Force: force})
		wantHeld(t, err, "imported and only verifies")
	}
	must(s.rotate(t, &pb.RotateKeysetRequest{Now: true, Force: true}))
	s.verifiesUntil(t, theirs, until)
	s.become(t, 3, store.StateRemoved)
	eventually(t, "it is not served any more", func() bool { return !slices.Contains(s.served(t, "zone"), i.kid) })
	s.verifies(t, theirs, "unknown_key")
	s.settles(t)
	_, err := s.as(s.admin).keys.DestroySigningKey(t.Context(), &pb.DestroySigningKeyRequest{Keyset: "zone", Serial: 3})
	wantHeld(t, err, "its private key is not ours")
}

func TestImportRefuses(t *testing.T) {
	s := rotating(t)
	all := issuers()
	mine, other := all[1], issuers()[1]
	rsaKey := all[0]
	token := mine.issue(part(t, s.mint(t, time.Hour).GetToken(), 1))
	good := s.answered(t, mine, false)
	with := func(change func(*pb.ImportPublicKeyRequest)) *pb.ImportPublicKeyRequest {
		req := &pb.ImportPublicKeyRequest{
			Keyset: "zone", PublicKey: good.GetPublicKey(), Kid: good.GetKid(), Challenge: good.GetChallenge(), ChallengeSignature: good.GetChallengeSignature(),
		}
		change(req)
		return req
	}
	expired := must(s.db.NewChallenge(fmt.Sprintf("import zone %s %s", mine.kid, must(signer.Thumbprint(mine.key.Public()))), time.Now().Add(-2*time.Second)))
	for name, req := range map[string]*pb.ImportPublicKeyRequest{
		"another's signature": with(func(r *pb.ImportPublicKeyRequest) { r.ChallengeSignature, _ = other.sign(r.GetChallenge()) }),
		"no signature":        with(func(r *pb.ImportPublicKeyRequest) { r.ChallengeSignature = nil }),
		"signature of more":   with(func(r *pb.ImportPublicKeyRequest) { r.ChallengeSignature, _ = mine.sign(r.GetChallenge() + "\n") }),
		"expired challenge": with(func(r *pb.ImportPublicKeyRequest) {
			r.Challenge = expired
			r.ChallengeSignature, _ = mine.sign(expired)
		}),
		"made up challenge":   with(func(r *pb.ImportPublicKeyRequest) { r.Challenge = "x"; r.ChallengeSignature, _ = mine.sign("x") }),
		"challenge for a kid": with(func(r *pb.ImportPublicKeyRequest) { r.Kid = "other" }),
		"challenge for a key": with(func(r *pb.ImportPublicKeyRequest) {
			r.PublicKey = other.pem()
			r.ChallengeSignature, _ = other.sign(r.GetChallenge())
		}),
		"token of another":     with(func(r *pb.ImportPublicKeyRequest) { r.Token = other.issue("{}") }),
		"token of another kid": with(func(r *pb.ImportPublicKeyRequest) { r.Kid, r.Token = "other", token }),
		"no token":             with(func(r *pb.ImportPublicKeyRequest) { r.Token = "a.b" }),
		"token of bad base64":  with(func(r *pb.ImportPublicKeyRequest) { r.Token = token + "=" }),
		"private key": with(func(r *pb.ImportPublicKeyRequest) {
			r.PublicKey = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
		}),
		"two keys":         with(func(r *pb.ImportPublicKeyRequest) { r.PublicKey += other.pem() }),
		"no PEM":           with(func(r *pb.ImportPublicKeyRequest) { r.PublicKey = "x" }),
		"algorithm":        with(func(r *pb.ImportPublicKeyRequest) { r.Algorithm = "RS256" }),
		"other algorithm":  {Keyset: "zone", PublicKey: rsaKey.pem(), Kid: "1", Algorithm: "ES256"},
		"symmetric":        {Keyset: "zone", PublicKey: rsaKey.pem(), Kid: "1", Algorithm: "HS256"},
		"short RSA key":    {Keyset: "zone", PublicKey: issuer{key: must(rsa.GenerateKey(rand.Reader, 1024))}.pem(), Kid: "1"},
		"curve":            {Keyset: "zone", PublicKey: issuer{key: must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))}.pem(), Kid: "1"},
		"no kid":           with(func(r *pb.ImportPublicKeyRequest) { r.Kid = "" }),
		"kid with a space": with(func(r *pb.ImportPublicKeyRequest) { r.Kid = "a b" }),
		"over already":     with(func(r *pb.ImportPublicKeyRequest) { r.TrustedUntil = timestamppb.New(time.Now().Add(-time.Minute)) }),
	} {
		if _, err := s.imports(t, req); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.states(t, "active", "published")
	_, err := s.imports(t, &pb.ImportPublicKeyRequest{Keyset: "nosuch", PublicKey: mine.pem(), Kid: "1"})
	wantCode(t, err, connect.CodeNotFound)
	operator := s.as(s.apiToken(t, store.APIToken{Name: "o", Roles: []string{"key-operator"}}))
	_, err = operator.keys.ImportPublicKey(t.Context(), good)
	wantCode(t, err, connect.CodePermissionDenied)

	// The same key, or a key of the same name, comes once.
	must(s.imports(t, good))
	for name, i := range map[string]issuer{"again": mine, "under another name": {mine.alg, mine.key, "new"}, "of the same name": {other.alg, other.key, mine.kid}} {
		req := i.request()
		req.Token = i.issue("{}")
		if _, err := s.imports(t, req); connect.CodeOf(err) != connect.CodeAlreadyExists {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.states(t, "active", "published", "retiring")
	if kids := s.served(t, "zone"); !slices.Contains(kids, mine.kid) {
		t.Errorf("served are %v", kids)
	}
}

// What others have signed is not counted here, so nobody can say what breaks.
func TestDistrustImported(t *testing.T) {
	s := rotating(t)
	i := issuers()[2]
	theirs := i.issue(part(t, s.mint(t, time.Hour).GetToken(), 1))
	req := i.request()
	req.Token = theirs
	must(s.imports(t, req))
	resp := must(s.distrust(t, &pb.DistrustSigningKeyRequest{Serial: 3, Force: true}))
	if resp.GetSigningKey().GetState() != "distrusted" {
		t.Errorf("%v", resp)
	}
	s.verifies(t, theirs, "unknown_key")
	_, err := s.imports(t, req)
	wantCode(t, err, connect.CodeAlreadyExists) // distrust is for ever
	s.settles(t)
}
