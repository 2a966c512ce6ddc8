package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/store"
)

func newGenerateUserToken() *cobra.Command {
	var m minting
	var user profile.User
	var allowSystem bool
	cmd := &cobra.Command{
		Use:   "user-token --name NAME --valid-for DURATION",
		Short: "Issue a token by which a user of a control plane's API proves who they are",
		Long: `Issue a user token. It is printed with nothing around it, and with a newline only
on a terminal.

Names and groups that begin with "mesh-system:" have the rights of administrators.
A server refuses them unless the keyset allows them.
` + offlineHelp,
		Example: `  zonemint generate user-token --name jo@example.com --group team-a --valid-for 24h > jo.token
  zonemint generate user-token --name ci --group deployers,readers --valid-for 1h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case m.keyPath != "":
				if err := offlineUser(user, allowSystem); err != nil {
					return usage{err}
				}
			case allowSystem:
				return usage{errors.New("--allow-mesh-system: the server's keyset decides; this is for --signing-key-path")}
			}
			return m.run(cmd, user, func(c *client) (answer, error) {
				return c.tokens.IssueUserToken(cmd.Context(), &pb.IssueUserTokenRequest{
					Name: user.Name, Groups: user.Groups, ValidFor: durationpb.New(m.validFor), Keyset: m.keyset,
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&user.Name, "name", "", "the `name` of the user")
	f.StringSliceVar(&user.Groups, "group", nil, "the `names` of groups the user is in")
	f.BoolVar(&allowSystem, "allow-mesh-system", false, `with --signing-key-path: names and groups may begin with "mesh-system:"`)
	m.flags(cmd, "user")
	_ = cmd.MarkFlagRequired("name") // the flag exists
	return cmd
}

// offlineUser checks what a keyset would decide, if there were one.
func offlineUser(user profile.User, allowSystem bool) error {
	for _, f := range user.Fits(store.Keyset{Policy: store.Policy{AllowMeshSystem: allowSystem}}) {
		return fmt.Errorf("--%s: the rights of administrators need --allow-mesh-system", flagOf(f.Field))
	}
	return nil
}
