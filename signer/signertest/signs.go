package signertest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zonemint/zonemint/signer"
)

// signs checks a key with verifiers that share no code with package signer.
func (s *session) signs(alg signer.Algorithm) {
	spec := newSpec(alg)
	key, ref := s.newKey(s.connect(), spec)
	if err := key.Probe(s.ctx); err != nil {
		s.Fatalf("probe: %v", err)
	}
	if err := checkCertificate(key); err != nil {
		s.Errorf("as a crypto.Signer: %v", err)
	}
	if err := s.checkJWS(key, key.Public(), "once"); err != nil {
		s.Errorf("as JWS: %v", err)
	}

	other := s.open(s.connect(), spec, ref, nil)
	if !signer.SamePublicKey(key.Public(), other.Public()) {
		s.Fatal("a second process reads another public key")
	}
	if err := s.checkJWS(other, key.Public(), "again"); err != nil {
		s.Errorf("as JWS, from a second process: %v", err)
	}
}

// concurrent is worth most under the race detector.
func (s *session) concurrent() {
	const n = 32
	key, _ := s.newKey(s.connect(), newSpec(s.algorithm()))
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := s.checkJWS(key, key.Public(), fmt.Sprint("message ", i)); err != nil {
				s.Errorf("signature %d of %d: %v", i, n, err)
			}
		})
	}
	wg.Wait()
}

// brokenKey checks that a signature made with another key reaches nobody if
// it was made elsewhere, and that a probe finds out in any case.
func (s *session) brokenKey() {
	b := s.connect()
	key, ref := s.newKey(b, newSpec(s.algorithm()))
	s.h.BreakKey(s, ref)
	s.wantCode("probe", key.Probe(s.ctx), signer.Corrupt)
	if b.Traits().Remote {
		_, err := key.SignJWS(s.ctx, []byte("header.payload"))
		s.wantCode("sign", err, signer.Corrupt)
	}
}

// checkJWS signs a token that says text and has golang-jwt verify it.
func (s *session) checkJWS(key *signer.Key, public crypto.PublicKey, text string) error {
	alg := key.Algorithm().JWS()
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64(fmt.Appendf(nil, `{"alg":%q}`, alg)) + "." + b64(fmt.Appendf(nil, `{"sub":%q}`, text))
	sig, err := key.SignJWS(s.ctx, []byte(input))
	if err != nil {
		return err
	}
	parsed, err := jwt.Parse(input+"."+b64(sig), func(*jwt.Token) (any, error) { return public, nil },
		jwt.WithValidMethods([]string{alg}))
	if err != nil {
		return err
	}
	got, err := parsed.Claims.GetSubject()
	if err == nil && got != text {
		err = fmt.Errorf("subject is %q, want %q", got, text)
	}
	return err
}

// checkCertificate has the standard library sign a certificate with key.
func checkCertificate(key *signer.Key) error {
	template := &x509.Certificate{
		SerialNumber:       big.NewInt(1),
		Subject:            pkix.Name{CommonName: "signertest"},
		NotAfter:           time.Now().Add(time.Hour),
		SignatureAlgorithm: certificateAlgorithm(key.Algorithm()),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	return cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
}

func certificateAlgorithm(alg signer.Algorithm) x509.SignatureAlgorithm {
	return map[string]x509.SignatureAlgorithm{
		"RS256": x509.SHA256WithRSA, "RS384": x509.SHA384WithRSA, "RS512": x509.SHA512WithRSA,
		"PS256": x509.SHA256WithRSAPSS,
		"ES256": x509.ECDSAWithSHA256, "ES384": x509.ECDSAWithSHA384,
		"EdDSA": x509.PureEd25519,
	}[alg.JWS()]
}
