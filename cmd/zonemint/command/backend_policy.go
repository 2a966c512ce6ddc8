package command

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/backends/awskms"
	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/backends/vault"
)

func newBackendPolicy() *cobra.Command {
	var mount, prefix string
	var create, destroy bool
	texts := map[string]func() string{
		"awskms": func() string { return awskms.Policy(create, destroy) },
		"gcpkms": func() string { return gcpkms.Role(create, destroy) },
		"vault":  func() string { return vault.Policy(mount, prefix, vault.Rights{Create: create, Destroy: destroy}) },
	}
	cmd := &cobra.Command{
		Use:   "policy awskms | gcpkms | vault",
		Short: "Print the least rights that a server needs in a backend",
		Long: `Print what a backend has to grant to a server, and not more: to sign with the keys
of zonemint and to read their public halves. To make keys, which rotations do, it
needs --create; to destroy them when somebody asks for it, --destroy. It is an IAM
policy for AWS, a custom role for Google Cloud, a policy for Vault or OpenBao.`,
		Example: `  zonemint backend policy vault --create > signing.hcl
  zonemint backend policy awskms --create --destroy > policy.json
  zonemint backend policy gcpkms --create > role.yaml`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: slices.Sorted(maps.Keys(texts)),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), texts[args[0]]())
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&mount, "mount", "transit", "vault: the `path` that the Transit engine is mounted at")
	f.StringVar(&prefix, "key-prefix", "", "vault: the `text` that the names of keys begin with, as in the configuration")
	f.BoolVar(&create, "create", false, "the server makes keys")
	f.BoolVar(&destroy, "destroy", false, "the server destroys keys when somebody asks for it")
	return cmd
}
