package command

import (
	"context"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Read who changed what"}
	cmd.AddCommand(newAuditList())
	return cmd
}

// usualLimit is how much of a list without an end is shown.
const usualLimit = 100

func newAuditList() *cobra.Command {
	var conn connection
	var action, actor string
	var after, before *instant
	var limit *uint
	var form *choice
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List administrative acts, newest first",
		Long: `List administrative acts, newest first. What is not said matches all. Tokens that
were issued are in the ledger: "zonemint ledger list".`,
		Example: `  zonemint audit list --action signing-key. --after 24h
  zonemint audit list --actor api-token/0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e --limit 0 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return listing[*pb.AuditEvent]{
				field: "events", header: []string{"AT", "ACTOR", "ACTION", "TARGET", "DETAIL", "REQUEST"}, limit: int(*limit),
				row: func(e *pb.AuditEvent) []string {
					return []string{moment(e.GetAt()), e.GetActor(), e.GetAction(), e.GetTarget(), e.GetDetail(), e.GetRequestId()}
				},
				page: func(ctx context.Context, size int32, token string) ([]*pb.AuditEvent, string, error) {
					resp, err := c.audit.ListAuditEvents(ctx, &pb.ListAuditEventsRequest{
						ActionPrefix: action, Actor: actor, After: after.proto(), Before: before.proto(), PageSize: size, PageToken: token,
					})
					return resp.GetEvents(), resp.GetNextPageToken(), err
				},
			}.show(cmd, form)
		},
	}
	f := cmd.Flags()
	f.StringVar(&action, "action", "", "only acts whose name `begins` so, for example signing-key.")
	f.StringVar(&actor, "actor", "", "only acts of this `actor`, as the list shows it")
	after = pastFlag(cmd, "after", "at this `time` or later; a duration is that long ago")
	before = pastFlag(cmd, "before", "before this `time`; a duration is that long ago")
	limit = limitFlag(cmd)
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

// limitFlag adds --limit.
func limitFlag(cmd *cobra.Command) *uint {
	return cmd.Flags().Uint("limit", usualLimit, "how `many` at most; 0 is all")
}
