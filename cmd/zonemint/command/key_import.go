package command

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// keyImport is what the flags of "key import" say.
type keyImport struct {
	conn           connection
	publicKey, kid string
	algorithm      *choice
	trustedUntil   *instant
	reason         string
	form           *choice

	// Proof of possession: one of three, or none.
	proofToken, proofKey string
	challenge, signature string
}

func newKeyImport() *cobra.Command {
	var k keyImport
	cmd := &cobra.Command{
		Use:   "import KEYSET --public-key FILE --kid KID",
		Short: "Trust another issuer's public key for a while, so that its tokens stay valid",
		Long: `Add a public key that only verifies, so that tokens of another issuer stay valid
for a while: the way to move from other keys to these without a break.

It takes proof that the private key is yours, so that nobody can have a stranger's
key trusted:

- a token that it has signed, with that key ID; it may have expired (--proof-token);
- the private key itself. It signs a challenge here, and does not leave this process
  (--proof-key);
- or, without either, the challenge is printed with what to do: have the key sign it
  wherever the key is, and come again with --challenge and --challenge-signature.`,
		Example: `  zonemint key import zone --public-key old.pub --kid 3 --proof-token west.token --trusted-until 720h
  zonemint key import zone --public-key old.pub --kid 3 --proof-key old.pem
  zonemint key import zone --public-key old.pub --kid 3
  zonemint key import zone --public-key old.pub --kid 3 --challenge TEXT --challenge-signature challenge.sig`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return k.run(cmd, args[0]) },
	}
	cmd.ValidArgsFunction = completeKeysetArg(&k.conn)
	f := cmd.Flags()
	f.StringVar(&k.publicKey, "public-key", "", "the `file` with the public key, in PEM")
	f.StringVar(&k.kid, "kid", "", "the `ID` of the key that its tokens carry")
	k.algorithm = algorithmFlag(cmd, "the `algorithm` that its tokens carry (default: the usual one of that kind of key)")
	k.trustedUntil = futureFlag(cmd, "trusted-until", "when to stop trusting it, a `time` or a duration from now (default: never)")
	f.StringVar(&k.reason, "reason", "", "why, a `text` for the audit")
	f.StringVar(&k.proofToken, "proof-token", "", "prove it with the token in this `file`, - is stdin")
	f.StringVar(&k.proofKey, "proof-key", "", "prove it with the private key in this `file`, in PEM; it stays here")
	f.StringVar(&k.challenge, "challenge", "", "prove it with an earlier answer's challenge, this `text`")
	f.StringVar(&k.signature, "challenge-signature", "", "and with its signature in this `file`, raw or in base64")
	k.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &k.conn)
	_, _ = cmd.MarkFlagRequired("public-key"), cmd.MarkFlagRequired("kid") // the flags exist
	cmd.MarkFlagsMutuallyExclusive("proof-token", "proof-key", "challenge")
	cmd.MarkFlagsRequiredTogether("challenge", "challenge-signature")
	return cmd
}

func (k keyImport) run(cmd *cobra.Command, keyset string) error {
	public, err := readPublicKey(k.publicKey, k.kid, k.algorithm.value)
	if err != nil {
		return usage{fmt.Errorf("--public-key: %w", err)}
	}
	text, err := publicPEM(public.Public()) // what else is in the file stays here
	if err != nil {
		return err
	}
	req := &pb.ImportPublicKeyRequest{
		Keyset: keyset, PublicKey: string(text), Kid: k.kid, Algorithm: k.algorithm.value,
		TrustedUntil: k.trustedUntil.proto(), Reason: k.reason,
	}
	if err := k.prove(cmd, req); err != nil {
		return usage{err}
	}
	c, err := k.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	resp, err := k.call(cmd, c, req, public)
	switch {
	case err != nil:
		return err
	case k.form.value == asJSON:
		return showJSON(cmd, resp)
	case resp.GetSigningKey() == nil:
		return k.instruct(cmd.OutOrStdout(), keyset, resp.GetChallenge(), public.Algorithm())
	default:
		return printTables(cmd.OutOrStdout(), keyTable([]*pb.SigningKey{resp.GetSigningKey()}))
	}
}

// call imports the key, with --proof-key in two steps.
func (k keyImport) call(cmd *cobra.Command, c *client, req *pb.ImportPublicKeyRequest, public token.Key) (*pb.ImportPublicKeyResponse, error) {
	if k.proofKey == "" {
		return c.keys.ImportPublicKey(cmd.Context(), req)
	}
	sign, err := k.signer(cmd, public)
	if err != nil {
		return nil, usage{fmt.Errorf("--proof-key: %w", err)}
	}
	resp, err := c.keys.ImportPublicKey(cmd.Context(), req)
	if err != nil || resp.GetSigningKey() != nil {
		return resp, err
	}
	req.Challenge = resp.GetChallenge()
	if req.ChallengeSignature, err = sign(cmd.Context(), req.GetChallenge()); err != nil {
		return nil, err
	}
	return c.keys.ImportPublicKey(cmd.Context(), req)
}
