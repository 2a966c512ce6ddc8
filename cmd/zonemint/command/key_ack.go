package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

func newKeyAck() *cobra.Command {
	var conn connection
	var consumer string
	var kids []string
	var all bool
	var form *choice
	cmd := &cobra.Command{
		Use:   "ack KEYSET --consumer NAME --kid KID",
		Short: "Say which keys a consumer of a keyset has; rotations wait for it",
		Long: `Say which keys a consumer of a keyset has: for keysets whose keys somebody, or a
script, brings to a control plane. Name all keys that the consumer has: they replace
what was said before. --all names those that are in the JWK set now; use it only if
the consumer has been given that very set.

Printed is what the consumer lacks, and what it has and must not trust any more.`,
		Example: `  zonemint key ack edge --consumer cp-west --kid edge-1-9f86d081 --kid edge-2-2c26b46b
  zonemint key ack edge --consumer cp-west --all`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if all {
				if kids, err = kidsInSet(cmd.Context(), c, args[0]); err != nil {
					return err
				}
			}
			resp, err := c.keys.AcknowledgeKeys(cmd.Context(), &pb.AcknowledgeKeysRequest{Keyset: args[0], Consumer: consumer, Kids: kids})
			if err != nil {
				return err
			}
			return show(cmd, form, resp, ackTable(kids, resp))
		},
	}
	cmd.ValidArgsFunction = completeKeysetArg(&conn)
	f := cmd.Flags()
	f.StringVar(&consumer, "consumer", "", "the `name` of the consumer, one of those that the keyset names")
	f.StringSliceVar(&kids, "kid", nil, "the `IDs` of the keys that it has")
	f.BoolVar(&all, "all", false, "it has all keys that are in the JWK set now")
	_ = cmd.RegisterFlagCompletionFunc("consumer", completeConsumers(&conn)) // the flag exists
	_ = cmd.RegisterFlagCompletionFunc("kid", completeKIDs(&conn))           // so does this
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	_ = cmd.MarkFlagRequired("consumer") // the flag exists
	cmd.MarkFlagsMutuallyExclusive("kid", "all")
	cmd.MarkFlagsOneRequired("kid", "all")
	return cmd
}

// kidsInSet returns the IDs in the JWK set as verifiers get it: what the database
// has may be newer than what anybody could have been given.
func kidsInSet(ctx context.Context, c *client, keyset string) ([]string, error) {
	data, err := c.web.get(ctx, keysetPath(keyset, "/jwks.json"), "application/jwk-set+json")
	if err != nil {
		return nil, err
	}
	set, err := token.ParseKeySet(data)
	if err != nil {
		return nil, fmt.Errorf("the JWK set of %s: %w", keyset, err)
	}
	kids := set.IDs()
	for _, skipped := range set.Skipped() {
		kids = append(kids, skipped.ID)
	}
	return kids, nil
}

func ackTable(kids []string, resp *pb.AcknowledgeKeysResponse) table {
	t := table{}
	t.add("acknowledged", list(kids))
	t.add("missing", list(resp.GetMissing()))
	t.add("not trusted any more", list(resp.GetSurplus()))
	return t
}
