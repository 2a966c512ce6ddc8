package command

import (
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
	cmd.AddCommand(newKeysetCreate(), newKeysetUpdate(), newKeysetList())
	return cmd
}

func newKeysetList() *cobra.Command {
	var conn connection
	var form *choice
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the keysets and their policies",
		Long:    "List the keysets and their policies. JSON has who must acknowledge keys, too.",
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
	t := table{header: []string{"NAME", "PROFILE", "ALGORITHM", "BACKEND", "DISTRIBUTION", "MAX", "DEFAULT", "BACKDATE", "ROTATE EVERY"}}
	for _, k := range keysets {
		t.add(k.GetName(), enumName(k.GetProfile().String()), k.GetAlgorithm(), k.GetBackend(),
			enumName(k.GetDistribution().String()), span(k.GetMaxValidFor()), span(k.GetDefaultValidFor()), span(k.GetBackdate()),
			span(k.GetRotateEvery()))
	}
	return t
}
