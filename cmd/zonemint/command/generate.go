package command

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/zonemint/zonemint/service/profile"
)

func newGenerate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Issue tokens, and make keys for issuing without a server",
		Long: `Issue tokens, with the server's keys or with one from a file. Commands and flags
are those of kumactl, so that scripts need another name and nothing else.`,
	}
	cmd.AddCommand(newGenerateZoneToken(), newGenerateDataplaneToken(), newGenerateUserToken(),
		newGenerateControlPlaneToken(), newGenerateZoneIngressToken(),
		newGenerateSigningKey(), newGeneratePublicKey())
	return cmd
}

// minting is what all commands that issue a token have in common.
type minting struct {
	conn     connection
	validFor time.Duration
	keyset   string
	form     *choice

	// Offline only.
	keyPath   string
	kid       string
	algorithm *choice
}

// answer is what a server says, of whichever profile the token is.
type answer interface {
	proto.Message
	GetToken() string
	GetJti() string
}

// offlineHelp says what --signing-key-path is, for all commands that have it.
const offlineHelp = `
With --signing-key-path and --kid no server is asked: the token is signed here,
with a private key from a file in PEM (PKCS #1, PKCS #8 or SEC 1), or in base64 of
that. Such a token is in no ledger, no policy was asked, and nobody can revoke it
by anything but its ID.`

// flags adds the flags, with the keyset that is used without --keyset.
func (m *minting) flags(cmd *cobra.Command, keyset string) {
	f := cmd.Flags()
	f.DurationVar(&m.validFor, "valid-for", 0, "how long the token is valid, for example 24h")
	keysetFlag(cmd, &m.conn, &m.keyset, "the `name` of the keyset whose key signs (default: "+keyset+")")
	f.StringVar(&m.keyPath, "signing-key-path", "", "sign here, with the private key in this `file`")
	f.StringVar(&m.kid, "kid", "", "with --signing-key-path: the key's `ID`, by which control planes know it")
	m.algorithm = algorithmFlag(cmd, "with --signing-key-path: the `algorithm`, such as RS256 or ES256 (default: the usual one of that kind of key)")
	m.form = outputFlag(cmd, asToken, asJSON)
	connectionFlags(cmd, &m.conn)
	_ = cmd.MarkFlagRequired("valid-for") // the flag exists
	cmd.MarkFlagsRequiredTogether("signing-key-path", "kid")
	cmd.MarkFlagsMutuallyExclusive("signing-key-path", "keyset")
}

// run issues the token that was wished for, online with the given call.
func (m *minting) run(cmd *cobra.Command, wish profile.Wish, online func(*client) (answer, error)) error {
	if err := m.check(wish); err != nil {
		return usage{err}
	}
	var made answer
	var err error
	if m.keyPath != "" {
		made, err = m.offline(cmd, wish)
	} else {
		var c *client
		if c, err = m.conn.open(cmd.ErrOrStderr()); err == nil {
			made, err = online(c)
		}
	}
	if err != nil {
		return err
	}
	if m.form.value == asJSON {
		return showJSON(cmd, made)
	}
	return bare(cmd.OutOrStdout(), made.GetToken())
}

// check refuses what no server would accept, so that the same command line is
// right or wrong online and offline.
func (m *minting) check(wish profile.Wish) error {
	var errs []error
	for _, f := range wish.Faults() {
		errs = append(errs, fmt.Errorf("--%s: %s", flagOf(f.Field), f.Reason))
	}
	if m.validFor < time.Second {
		errs = append(errs, fmt.Errorf("--valid-for: %s is shorter than a second", m.validFor))
	}
	if m.algorithm.value != "" && m.keyPath == "" {
		errs = append(errs, errors.New("--algorithm: the server knows its keys; this is for --signing-key-path"))
	}
	return errors.Join(errs...)
}

// flagOf returns the flag that a field of Kuma's API has in kumactl.
func flagOf(field string) string {
	switch {
	case field == "tags":
		return "tag"
	case field == "type":
		return "proxy-type"
	case strings.HasPrefix(field, "groups"):
		return "group"
	default:
		return field
	}
}

func (m *minting) offline(cmd *cobra.Command, wish profile.Wish) (answer, error) {
	key, err := readSigningKey(cmd, m.keyPath, m.algorithm.value)
	if err != nil {
		return nil, usage{err}
	}
	made, err := signToken(cmd.Context(), key, m.kid, wish, m.validFor)
	if err != nil {
		return nil, err
	}
	if _, err := strconv.Atoi(m.kid); err == nil {
		warn(cmd.ErrOrStderr(), "--kid %s is a number, which Kuma takes for one of its own keys", m.kid)
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
