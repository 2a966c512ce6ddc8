package command

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// ledgerFilter is what the flags of "ledger list" say.
type ledgerFilter struct {
	conn                      connection
	keyset, subject, caller   string
	serial                    int32
	issuedAfter, issuedBefore *instant
	live                      bool
	limit                     *uint
	form                      *choice
}

func newLedgerList() *cobra.Command {
	var l ledgerFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tokens that were issued, newest first",
		Long: `List tokens that were, or may have been, given out, newest first. What is not said
matches all. The tokens themselves are not stored anywhere.`,
		Example: `  zonemint ledger list --subject west --live
  zonemint ledger list --keyset zone --serial 1 --issued-after 2026-11-21T05:00:00Z --limit 0 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return l.list(cmd) },
	}
	keysetFlag(cmd, &l.conn, &l.keyset, "only of the keyset with this `name`")
	f := cmd.Flags()
	f.Int32Var(&l.serial, "serial", 0, "with --keyset: only signed by the key with this `serial`")
	_ = cmd.RegisterFlagCompletionFunc("serial", completeSerials(&l.conn, &l.keyset)) // the flag exists
	f.StringVar(&l.subject, "subject", "", "only for the zone, dataplane or user with this `name`")
	f.StringVar(&l.caller, "caller", "", "only what this `caller` asked for, as the list shows it")
	l.issuedAfter = pastFlag(cmd, "issued-after", "issued at this `time` or later; a duration is that long ago")
	l.issuedBefore = pastFlag(cmd, "issued-before", "issued before this `time`; a duration is that long ago")
	f.BoolVar(&l.live, "live", false, "only tokens that have not expired")
	l.limit = limitFlag(cmd)
	l.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &l.conn)
	return cmd
}

func (l ledgerFilter) list(cmd *cobra.Command) error {
	if l.serial != 0 && l.keyset == "" {
		return usage{errors.New("--serial needs --keyset: every keyset counts its own")}
	}
	c, err := l.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	return listing[*pb.Issuance]{
		field: "issuances", header: []string{"JTI", "KEYSET", "SERIAL", "SUBJECT", "SCOPES", "ISSUED", "EXPIRES", "CALLER"},
		limit: int(*l.limit),
		row: func(i *pb.Issuance) []string {
			return []string{
				i.GetJti(), i.GetKeyset(), serialText(i.GetSerial()), i.GetSubject(), list(i.GetScopes()),
				moment(i.GetIssuedAt()), moment(i.GetExpiresAt()), i.GetCaller(),
			}
		},
		page: func(ctx context.Context, size int32, token string) ([]*pb.Issuance, string, error) {
			resp, err := c.audit.ListIssuances(ctx, &pb.ListIssuancesRequest{
				Keyset: l.keyset, Serial: l.serial, Subject: l.subject, Caller: l.caller,
				IssuedAfter: l.issuedAfter.proto(), IssuedBefore: l.issuedBefore.proto(), Live: l.live,
				PageSize: size, PageToken: token,
			})
			return resp.GetIssuances(), resp.GetNextPageToken(), err
		},
	}.show(cmd, l.form)
}
