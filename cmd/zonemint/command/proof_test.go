package command_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/zonemint/zonemint/cmd/zonemint/command"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/signer"
)

const challenge = "zonemint: trust key 3 in keyset zone, it's 5f0a"

// importer imports keys whose challenge was signed.
type importer struct {
	v1.UnimplementedKeyServiceHandler
	algorithm signer.Algorithm
}

func (i importer) ImportPublicKey(_ context.Context, req *pb.ImportPublicKeyRequest) (*pb.ImportPublicKeyResponse, error) {
	if strings.Contains(req.String(), "PRIVATE") {
		return nil, connect.NewError(connect.CodeInternal, errors.New("there is a private key in the request"))
	}
	if req.GetChallenge() == "" {
		return &pb.ImportPublicKeyResponse{Challenge: challenge}, nil
	}
	block, _ := pem.Decode([]byte(req.GetPublicKey()))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if req.GetChallenge() != challenge || !signed(i.algorithm, public, req.GetChallengeSignature()) {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the signature is not the key's"))
	}
	return &pb.ImportPublicKeyResponse{SigningKey: &pb.SigningKey{Keyset: req.GetKeyset(), Serial: 3, Kid: req.GetKid(), State: "retiring"}}, nil
}

// signed verifies with the standard library alone, ECDSA in both its forms.
func signed(alg signer.Algorithm, public crypto.PublicKey, sig []byte) bool {
	digest := []byte(challenge)
	if h := alg.Hash(); h != 0 {
		w := h.New()
		w.Write(digest)
		digest = w.Sum(nil)
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if alg == signer.PS256 {
			return rsa.VerifyPSS(public, alg.Hash(), digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(public, alg.Hash(), digest, sig) == nil
	case *ecdsa.PublicKey:
		n := (public.Curve.Params().BitSize + 7) / 8
		if len(sig) == 2*n && ecdsa.Verify(public, digest, new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])) {
			return true
		}
		return ecdsa.VerifyASN1(public, digest, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(public, digest, sig)
	default:
		return false
	}
}

// A key of every algorithm proves itself: here, and with the commands that
// "key import" prints.
func TestImportProofs(t *testing.T) {
	t.Parallel()
	for _, alg := range []signer.Algorithm{signer.RS256, signer.RS384, signer.RS512, signer.PS256, signer.ES256, signer.ES384, signer.EdDSA} {
		t.Run(alg.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			mux := http.NewServeMux()
			mux.Handle(v1.NewKeyServiceHandler(importer{algorithm: alg}))
			s := httptest.NewServer(mux)
			defer s.Close()
			private, public, apiToken := filepath.Join(dir, "PRIVATE.pem"), filepath.Join(dir, "key.pub"), filepath.Join(dir, "api.token")
			write(t, apiToken, fakeToken)
			write(t, private, zonemint(t, "generate", "signing-key", "--format", "pem", "--algorithm", alg.String()))
			write(t, public, zonemint(t, "generate", "public-key", "--signing-key-path", private))
			importing := []string{
				"key", "import", "zone", "--addr", s.URL, "--token-file", apiToken, "--public-key", public, "--kid", "3", "--algorithm", alg.String(),
			}
			if out := zonemint(t, append(importing, "--proof-key", private)...); !strings.Contains(out, "zone    3       retiring") {
				t.Errorf("--proof-key: %s", out)
			}
			followInstructions(t, dir, zonemint(t, importing...))
			sig := filepath.Join(dir, "challenge.sig")
			out := zonemint(t, append(importing, "--challenge", challenge, "--challenge-signature", sig)...)
			if !strings.Contains(out, "retiring") {
				t.Errorf("--challenge-signature: %s", out)
			}
		})
	}
}

// followInstructions runs the printed commands that sign a challenge.
func followInstructions(t *testing.T, dir, text string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	ran := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "printf ") && !strings.HasPrefix(line, "openssl ") {
			continue
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		ran++
	}
	if ran != 2 {
		t.Fatalf("no two commands to run in:\n%s", text)
	}
}

// zonemint runs a command and returns what it prints.
func zonemint(t *testing.T, args ...string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	if code := command.Run(t.Context(), args, command.IO{In: strings.NewReader(""), Out: &out, Err: &stderr}); code != 0 {
		t.Fatalf("zonemint %s: exit code %d\n%s", strings.Join(args, " "), code, &stderr)
	}
	return out.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
