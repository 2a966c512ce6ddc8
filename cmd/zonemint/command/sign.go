package command

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zonemint/zonemint/backends/local"
	"github.com/zonemint/zonemint/instancekey"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/token"
)

// offlineBackdate is by how much iat and nbf lie in the past: as in keysets that
// say nothing else, and as in Kuma.
const offlineBackdate = 5 * time.Second

// readSigningKey reads a private key from a file. algorithm is the name of one,
// with or without a size, or "" for the usual one of that kind of key.
func readSigningKey(cmd *cobra.Command, path, algorithm string) (*signer.Key, error) {
	text, err := readSecret(path, cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := importKey(cmd.Context(), unwrapPEM(text), algorithm)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// unwrapPEM undoes base64 around PEM, if there is any.
func unwrapPEM(text []byte) []byte {
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return text
	}
	out, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return text // the parser of PEM says what is wrong
	}
	return out
}

// importKey takes a private key in PEM the same way as a server takes one in. A
// local backend always encrypts; it gets an instance key that dies with the
// process.
func importKey(ctx context.Context, text []byte, algorithm string) (*signer.Key, error) {
	instance, err := instancekey.Generate()
	if err != nil {
		return nil, err
	}
	b := local.New(instance.AEAD(), local.Options{}) // stays open: the key lives in it
	var first error
	for _, alg := range signer.Algorithms() {
		if algorithm != "" && algorithm != alg.JWS() && algorithm != alg.String() {
			continue
		}
		spec := signer.Spec{Keyset: "offline", Serial: 1, Label: signer.NewLabel(), Algorithm: alg}
		ref, public, err := b.Import(ctx, spec, text)
		if err == nil {
			return signer.Open(ctx, b, spec, ref, public)
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// signToken signs a token that looks like one of a server's.
func signToken(ctx context.Context, key *signer.Key, kid string, wish profile.Wish, validFor time.Duration) (*pb.IssuedToken, error) {
	alg := key.Algorithm().JWS()
	public, err := token.NewKey(kid, alg, key.Public())
	if err != nil {
		return nil, usage{fmt.Errorf("--kid: %w", err)}
	}
	jti, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	backdated := now.Add(-offlineBackdate).Truncate(time.Second)
	claims := token.Registered{
		ExpiresAt: now.Add(validFor).Truncate(time.Second), NotBefore: backdated, IssuedAt: backdated, ID: jti.String(),
	}
	input := wish.AppendSigningInput(nil, token.EncodeHeader(alg, kid), claims)
	sig, err := key.SignJWS(ctx, input)
	if err != nil {
		return nil, err
	}
	raw := string(token.AppendSignature(input, sig))
	// Nobody else looks at it before it is given out.
	if resp, err := verifyProfile(ctx, token.Profile(wish.Profile()), raw, public); err != nil || !resp.GetValid() {
		return nil, errors.Join(errors.New("the token that was made does not verify: "+resp.GetDetail()), err)
	}
	return &pb.IssuedToken{Token: raw, Jti: claims.ID, Kid: kid, ExpiresAt: timestamppb.New(claims.ExpiresAt)}, nil
}

// newSigningKey makes a private key and writes it as kumactl does: PEM, with
// another layer of base64 for configurations that want it in one line.
func newSigningKey(algorithm, format string) (string, error) {
	alg, err := signer.Parse(algorithm)
	if err != nil {
		return "", usage{err}
	}
	block, err := generateKey(alg)
	if err != nil {
		return "", err
	}
	text := pem.EncodeToMemory(block)
	if format == "pem" {
		return string(text), nil
	}
	return base64.StdEncoding.EncodeToString(text), nil
}

func generateKey(alg signer.Algorithm) (*pem.Block, error) {
	switch {
	case alg.RSABits() != 0:
		key, err := rsa.GenerateKey(rand.Reader, alg.RSABits())
		if err != nil {
			return nil, err
		}
		return &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}, nil
	case alg.Curve() != nil:
		key, err := ecdsa.GenerateKey(alg.Curve(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalECPrivateKey(key)
		return &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}, err
	default:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, err
	}
}

func publicPEM(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
