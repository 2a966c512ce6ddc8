package service

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// challengeTTL is how long a challenge may be answered.
const challengeTTL = 10 * time.Minute

// foreignKey is a key that is to be imported.
type foreignKey struct {
	store.ImportedKey
	public    crypto.PublicKey
	algorithm signer.Algorithm
}

func (s keyService) ImportPublicKey(ctx context.Context, req *pb.ImportPublicKeyRequest) (*pb.ImportPublicKeyResponse, error) {
	ks, err := s.managed(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	now, err := s.clock.stamp()
	if err != nil {
		return nil, err
	}
	key, err := foreignKeyOf(req, now)
	if err != nil {
		return nil, err
	}
	if err := s.notALegacyKey(ctx, key.public, key.Thumbprint); err != nil {
		return nil, err
	}
	about := fmt.Sprintf("import %s %s %s", ks.Name, key.KID, key.Thumbprint)
	if req.GetToken() == "" && req.GetChallenge() == "" {
		challenge, err := s.store.NewChallenge(about, now.Add(challengeTTL))
		return &pb.ImportPublicKeyResponse{Challenge: challenge}, err
	}
	if err := s.checkPossession(key, about, now, req); err != nil {
		return nil, err
	}
	l, err := s.change(ctx, ks, false, func(*store.Lifecycle) (store.Change, error) {
		return store.Change{New: []store.NewKey{{
			Role: store.RolePrimary, Label: signer.NewLabel(), Import: &key.ImportedKey, Reason: reasonOr(req.GetReason(), "imported"),
		}}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.ImportPublicKeyResponse{SigningKey: keyToProto(ks.Name, l.Keys[len(l.Keys)-1])}, nil
}

func foreignKeyOf(req *pb.ImportPublicKeyRequest, now time.Time) (*foreignKey, error) {
	block, rest := pem.Decode([]byte(req.GetPublicKey()))
	if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return nil, &invalid{"public_key", "is not one public key in PEM (\"BEGIN PUBLIC KEY\")"}
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, &invalid{"public_key", "is not a public key in PKIX form"}
	}
	alg, err := algorithmFor(public, req.GetAlgorithm())
	if err != nil {
		return nil, &invalid{"algorithm", err.Error()}
	}
	if _, err := token.NewKey(req.GetKid(), alg.JWS(), public); err != nil {
		return nil, &invalid{"public_key", err.Error()}
	}
	thumbprint, err := signer.Thumbprint(public)
	if err != nil {
		return nil, err
	}
	key := &foreignKey{public: public, algorithm: alg, ImportedKey: store.ImportedKey{
		KID: req.GetKid(), Algorithm: alg.String(), Thumbprint: thumbprint, PublicKey: block.Bytes,
	}}
	if until := req.GetTrustedUntil(); until != nil {
		if key.TrustedUntil = until.AsTime().Truncate(time.Microsecond); !key.TrustedUntil.After(now) {
			return nil, &invalid{"trusted_until", "lies in the past"}
		}
	}
	return key, nil
}

// algorithmFor returns the algorithm of an imported key: what the request says
// it is, or what is usual for this kind of key.
func algorithmFor(public crypto.PublicKey, wish string) (signer.Algorithm, error) {
	usual := ""
	switch key := public.(type) {
	case *rsa.PublicKey:
		name := "RS256"
		if wish != "" {
			name, _, _ = strings.Cut(wish, "-")
		}
		usual, wish = fmt.Sprintf("%s-%d", name, key.N.BitLen()), ""
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			usual = "ES256"
		case elliptic.P384():
			usual = "ES384"
		}
	case ed25519.PublicKey:
		usual = "EdDSA"
	}
	if usual == "" {
		return signer.Algorithm{}, fmt.Errorf("no algorithm here uses a key of type %T of this size", public)
	}
	if wish != "" && wish != usual {
		return signer.Algorithm{}, fmt.Errorf("%q does not go with this key, which is for %s", wish, usual)
	}
	return signer.Parse(usual)
}

// checkPossession checks that whoever asks has, or has been sent something by, the
// private key: a signed challenge, or a token that carries the key's ID.
func (s keyService) checkPossession(key *foreignKey, about string, now time.Time, req *pb.ImportPublicKeyRequest) error {
	if raw := req.GetToken(); raw != "" {
		if err := key.signed(raw); err != nil {
			return &invalid{"token", err.Error()}
		}
		return nil
	}
	if err := s.store.CheckChallenge(req.GetChallenge(), about, now); err != nil {
		return &invalid{"challenge", "is not one that was given out for this keyset, key and key ID in the last ten minutes"}
	}
	if key.algorithm.Verify(key.public, []byte(req.GetChallenge()), req.GetChallengeSignature()) != nil {
		return &invalid{"challenge_signature", fmt.Sprintf("is not a %s signature of the challenge by this key", key.algorithm.JWS())}
	}
	return nil
}

// signed says why a token is not one that the key has signed. Nothing else of the
// token is looked at: it may have expired, or carry claims of another issuer.
func (k *foreignKey) signed(raw string) error {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return errors.New("is not a token in compact form")
	}
	var header struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}
	text, herr := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	sig, serr := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if herr != nil || serr != nil || json.Unmarshal(text, &header) != nil {
		return errors.New("is not a token in compact form")
	}
	switch {
	case header.Kid != k.KID:
		return fmt.Errorf("carries another key ID than %q", k.KID)
	case header.Alg != k.algorithm.JWS():
		return fmt.Errorf("is not signed with %s", k.algorithm.JWS())
	case k.algorithm.Verify(k.public, []byte(parts[0]+"."+parts[1]), sig) != nil:
		return errors.New("is not signed by this key")
	}
	return nil
}
