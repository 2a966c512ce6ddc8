package command

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// prove puts a proof that is at hand into the request.
func (k keyImport) prove(cmd *cobra.Command, req *pb.ImportPublicKeyRequest) error {
	switch {
	case k.proofToken != "":
		text, err := readToken(cmd, []string{k.proofToken})
		req.Token = text
		return err
	case k.challenge != "":
		sig, err := readSignature(k.signature)
		req.Challenge, req.ChallengeSignature = k.challenge, sig
		return err
	default:
		return nil
	}
}

// readSignature reads a signature as openssl or "base64" has written it.
func readSignature(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--challenge-signature: %w", err)
	}
	text := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, string(b))
	// A signature is dozens of random bytes: none looks like base64 by chance.
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(text); err == nil && len(raw) > 0 {
			return raw, nil
		}
	}
	return b, nil
}

// signer returns what signs a challenge with --proof-key.
func (k keyImport) signer(cmd *cobra.Command, public token.Key) (func(context.Context, string) ([]byte, error), error) {
	key, err := readSigningKey(cmd, k.proofKey, k.algorithm.value)
	if err != nil {
		return nil, err
	}
	half, ok := public.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !half.Equal(key.Public()) {
		return nil, fmt.Errorf("the key in %s is not the private half of the one in %s", k.proofKey, k.publicKey)
	}
	return func(ctx context.Context, challenge string) ([]byte, error) {
		if err := checkChallenge(challenge); err != nil {
			return nil, err
		}
		return key.SignJWS(ctx, []byte(challenge))
	}, nil
}

// checkChallenge refuses to sign what could be a token: a server that is not what
// it says it is would otherwise get one from a key that others trust.
func checkChallenge(challenge string) error {
	head, _, dotted := strings.Cut(challenge, ".")
	header, err := base64.RawURLEncoding.DecodeString(head)
	switch {
	case challenge == "":
		return errors.New("the server sent no challenge")
	case dotted && err == nil && json.Valid(header):
		return errors.New("the server's challenge could be a token; it was not signed")
	case strings.ContainsFunc(challenge, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the server's challenge is not plain text; it was not signed")
	}
	return nil
}

// instruct says how to prove possession of a key that is elsewhere.
func (k keyImport) instruct(out io.Writer, keyset, challenge, algorithm string) error {
	if err := checkChallenge(challenge); err != nil {
		return err
	}
	again := fmt.Sprintf("zonemint key import %s --public-key %s --kid %s", shell(keyset), shell(k.publicKey), shell(k.kid))
	if k.algorithm.value != "" {
		again += " --algorithm " + k.algorithm.value
	}
	if k.trustedUntil.text != "" {
		again += " --trusted-until " + shell(k.trustedUntil.text)
	}
	if k.reason != "" {
		again += " --reason " + shell(k.reason)
	}
	_, err := fmt.Fprintf(out, `Nothing is imported yet. Prove within ten minutes that the private key is yours:
have it sign this challenge, without a newline at its end.

%s

For example, where PRIVATE.pem is:

  printf %%s %s > challenge.txt
  %s

Then, here:

  %s \
    --challenge %s --challenge-signature challenge.sig
`, challenge, shell(challenge), openssl(algorithm), again, shell(challenge))
	return err
}

// openssl returns the command that signs challenge.txt.
func openssl(algorithm string) string {
	switch algorithm {
	case "EdDSA":
		return "openssl pkeyutl -sign -rawin -inkey PRIVATE.pem -in challenge.txt -out challenge.sig"
	case "PS256":
		return "openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest" +
			" -sign PRIVATE.pem -out challenge.sig challenge.txt"
	default: // RS256, ES384: the digits are those of the hash
		return "openssl dgst -sha" + algorithm[2:] + " -sign PRIVATE.pem -out challenge.sig challenge.txt"
	}
}

// shell quotes a word for a POSIX shell, if it needs that.
func shell(s string) string {
	plain := func(r rune) bool {
		return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_./:@%+=,", r))
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
