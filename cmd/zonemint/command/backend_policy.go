package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/backends/vault"
)

func newBackendPolicy() *cobra.Command {
	var mount, prefix string
	var rights vault.Rights
	cmd := &cobra.Command{
		Use:   "policy vault",
		Short: "Print the least policy that a server needs in a backend",
		Long: `Print the policy that Vault or OpenBao has to grant to a server, and not more: to
sign with the keys of zonemint and to read their public halves. To make keys, which
rotations do, it needs --create; to destroy them when somebody asks for it, --destroy.`,
		Example: `  zonemint backend policy vault --create > signing.hcl
  zonemint backend policy vault --mount pki-transit --key-prefix mesh-`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"vault"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), vault.Policy(mount, prefix, rights))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&mount, "mount", "transit", "the `path` that the Transit engine is mounted at")
	f.StringVar(&prefix, "key-prefix", "", "the `text` that the names of keys begin with, as in the configuration")
	f.BoolVar(&rights.Create, "create", false, "the server makes keys")
	f.BoolVar(&rights.Destroy, "destroy", false, "the server destroys keys when somebody asks for it")
	return cmd
}
