package command

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newKeyset() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keyset",
		Short: "Manage keysets: series of signing keys with one purpose and one policy",
		Long: `Manage keysets. A keyset is a named series of signing keys with one purpose, one
profile, one algorithm and one policy. Verifiers trust a keyset, never all of them.`,
	}
	cmd.AddCommand(newKeysetCreate(), newKeysetList())
	return cmd
}

// keysetFlags is what the flags of "keyset create" say.
type keysetFlags struct {
	conn                                   connection
	profile, algorithm, distribution, form *choice
	backend                                string
	maxValidFor, defaultValidFor, backdate time.Duration
}

func newKeysetCreate() *cobra.Command {
	var k keysetFlags
	cmd := &cobra.Command{
		Use:   "create NAME --profile PROFILE",
		Short: "Make a keyset, with a key that signs and its published successor",
		Long: `Make a keyset. Its name is one or two labels separated by a slash and does not
change: "zone", "dataplane/default". It gets two keys, one that signs and one that
is published and ready to follow it.`,
		Example: `  zonemint keyset create edge --profile zone --max-valid-for 24h
  zonemint keyset create dataplane/payments --profile dataplane --algorithm RS256-4096`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return k.create(cmd, args[0]) },
	}
	f := cmd.Flags()
	k.profile = choiceFlag(cmd, "profile", "", "", profiles(), "what the tokens are for")
	k.algorithm = algorithmFlag(cmd, "the `algorithm` of its keys, such as RS256-4096 or ES256 (default: RS256, which Kuma verifies)")
	k.distribution = choiceFlag(cmd, "distribution", "", "", distributions(), "how verifiers learn its keys (default: jwks)")
	f.StringVar(&k.backend, "backend", "", "the `name` of the backend that holds its keys (default: the server's)")
	f.DurationVar(&k.maxValidFor, "max-valid-for", 0, "the longest lifetime of a token (default: 720h)")
	f.DurationVar(&k.defaultValidFor, "default-valid-for", 0, "the lifetime of a token whose request says none (default: it must say one)")
	f.DurationVar(&k.backdate, "backdate", 0, "how far iat and nbf lie in the past, for clocks that are behind (default: 5s)")
	k.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &k.conn)
	_ = cmd.MarkFlagRequired("profile") // the flag exists
	return cmd
}

func (k keysetFlags) create(cmd *cobra.Command, name string) error {
	c, err := k.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	way := strings.ToUpper(strings.ReplaceAll(k.distribution.value, "-", "_"))
	resp, err := c.keys.CreateKeyset(cmd.Context(), &pb.CreateKeysetRequest{Keyset: &pb.Keyset{
		Name: name, Algorithm: k.algorithm.value, Backend: k.backend,
		Profile:         pb.Profile(pb.Profile_value["PROFILE_"+strings.ToUpper(k.profile.value)]),
		Distribution:    pb.Distribution(pb.Distribution_value["DISTRIBUTION_"+way]), // none is the zero, unspecified
		MaxValidFor:     optional(cmd, "max-valid-for", k.maxValidFor),
		DefaultValidFor: optional(cmd, "default-valid-for", k.defaultValidFor),
		Backdate:        optional(cmd, "backdate", k.backdate),
	}})
	if err != nil {
		return err
	}
	return show(cmd, k.form, resp, keyTable(resp.GetSigningKeys()))
}

func newKeysetList() *cobra.Command {
	var conn connection
	var form *choice
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the keysets and their policies",
		Example: `  zonemint keyset list -o json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := c.keys.ListKeysets(cmd.Context(), &pb.ListKeysetsRequest{})
			if err != nil {
				return err
			}
			return show(cmd, form, resp, keysetTable(resp.GetKeysets()))
		},
	}
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func keysetTable(keysets []*pb.Keyset) table {
	t := table{header: []string{"NAME", "PROFILE", "ALGORITHM", "BACKEND", "DISTRIBUTION", "MAX", "DEFAULT", "BACKDATE"}}
	for _, k := range keysets {
		t.add(k.GetName(), enumName(k.GetProfile().String()), k.GetAlgorithm(), k.GetBackend(),
			enumName(k.GetDistribution().String()), span(k.GetMaxValidFor()), span(k.GetDefaultValidFor()), span(k.GetBackdate()))
	}
	return t
}
