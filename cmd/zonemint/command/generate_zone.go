package command

import (
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/token"
)

func newGenerateZoneToken() *cobra.Command {
	var m minting
	var zone string
	var scope *choices
	cmd := &cobra.Command{
		Use:   "zone-token --zone ZONE --valid-for DURATION",
		Short: "Issue a token by which a zone proves who it is",
		Long: `Issue a zone token. It is printed with nothing around it, and with a newline only
on a terminal.
` + offlineHelp,
		Example: `  zonemint generate zone-token --zone east --valid-for 24h > east.token
  zonemint generate zone-token --zone east --valid-for 720h --scope cp -o json
  zonemint generate zone-token --zone east --valid-for 24h --signing-key-path key.pem --kid offline-1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return m.run(cmd, profile.Zone{Zone: zone, Scope: scope.values}, func(c *client) (answer, error) {
				return c.tokens.IssueZoneToken(cmd.Context(), &pb.IssueZoneTokenRequest{
					Zone: zone, Scopes: scope.values, ValidFor: durationpb.New(m.validFor), Keyset: m.keyset,
				})
			})
		},
	}
	cmd.Flags().StringVar(&zone, "zone", "", "the `name` of the zone")
	scope = choicesFlag(cmd, "scope", token.DefaultScopes(), scopes(), "what the token may be used for")
	m.flags(cmd, "zone")
	_ = cmd.MarkFlagRequired("zone") // the flag exists
	return cmd
}
