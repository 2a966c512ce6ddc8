package command

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

func newGenerate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Issue tokens, and make keys for issuing without a server",
		Long: `Issue tokens, with the server's keys or with one from a file. Commands and flags
are those of kumactl, so that scripts need another name and nothing else.`,
	}
	cmd.AddCommand(newGenerateZoneToken(), newGenerateSigningKey(), newGeneratePublicKey())
	return cmd
}

// zoneToken is what the flags of "generate zone-token" say.
type zoneToken struct {
	conn     connection
	zone     string
	scopes   *choices
	validFor time.Duration
	keyset   string
	form     *choice

	// Offline only.
	keyPath   string
	kid       string
	algorithm *choice
}

func newGenerateZoneToken() *cobra.Command {
	var z zoneToken
	cmd := &cobra.Command{
		Use:   "zone-token --zone ZONE --valid-for DURATION",
		Short: "Issue a token by which a zone proves who it is",
		Long: `Issue a zone token. It is printed with nothing around it, and with a newline only
on a terminal.

With --signing-key-path and --kid no server is asked: the token is signed here,
with a private key from a file in PEM (PKCS #1, PKCS #8 or SEC 1), or in base64 of
that. Such a token is in no ledger, no policy was asked, and nobody can revoke it
by anything but its ID.`,
		Example: `  zonemint generate zone-token --zone east --valid-for 24h > east.token
  zonemint generate zone-token --zone east --valid-for 720h --scope cp -o json
  zonemint generate zone-token --zone east --valid-for 24h --signing-key-path key.pem --kid offline-1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return z.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&z.zone, "zone", "", "the `name` of the zone")
	f.DurationVar(&z.validFor, "valid-for", 0, "how long the token is valid, for example 24h")
	z.scopes = choicesFlag(cmd, "scope", token.DefaultScopes(), scopes(), "what the token may be used for")
	keysetFlag(cmd, &z.conn, &z.keyset, "the `name` of the keyset whose key signs (default: zone)")
	f.StringVar(&z.keyPath, "signing-key-path", "", "sign here, with the private key in this `file`")
	f.StringVar(&z.kid, "kid", "", "with --signing-key-path: the key's `ID`, by which control planes know it")
	z.algorithm = algorithmFlag(cmd, "with --signing-key-path: the `algorithm`, such as RS256 or ES256 (default: the usual one of that kind of key)")
	z.form = outputFlag(cmd, asToken, asJSON)
	connectionFlags(cmd, &z.conn)
	_, _ = cmd.MarkFlagRequired("zone"), cmd.MarkFlagRequired("valid-for") // the flags exist
	cmd.MarkFlagsRequiredTogether("signing-key-path", "kid")
	cmd.MarkFlagsMutuallyExclusive("signing-key-path", "keyset")
	return cmd
}

func (z zoneToken) run(cmd *cobra.Command) error {
	if err := z.check(); err != nil {
		return usage{err}
	}
	issue := z.online
	if z.keyPath != "" {
		issue = z.offline
	}
	made, err := issue(cmd)
	if err != nil {
		return err
	}
	if z.form.value == asJSON {
		return showJSON(cmd, made)
	}
	return bare(cmd.OutOrStdout(), made.GetToken())
}

// check refuses what no server would accept, so that the same command line is
// right or wrong online and offline.
func (z zoneToken) check() error {
	var errs []error
	if !token.ValidZoneName(z.zone) {
		errs = append(errs, fmt.Errorf("--zone: %q is not 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit", z.zone))
	}
	if z.validFor < time.Second {
		errs = append(errs, fmt.Errorf("--valid-for: %s is shorter than a second", z.validFor))
	}
	if z.algorithm.value != "" && z.keyPath == "" {
		errs = append(errs, errors.New("--algorithm: the server knows its keys; this is for --signing-key-path"))
	}
	return errors.Join(errs...)
}

func (z zoneToken) online(cmd *cobra.Command) (*pb.IssueZoneTokenResponse, error) {
	c, err := z.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	return c.tokens.IssueZoneToken(cmd.Context(), &pb.IssueZoneTokenRequest{
		Zone: z.zone, Scopes: z.scopes.values, ValidFor: durationpb.New(z.validFor), Keyset: z.keyset,
	})
}

func (z zoneToken) offline(cmd *cobra.Command) (*pb.IssueZoneTokenResponse, error) {
	key, err := readSigningKey(cmd, z.keyPath, z.algorithm.value)
	if err != nil {
		return nil, usage{err}
	}
	made, err := signZoneToken(cmd.Context(), key, z.kid, z.zone, z.scopes.values, z.validFor)
	if err != nil {
		return nil, err
	}
	if _, err := strconv.Atoi(z.kid); err == nil {
		warn(cmd.ErrOrStderr(), "--kid %s is a number, which Kuma takes for one of its own keys", z.kid)
	}
	warn(cmd.ErrOrStderr(), "this token is in no ledger; keep its ID, %s, to be able to revoke it", made.GetJti())
	return made, nil
}

func newGenerateSigningKey() *cobra.Command {
	var form, algorithm *choice
	cmd := &cobra.Command{
		Use:   "signing-key",
		Short: "Make a private key for issuing without a server",
		Long: `Make a private key and print it: RSA as PKCS #1, ECDSA as SEC 1, Ed25519 as
PKCS #8. Whoever has it can sign. A server has no use for it; it makes its own
keys where they cannot be read. The key is printed with nothing around it.`,
		Example: `  (umask 077; zonemint generate signing-key --format pem > key.pem)
  zonemint generate public-key --signing-key-path key.pem > key.pub`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := newSigningKey(cmp.Or(algorithm.value, "RS256"), form.value)
			if err != nil {
				return err
			}
			return bare(cmd.OutOrStdout(), text)
		},
	}
	form = choiceFlag(cmd, "format", "", "pem-base64", []string{"pem-base64", "pem"}, "how to write the key")
	algorithm = algorithmFlag(cmd, "the `algorithm` to sign with, such as RS256-4096 or ES256 (default: RS256, which Kuma verifies)")
	return cmd
}

func newGeneratePublicKey() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "public-key --signing-key-path FILE",
		Short: "Print the public half of a private key",
		Long: `Print the public half of a private key, in PEM (PKIX, "PUBLIC KEY"), as control
planes, openssl and "zonemint verify --public-key" read it. The file has the key in
PEM or in base64 of that.`,
		Example: `  zonemint generate public-key --signing-key-path key.pem > key.pub`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := readSigningKey(cmd, path, "")
			if err != nil {
				return usage{err}
			}
			text, err := publicPEM(key.Public())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&path, "signing-key-path", "", "the `file` with the private key")
	_ = cmd.MarkFlagRequired("signing-key-path") // the flag exists
	return cmd
}

// algorithmFlag adds --algorithm: a name, for RSA with or without the size.
func algorithmFlag(cmd *cobra.Command, usage string) *choice {
	return choiceFlag(cmd, "algorithm", "", "", algorithms(), usage)
}
